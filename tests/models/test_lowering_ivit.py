"""Scheme `ivit` on whole models: the published data flow, and how well it keeps a trained one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vitruvius.errors import VitruviusError
from vitruvius.models.calibration import observe
from vitruvius.models.emission import NoIntegerFormError
from vitruvius.models.graph import Graph
from vitruvius.models.integer_model import IntegerModel, IntegerOperator
from vitruvius.models.lowering_ivit import IvitLowering
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.quantize import quantize
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.models.zoo.vit import Experts, VisionTransformer, VisionTransformerConfig

MODES = ("safe", "faithful")


@pytest.fixture(scope="module")
def workload():
    return resolve_model("vit_digits")


@pytest.fixture(scope="module")
def graph(workload) -> Graph:
    return trace(workload.module, workload.example_inputs, name=workload.name)


@pytest.fixture(scope="module")
def models(workload, graph) -> dict[str, IntegerModel]:
    images = workload.dataset.calibration_images
    return {
        mode: quantize(graph, images, options=QuantizationOptions(scheme="ivit", ivit_mode=mode))
        for mode in MODES
    }


@pytest.mark.parametrize("mode", MODES)
def test_a_trained_model_is_kept(workload, models, mode: str) -> None:
    """Within a point of the float model on all 360 test digits, each tensor above 20 dB."""
    data = workload.dataset
    with torch.no_grad():
        exact = workload.module(data.test_images)
    float_accuracy = float((exact.argmax(-1) == data.test_labels).double().mean())
    assert models[mode].accuracy(data.test_images, data.test_labels) >= float_accuracy - 0.01
    assert min(row.sqnr_db for row in models[mode].quality) > 20


@pytest.mark.parametrize("mode", MODES)
def test_the_fast_run_is_the_reference(workload, models, mode: str) -> None:
    """Every operator's codes, among them logits of 32 bits, which float32 would not hold."""
    seen: dict[bool, dict[str, Tensor]] = {}
    for reference in (False, True):
        seen[reference] = {}

        def look(operator: IntegerOperator, codes: Tensor, found=seen[reference]) -> None:
            found[operator.name] = codes

        models[mode].run(workload.dataset.test_images[:3], look, reference=reference)
    for name, codes in seen[True].items():
        assert torch.equal(seen[False][name], codes), name


def test_a_block_is_the_published_data_flow(models) -> None:
    """Kinds and widths of the tensors of a block, in order (I-ViT as coded)."""
    model = models["faithful"]
    block = [item for item in model.operators if item.name.startswith("blocks.1.")]
    names = {item.name for item in block}
    added = [item for item in model.operators if item.kind == "Add31" and names & set(item.inputs)]
    add = added[:2]  # the next one reads the block's result
    found = [(item.kind, item.bits) for item in model.operators if item in block or item in add]
    assert found == [
        ("ILayerNorm", 8), ("Linear31", 8), ("Linear31", 8), ("Linear31", 8),
        ("ShiftAttention", 8), ("Linear31", 16), ("Add31", 16), ("ILayerNorm", 8),
        ("Linear31", 8), ("ShiftGelu", 8), ("Linear31", 16), ("Add31", 16),
    ]  # fmt: skip
    attention = next(item for item in block if item.kind == "ShiftAttention")
    assert len({model.operator(name).scale for name in attention.inputs}) == 1
    branch, stream = (model.operator(name) for name in add[0].inputs)
    assert len({branch.scale, stream.scale, add[0].scale}) == 3
    assert model.operators[-1].bits == 32


def test_modes_are_what_they_say(models) -> None:
    def of(mode: str, kind: str, attribute: str) -> set[float]:
        items = [item for item in models[mode].operators if item.kind == kind]
        return {item.attributes[attribute] for item in items}

    for mode in MODES:
        assert of(mode, "ShiftGelu", "faithful") == {int(mode == "faithful")}
        assert of(mode, "ILayerNorm", "newton") == {int(mode == "faithful")}
        assert of(mode, "ShiftAttention", "octaves") == {15}


def uniform(name: str, **fields: object) -> tuple[Graph, Tensor]:
    """A model with random weights, whose scores are nearly alike, and images for it."""
    config = VisionTransformerConfig(
        image_size=56, patch_size=4, channels=1, classes=10, dim=64, depth=2, heads=2, **fields
    )
    torch.manual_seed(0)
    module = VisionTransformer(config).eval()
    images = torch.rand(8, 1, 56, 56, generator=torch.Generator().manual_seed(1))
    return trace(module, (images[:1],), name=name), images


