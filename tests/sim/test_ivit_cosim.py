"""The accelerator of scheme ivit in Verilog: digits, factors that are wrong, from a file."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from vitruvius.cli.main import app
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.models.datasets import photographs
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.zoo import ZOO
from vitruvius.models.zoo.vit import VisionTransformer
from vitruvius.sim.cosim import cosimulate, prepare


@pytest.fixture(scope="module")
def model(digits_graph, digit_images):
    images = digit_images.calibration_images
    return quantize(digits_graph, images, options=QuantizationOptions(scheme="ivit"))


@pytest.fixture(scope="module")
def program(model):
    return compile_model(model, load_machine("small"))


@pytest.fixture(scope="module")
def compiled(program):
    return prepare(program.machine)


def test_digits_are_exact_to_the_bit_and_to_the_cycle(program, compiled, digit_images) -> None:
    """Every tensor that rests in a buffer, every logit of 32 bits, every counter."""
    images = digit_images.test_images[:6]
    report = cosimulate(program, images, tensors="all", prepared=compiled)
    assert report.bit_exact_images == 6
    assert report.tensors_compared == 6 * 29
    assert not report.mismatches
    wrong = {name: pair for name, pair in report.counters.items() if pair[0] != pair[1]}
    assert report.counters
    assert not wrong
    assert report.rtl_cycles == report.predicted_cycles


def test_random_waits_change_no_result(program, compiled, digit_images) -> None:
    images = digit_images.test_images[10:13]
    report = cosimulate(program, images, jitter=5, prepared=compiled)
    assert report.bit_exact_images == 3


@pytest.mark.parametrize("field", ["multiplier", "stream_shift", "table", "exp_step"])
def test_one_wrong_factor_is_found(program, compiled, digit_images, field) -> None:
    """Catches a comparison that does not reach what scheme ivit alone computes."""
    steps = list(program.steps)
    at = next(index for index, step in enumerate(steps) if getattr(step.instruction, field))
    item = steps[at].instruction
    steps[at] = replace(
        steps[at], instruction=replace(item, **{field: getattr(item, field) * 3 // 4})
    )
    broken = replace(program, steps=tuple(steps))
    report = cosimulate(broken, digit_images.test_images[:2], tensors="all", prepared=compiled)
    assert report.bit_exact_images == 0


@pytest.mark.slow
def test_all_digits(program, compiled, digit_images) -> None:
    images = digit_images.test_images
    report = cosimulate(program, images, tensors="none", prepared=compiled)
    assert report.bit_exact_images == len(images) == 360
    assert report.cycle_exact


@pytest.mark.slow
def test_a_whole_image_of_deit_tiny() -> None:
    """Octaves that differ from layer to layer, 197 tokens, 12 tables."""
    torch.manual_seed(0)
    entry = ZOO["deit_tiny_patch16_224"]
    module = VisionTransformer(entry.config).eval()
    graph = trace(module, entry.example_inputs(), name="deit_tiny")
    options = QuantizationOptions(scheme="ivit", ivit_octaves="fitted")
    quantized = quantize(graph, photographs(4, (224, 224)), options=options)
    octaves = {int(item.attributes.get("octaves", 15)) for item in quantized.operators}
    assert len(octaves) > 2
    made = compile_model(quantized, load_machine("large"))
    report = cosimulate(made, photographs(2, (224, 224), seed=3), tensors="blocks")
    assert report.bit_exact_images == 2
    assert report.tensors_compared == 2 * 25
    assert report.cycle_exact


def test_from_a_file_to_the_verilog(tmp_path, model) -> None:
    """The scheme is the file's: no option names it a second time."""
    file, out = tmp_path / "digits.safetensors", tmp_path / "out"
    model.save(file)
    result = CliRunner().invoke(app, ["generate", str(file), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "tables" in result.output
    result = CliRunner().invoke(app, ["generate", str(file), "--machine", "experts"])
    assert result.exit_code == 2
    assert "expected buffers.experts = 0 for a model of scheme ivit, got 16" in result.output
