"""Folders as ``save_pretrained`` writes them: the logits are those of the library that wrote
them.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from vitruvius.errors import VitruviusError
from vitruvius.models.hugging_face import load_folder, vision_transformer_config
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.models.zoo.vit import VisionTransformer

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "image_size": 16,
    "patch_size": 8,
}


def saved(model: transformers.PreTrainedModel, folder: Path, **options: object) -> Path:
    model.save_pretrained(folder, **options)
    return folder


def vit(folder: Path, **more: object) -> Path:
    torch.manual_seed(0)
    config = transformers.ViTConfig(**{**SIZES, "num_labels": 5, **more})
    return saved(transformers.ViTForImageClassification(config), folder)


def refused(spec: Path) -> str:
    with pytest.raises(VitruviusError) as error:
        load_folder(spec)
    text = str(error.value)
    assert "\n" not in text
    return text


def edit(folder: Path, **fields: object) -> Path:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    ("builder", "configuration", "more"),
    [
        ("ViTForImageClassification", "ViTConfig", {"num_labels": 7, "hidden_act": "gelu_new"}),
        ("ViTForImageClassification", "ViTConfig", {"qkv_bias": False, "num_channels": 1}),
        ("ViTModel", "ViTConfig", {}),
        ("DeiTForImageClassification", "DeiTConfig", {"num_labels": 4}),
        ("DeiTForImageClassificationWithTeacher", "DeiTConfig", {"num_labels": 4}),
    ],
)
def test_vit_and_deit_become_the_zoos(
    tmp_path: Path, builder: str, configuration: str, more: dict[str, object]
) -> None:
    torch.manual_seed(1)
    config = getattr(transformers, configuration)(**SIZES, **more)
    model = getattr(transformers, builder)(config).eval()
    # all-zero tokens and biases would hide a token in the wrong place
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    module, (example,) = load_folder(saved(model, tmp_path / "model"))
    assert isinstance(module, VisionTransformer)
    assert not module.training
    images = torch.rand(2, *example.shape[1:])
    with torch.no_grad():
        expected = model(images)[0]
        got = module(images)
    assert float((got - expected).abs().max()) < 1e-5 * max(1, float(expected.abs().max()))


def test_a_folder_is_a_model_wherever_one_is_taken(tmp_path: Path) -> None:
    folder = vit(tmp_path / "my_vit")
    for spec in (folder, folder / "config.json"):
        workload = resolve_model(str(spec))
        assert workload.name == "my_vit"
        graph = trace(workload.module, workload.example_inputs, name=workload.name)
        assert len(graph.regions) == 2


def test_shards(tmp_path: Path) -> None:
    whole = load_folder(vit(tmp_path / "whole"))[0]
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES, num_labels=5))
    folder = saved(model, tmp_path / "parts", max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(whole(images), load_folder(folder)[0](images))


def test_another_family_is_built_by_transformers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Silently: the library's own progress bar would stand between our lines."""
    torch.manual_seed(0)
    config = transformers.Dinov2Config(**{**SIZES, "mlp_ratio": 2, "num_labels": 3})
    model = transformers.Dinov2ForImageClassification(config).eval()
    folder = saved(model, tmp_path / "dino")
    capfd.readouterr()
    module, (example,) = load_folder(folder)
    assert capfd.readouterr().err == ""
    assert transformers.logging.is_progress_bar_enabled()
    assert type(module) is transformers.Dinov2ForImageClassification
    assert example.shape == (1, 3, 16, 16)
    images = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(module(images).logits, model(images).logits)
    graph = trace(module, (example,), name="dino", unmapped="host")
    assert len(graph.regions) == 2


def test_another_family_without_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = edit(vit(tmp_path / "m"), model_type="swin", architectures=["SwinModel"])
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert refused(folder) == (
        f"{folder / 'config.json'}: architecture SwinModel (model_type swin) is not known here, "
        "only DeiTForImageClassification, DeiTForImageClassificationWithTeacher, DeiTModel, "
        "ViTForImageClassification, ViTModel are; pip install transformers widens that"
    )


def test_an_unknown_architecture(tmp_path: Path) -> None:
    folder = edit(vit(tmp_path / "m"), model_type="hexavit", architectures=["HexaViT"])
    assert refused(folder) == (
        f"{folder / 'config.json'}: architecture HexaViT (model_type hexavit) is not known here, "
        f"nor to transformers {transformers.__version__}: that library has no such model"
    )
    folder = edit(folder, model_type="vit")
    assert refused(folder).endswith(f"nor to transformers {transformers.__version__}")


def test_code_in_the_folder_is_not_run(tmp_path: Path) -> None:
    folder = edit(
        vit(tmp_path / "m"),
        model_type="own",
        architectures=["Own"],
        auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Own"},
    )
    trap = tmp_path / "made"
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(trap)!r})\n")
    assert "architecture Own (model_type own) is not known here" in refused(folder)
    assert not trap.exists()


def test_a_model_of_images_and_text(tmp_path: Path) -> None:
    tower = {**SIZES, "projection_dim": 8}
    config = transformers.CLIPConfig(
        text_config={**SIZES, "vocab_size": 50, "projection_dim": 8},
        vision_config=tower,
        projection_dim=8,
    )
    folder = saved(transformers.CLIPModel(config), tmp_path / "clip")
    assert "architecture CLIPModel (model_type clip) takes more than images" in refused(folder)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    folder = vit(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    tensors["extra"] = tensors.pop("classifier.bias")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    text = refused(folder)
    assert "missing classifier.bias" in text
    assert "unexpected extra" in text

    other = saved(
        transformers.Dinov2Model(transformers.Dinov2Config(**{**SIZES, "mlp_ratio": 2})),
        tmp_path / "d",
    )
    tensors = load_file(other / "model.safetensors")
    tensors["extra"] = tensors.pop("layernorm.bias")
    tensors["layernorm.weight"] = torch.zeros(3)
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    text = refused(other)
    assert text.startswith(f"{other} does not fit Dinov2Model: missing layernorm.bias")
    assert "unexpected extra" in text
    assert "layernorm.weight expected shape [24], got [3]" in text


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    folder = vit(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    assert refused(folder) == (
        f"expected model.safetensors or model.safetensors.index.json in the folder {folder}"
    )
    (folder / "pytorch_model.bin").write_bytes(b"anything")
    assert "holds its weights in pytorch_model.bin, and loading anything but safetensors" in (
        refused(folder)
    )
    (folder / "config.json").write_text("{")
    assert "config.json cannot be read: JSONDecodeError" in refused(folder)
    (folder / "config.json").write_text("{}")
    assert "names no model_type" in refused(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    assert refused(folder) == f"expected a config.json in the folder {folder}, found none"
    with pytest.raises(VitruviusError, match=r"expected a config\.json in the folder"):
        resolve_model(str(folder))


def test_sizes_that_the_zoo_lacks_are_left_to_transformers() -> None:
    known = {"model_type": "vit", "architectures": ["ViTModel"]}
    assert vision_transformer_config(known) is not None
    for field in ({"patch_size": [8, 4]}, {"hidden_act": "selu"}, {"architectures": ["ViTMAE"]}):
        assert vision_transformer_config({**known, **field}) is None
