"""Integer models with scales, factors, widths or tensors that no operator has are refused, whether
they are made in Python or read from a file, with the operator and the tensor named.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vitruvius.errors import VitruviusError
from vitruvius.models.integer_model import IntegerModel, IntegerOperator
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.weights import load_weights, save_weights
from vitruvius.models.zoo.vit import VisionTransformer, VisionTransformerConfig

SCHEMES = ("edge", "ivit")
BLOCK = "blocks.0."


@pytest.fixture(scope="module")
def models() -> dict[str, IntegerModel]:
    config = VisionTransformerConfig(
        image_size=8, patch_size=4, channels=1, classes=3, dim=8, depth=1, heads=2
    )
    torch.manual_seed(0)
    images = torch.rand(4, 1, 8, 8)
    graph = trace(VisionTransformer(config).eval(), (images[:1],), name="small")
    return {
        scheme: quantize(graph, images, options=QuantizationOptions(scheme=scheme))
        for scheme in SCHEMES
    }


def changed(model: IntegerModel, name: str, **fields: object) -> list[IntegerOperator]:
    return [
        replace(operator, **fields) if operator.name == name else operator
        for operator in model.operators
    ]


def attribute(model: IntegerModel, name: str, key: str, value: float) -> list[IntegerOperator]:
    attributes = {**model.operator(name).attributes, key: value}
    return changed(model, name, attributes=attributes)


def refused(model: IntegerModel, operators: list[IntegerOperator]) -> str:
    with pytest.raises(VitruviusError) as error:
        IntegerModel(model.name, tuple(operators), model.tensors)
    return str(error.value)


def test_a_sound_model_passes(models) -> None:
    for model in models.values():
        IntegerModel(model.name, model.operators, model.tensors)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_scales(models, scheme: str, scale: float) -> None:
    name = BLOCK + "mlp.act"
    text = refused(models[scheme], changed(models[scheme], name, scale=scale))
    assert text == f"integer model small: {name}: scale: expected a positive number, got {scale!r}"


@pytest.mark.parametrize(
    ("scheme", "multiplier", "told"),
    [
        ("edge", 1 << 16, "expected 0 to 65535, got 65536"),
        ("edge", -1, "expected 0 to 65535, got -1"),
        ("ivit", 1 << 31, "expected 0 or a magnitude of 2**30 to 2**31 - 1, got 2147483648"),
        ("ivit", 12345, "expected 0 or a magnitude of 2**30 to 2**31 - 1, got 12345"),
        ("edge", math.nan, "expected a finite number, got nan"),
    ],
)
def test_multipliers_of_attributes(models, scheme: str, multiplier: float, told: str) -> None:
    model, name = models[scheme], BLOCK + "mlp.act"
    text = refused(model, attribute(model, name, "output_multiplier", multiplier))
    assert text == f"integer model small: {name}: output_multiplier: {told}"


@pytest.mark.parametrize(
    ("scheme", "shift", "least"), [("edge", 64, 0), ("ivit", 64, 1), ("ivit", 0, 1)]
)
def test_shifts_of_attributes(models, scheme: str, shift: int, least: int) -> None:
    model, name = models[scheme], BLOCK + "mlp.act"
    text = refused(model, attribute(model, name, "output_shift", shift))
    assert text.endswith(f"output_shift: expected {least} to 63, got {shift}")


@pytest.mark.parametrize(
    ("role", "change", "told"),
    [
        ("multiplier", lambda _: torch.full((8,), 77777), {
            "edge": "expected 0 to 65535, got 77777",
            "ivit": "expected 0 or a magnitude of 2**30 to 2**31 - 1, got 77777",
        }),
        ("shift", lambda _: torch.full((8,), 64, dtype=torch.uint8), {
            "edge": "expected 0 to 63, got 64", "ivit": "expected 1 to 63, got 64",
        }),
        ("multiplier", lambda old: old[1:], dict.fromkeys(SCHEMES, "expected shape [8], got [7]")),
        ("weight", lambda old: old[1:],
            dict.fromkeys(SCHEMES, "expected shape [8, n], got [7, 8]")),
        ("bias", lambda old: old.float(), dict.fromkeys(SCHEMES, "expected integers, got float32")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheme", SCHEMES)
def test_tensors_of_a_file(models, tmp_path: Path, scheme: str, role, change, told) -> None:
    """The file, the operator and the tensor are named."""
    model, name = models[scheme], BLOCK + "attn.proj"
    path = tmp_path / "m.safetensors"
    model.save(path)
    tensors, metadata = load_weights(path)
    key = model.operator(name).tensors[role]
    tensors[key] = change(tensors[key])
    save_weights(tensors, path, metadata)
    with pytest.raises(VitruviusError) as error:
        IntegerModel.load(path)
    expected = f"{path}: integer model small: {name}: tensor {key}: {told[scheme]}"
    assert str(error.value) == expected


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("scale", [0, math.nan, "wide"])
def test_scales_of_a_file(models, tmp_path: Path, scheme: str, scale: object) -> None:
    """JSON takes NaN and text; all that is wrong is told at once."""
    path = tmp_path / "m.safetensors"
    models[scheme].save(path)
    tensors, metadata = load_weights(path)
    structure = json.loads(metadata["structure"])
    for operator in structure["operators"][1:3]:
        operator["scale"] = scale
    metadata["structure"] = json.dumps(structure)
    save_weights(tensors, path, metadata)
    with pytest.raises(VitruviusError) as error:
        IntegerModel.load(path)
    names = [operator["name"] for operator in structure["operators"][1:3]]
    expected = "; ".join(
        f"{name}: scale: expected a positive number, got {scale!r}" for name in names
    )
    assert str(error.value) == f"{path}: integer model small: {expected}"


@pytest.mark.parametrize(
    ("scheme", "part", "bits", "told"),
    [
        ("ivit", "mlp.act", 6, "width of ShiftGelu: expected 8 bits, got 6"),
        ("ivit", "mlp.fc1", 4, "width of Linear31: expected 8 or 16 or 32 bits, got 4"),
        ("ivit", "add", 32, "width of Add31: expected 16 bits, got 32"),
        ("edge", "mlp.act", 3, "width of Gelu: expected 4 or 6 or 8 or 16 bits, got 3"),
    ],
)
def test_widths(models, scheme: str, part: str, bits: int, told: str) -> None:
    text = refused(models[scheme], changed(models[scheme], BLOCK + part, bits=bits))
    assert f"{BLOCK}{part}: {told}" in text


def test_steps_and_what_is_missing(models) -> None:
    model, name = models["ivit"], BLOCK + "attn.apply"
    assert "a: expected 1 to" in refused(model, attribute(model, name, "a", 0))
    assert "octaves: expected 1 to" in refused(model, attribute(model, name, "octaves", 0))
    without = {
        key: value for key, value in model.operator(name).attributes.items() if key != "heads"
    }
    text = refused(model, changed(model, name, attributes=without))
    assert text == f"integer model small: {name}: a ShiftAttention without 'heads'"
