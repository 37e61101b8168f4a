"""Checkpoints of other libraries: the same logits as the model that wrote them, and every fault
named.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vitruvius.errors import VitruviusError
from vitruvius.models.zoo.pretrained import load_pretrained
from vitruvius.models.zoo.vit import VisionTransformer, VisionTransformerConfig

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}


def written_by(name: str, **changes):
    """A random model of transformers, every parameter away from its initial value."""
    torch.manual_seed(7)
    config = (transformers.DeiTConfig if name.startswith("DeiT") else transformers.ViTConfig)(
        **{**SIZES, "layer_norm_eps": 1e-6, **changes}
    )
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
    return model


def ours(**changes) -> VisionTransformer:
    config = {
        "image_size": 32,
        "patch_size": 8,
        "classes": 5,
        "dim": 24,
        "depth": 2,
        "heads": 3,
        "mlp_ratio": 2,
        **changes,
    }
    return VisionTransformer(VisionTransformerConfig(**config)).eval()


def images() -> torch.Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def same_logits(theirs: nn.Module, module: nn.Module) -> None:
    with torch.no_grad():
        torch.testing.assert_close(module(images()), theirs(images()).logits, rtol=0, atol=1e-5)


def timm_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What timm's models call the tensors of a transformers model (its own map, by hand)."""
    renamed = {
        "cls_token": state["deit.embeddings.cls_token"],
        "dist_token": state["deit.embeddings.distillation_token"],
        "pos_embed": state["deit.embeddings.position_embeddings"],
    }
    for end in ("weight", "bias"):
        renamed[f"patch_embed.proj.{end}"] = state[
            f"deit.embeddings.patch_embeddings.projection.{end}"
        ]
        renamed[f"norm.{end}"] = state[f"deit.layernorm.{end}"]
        renamed[f"head.{end}"] = state[f"cls_classifier.{end}"]
        renamed[f"head_dist.{end}"] = state[f"distillation_classifier.{end}"]
        for layer in range(2):
            theirs, block = f"deit.encoder.layer.{layer}", f"blocks.{layer}"
            parts = [
                state[f"{theirs}.attention.attention.{part}.{end}"]
                for part in ("query", "key", "value")
            ]
            renamed[f"{block}.attn.qkv.{end}"] = torch.cat(parts)
            for new, old in (
                ("attn.proj", "attention.output.dense"),
                ("norm1", "layernorm_before"),
                ("norm2", "layernorm_after"),
                ("mlp.fc1", "intermediate.dense"),
                ("mlp.fc2", "output.dense"),
            ):
                renamed[f"{block}.{new}.{end}"] = state[f"{theirs}.{old}.{end}"]
    return renamed


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ViTForImageClassification", {}),
        ("DeiTForImageClassificationWithTeacher", {"distilled": True}),
        # its second token has no head: one register here
        ("DeiTForImageClassification", {"registers": 1}),
    ],
)
def test_hugging_face_folders_give_the_logits_of_their_writer(
    tmp_path: Path, name: str, changes: dict[str, object]
) -> None:
    theirs = written_by(name)
    theirs.save_pretrained(tmp_path)
    module = ours(**changes)
    metadata = load_pretrained(module, tmp_path)
    assert metadata == {"format": "pt"}
    same_logits(theirs, module)


def test_the_newer_names_of_transformers_load_too(tmp_path: Path) -> None:
    theirs = written_by("ViTForImageClassification")
    assert any(".attention.q_proj." in key for key in theirs.state_dict())
    save_file(theirs.state_dict(), tmp_path / "newer.safetensors")
    module = ours()
    load_pretrained(module, tmp_path / "newer.safetensors")
    same_logits(theirs, module)


def test_a_bare_encoder_loads_into_a_model_without_a_head(tmp_path: Path) -> None:
    theirs = written_by("ViTModel", qkv_bias=False)
    theirs.save_pretrained(tmp_path)
    module = ours(classes=0, qkv_bias=False)
    load_pretrained(module, tmp_path)
    with torch.no_grad():
        tokens = theirs(images()).last_hidden_state
        torch.testing.assert_close(module(images()), tokens, rtol=0, atol=1e-5)


def test_timm_names_load(tmp_path: Path) -> None:
    theirs = written_by("DeiTForImageClassificationWithTeacher")
    theirs.save_pretrained(tmp_path)
    state = timm_names(load_file(tmp_path / "model.safetensors"))
    save_file(state, tmp_path / "timm.safetensors")
    module = ours(distilled=True)
    load_pretrained(module, tmp_path / "timm.safetensors")
    same_logits(theirs, module)