def test_fitted_octaves_keep_attention_over_scores_that_are_alike() -> None:
    """197 scores within a small range: 15 octaves leave their sum's reciprocal two or three bits.
    A trained model's scores reach 15, and nothing changes.
    """
    graph, images = uniform("uniform")
    found = {}
    for octaves in ("published", "fitted"):
        options = QuantizationOptions(scheme="ivit", ivit_octaves=octaves)
        model = quantize(graph, images, options=options)
        quality = {row.name: row.sqnr_db for row in model.quality}
        found[octaves] = quality["blocks.0.attn.apply"]
        kinds = {item.kind for item in model.operators}
        assert "ShiftAttention" in kinds
        reference = model.run(images[:2], reference=True)
        assert torch.equal(model.run(images[:2]), reference)
    assert found["published"] < 22
    assert found["fitted"] > 30


def test_fitted_octaves_leave_a_trained_model_as_it_is(workload, graph, models) -> None:
    options = QuantizationOptions(scheme="ivit", ivit_octaves="fitted")
    fitted = quantize(graph, workload.dataset.calibration_images, options=options)
    assert fitted.operators == models["safe"].operators


def test_a_tensor_of_zeros_has_a_scale() -> None:
    """Calibration that sees nothing: no scale is 0, and the codes are zeros, not an error."""
    graph, images = uniform("zeros")
    with torch.no_grad():
        for tensor in graph.tensors.values():
            tensor.zero_()
    model = quantize(graph, 0 * images, options=QuantizationOptions(scheme="ivit"))
    assert min(operator.scale for operator in model.operators) > 0
    assert not bool(model.run(images).any())


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_calibration_that_is_not_finite(wrong: float) -> None:
    graph, images = uniform("wrong")
    images[3, 0, 2, 2] = wrong
    with pytest.raises(VitruviusError, match="calibration images: expected finite values"):
        quantize(graph, images, options=QuantizationOptions(scheme="ivit"))


def test_scales_too_far_apart_are_told() -> None:
    """Catches a bare ValueError of a ratio that no 31-bit factor has."""
    far, near = torch.tensor([2.0**31]), torch.tensor([2.0**29])
    graph, images = uniform("far")
    lowering = IvitLowering(graph, observe(graph, images))
    assert lowering.factors(near)[0].tolist() == [1 << 30]
    with pytest.raises(NoIntegerFormError, match=r"is 2.15e\+09 times its own, at most 2\*\*30"):
        lowering.factors(far)


def test_it_is_saved_with_all_that_it_needs(models, workload, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    models["safe"].save(path)
    images = workload.dataset.test_images[:8]
    assert torch.equal(IntegerModel.load(path).run(images), models["safe"].run(images))


def test_a_large_weight_breaks_the_accumulator_s_bound(models) -> None:
    model = models["safe"]
    operator = next(item for item in model.operators if item.kind == "Linear31")
    tensors = dict(model.tensors)
    key = operator.tensors["bias"]
    tensors[key] = torch.full_like(tensors[key], (1 << 31) - 1)
    with pytest.raises(VitruviusError, match=r"an accumulator can reach .*, limit 2147483647"):
        IntegerModel(model.name, model.operators, tensors)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"norm": "rmsnorm"}, "only LayerNorm has a form in scheme ivit"),
        ({"activation": "silu"}, "only GELU has a form in scheme ivit"),
        (
            {"experts": Experts(count=3, top_k=1, hidden_ratio=1)},
            "a mixture of experts has no form in scheme ivit",
        ),
    ],
)
def test_what_has_no_form_says_so(fields: dict[str, object], text: str) -> None:
    config = VisionTransformerConfig(
        image_size=8, patch_size=4, channels=1, classes=3, dim=8, depth=2, heads=2, **fields
    )
    torch.manual_seed(0)
    module = VisionTransformer(config).eval()
    images = torch.randn(4, 1, 8, 8)
    graph = trace(module, (images[:1],), name="other")
    with pytest.raises(VitruviusError, match=text):
        quantize(graph, images, options=QuantizationOptions(scheme="ivit"))