def test_shards_load_as_one_file_does(tmp_path: Path) -> None:
    theirs = written_by("ViTForImageClassification")
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    module = ours()
    load_pretrained(module, tmp_path)
    same_logits(theirs, module)
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(VitruviusError, match="expected a safetensors file, found none at"):
        load_pretrained(module, tmp_path)


def test_sixteen_bit_values_are_widened(tmp_path: Path) -> None:
    theirs = written_by("ViTForImageClassification").bfloat16()
    theirs.save_pretrained(tmp_path)
    module = ours()
    load_pretrained(module, tmp_path)
    assert module.head.weight.dtype == torch.float32
    assert torch.equal(module.head.weight, theirs.classifier.weight.float())


def test_positions_of_another_size_are_refused_or_resized(tmp_path: Path) -> None:
    theirs = written_by("ViTForImageClassification")
    theirs.save_pretrained(tmp_path)
    larger = ours(image_size=(48, 32))
    with pytest.raises(VitruviusError) as raised:
        load_pretrained(larger, tmp_path)
    assert (
        "vit.embeddings.position_embeddings expected shape [1, 25, 24], got [1, 17, 24]; the "
        "checkpoint has 17 positions and the model 25: it is for another image size or patch size"
    ) in str(raised.value)
    load_pretrained(larger, tmp_path, interpolate=True)
    big = torch.rand(2, 3, 48, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = theirs(big, interpolate_pos_encoding=True).logits
        torch.testing.assert_close(larger(big), expected, rtol=0, atol=1e-5)


def test_every_fault_is_listed_by_its_name_in_the_file(tmp_path: Path) -> None:
    theirs = written_by("ViTForImageClassification", num_labels=7)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    del state["vit.encoder.layer.1.attention.attention.key.bias"]
    state["vit.encoder.layer.2.output.dense.bias"] = torch.zeros(24)
    state["vit.layernorm.bias"] = torch.zeros(24, dtype=torch.float64)
    save_file(state, path)
    module = ours()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with pytest.raises(VitruviusError) as raised:
        load_pretrained(module, path)
    assert str(raised.value) == (
        f"{path} (named as Hugging Face does) does not fit VisionTransformer: "
        "missing vit.encoder.layer.1.attention.attention.key.bias; "
        "unexpected vit.encoder.layer.2.output.dense.bias; "
        "vit.layernorm.bias expected float32, got float64; "
        "classifier.weight expected shape [5, 24], got [7, 24]; "
        "classifier.bias expected shape [5], got [7]"
    )
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


def test_a_distilled_checkpoint_does_not_fit_a_model_with_one_token(tmp_path: Path) -> None:
    written_by("DeiTForImageClassificationWithTeacher").save_pretrained(tmp_path)
    with pytest.raises(VitruviusError) as raised:
        load_pretrained(ours(), tmp_path)
    assert (
        "unexpected deit.embeddings.distillation_token, distillation_classifier.bias, "
        "distillation_classifier.weight"
    ) in str(raised.value)


def test_own_names_and_foreign_ones(tmp_path: Path) -> None:
    source, module = ours(), ours()
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    load_pretrained(module, tmp_path / "own.safetensors")
    assert torch.equal(module.blocks[1].attn.qkv.weight, source.blocks[1].attn.qkv.weight)
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(VitruviusError, match=r"missing blocks.0.attn.* unexpected conv1.weight"):
        load_pretrained(module, tmp_path / "foreign.safetensors")


def test_folders_without_weights_and_shards_outside(tmp_path: Path) -> None:
    with pytest.raises(VitruviusError, match=r"expected model.safetensors or .*, found neither"):
        load_pretrained(ours(), tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(VitruviusError, match=r"expected files in the same folder, got \.\./secret"):
        load_pretrained(ours(), tmp_path)
    index.write_text("{")
    with pytest.raises(VitruviusError, match="is not an index of shards"):
        load_pretrained(ours(), tmp_path)


def test_a_module_of_another_class_takes_its_own_names(tmp_path: Path) -> None:
    layer = nn.Linear(2, 3)
    save_file(nn.Linear(2, 4).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(VitruviusError, match=r"does not fit Linear: .*expected shape \[3, 2\]"):
        load_pretrained(layer, tmp_path / "w.safetensors")
