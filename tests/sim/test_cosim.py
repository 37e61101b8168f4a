"""The generated Verilog against the integer golden and the cycle simulator, image by image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vitruvius.errors import VitruviusError
from vitruvius.hwgen.compiler import compile_model
from vitruvius.sim.cosim import cosimulate
from vitruvius.sim.cycle import simulate


def agree(report, images):
    assert report.mismatches == ()
    assert report.bit_exact_images == report.images == images
    assert report.predicted_cycles == report.rtl_cycles
    for step in report.steps:
        assert step.predicted == step.measured, step
    for name, (predicted, measured) in report.counters.items():
        assert predicted == measured, name
    assert report.cycle_exact


@pytest.mark.parametrize("engine", ["cocotb", "pyverilator"])
def test_twenty_digits_on_small(engine, machine, digits_model, digit_images):
    """Every logit and every residual stream at a block boundary, on both engines."""
    program = compile_model(digits_model, machine("small"))
    report = cosimulate(program, digit_images.test_images[:20], engine=engine, tensors="blocks")
    agree(report, 20)
    blocks = 4
    assert report.tensors_compared == 20 * (1 + 2 * blocks)
    assert report.engine == engine
    assert report.cycles_per_s > 0


@pytest.mark.parametrize("name", ["small", "medium", "awkward"])
def test_every_tensor_that_rests_in_a_buffer(name, machine, digits_model, digit_images):
    """Normalised rows, queries, attention, hidden activations and residuals of two digits."""
    program = compile_model(digits_model, machine(name))
    report = cosimulate(program, digit_images.test_images[20:22], tensors="all")
    agree(report, 2)
    assert report.tensors_compared == 2 * (1 + 4 * 7)


@pytest.mark.parametrize("name", ["small", "awkward"])
def test_sizes_that_divide_nothing(name, machine, odd_model):
    model, images = odd_model
    program = compile_model(model, machine(name))
    agree(cosimulate(program, images, tensors="all"), len(images))


def test_machines_give_the_same_bits(machine, odd_model):
    """The integer result never depends on the machine."""
    model, images = odd_model
    reports = [
        cosimulate(compile_model(model, machine(name)), images, tensors="none")
        for name in ("small", "awkward")
    ]
    assert reports[0].logits == reports[1].logits
    assert reports[0].rtl_cycles != reports[1].rtl_cycles


def test_packed_products_change_neither_bits_nor_cycles(machine, digits_model, digit_images):
    """3 x 5 x 7: a row without a partner, and seven lanes in sums of four and three."""
    images = digit_images.test_images[22:24]
    reports = [
        cosimulate(compile_model(digits_model, machine(name)), images, tensors="blocks")
        for name in ("packed", "awkward")
    ]
    agree(reports[0], len(images))
    assert reports[0].logits == reports[1].logits
    assert reports[0].rtl_cycles == reports[1].rtl_cycles


def test_one_wrong_weight_is_found(machine, odd_model):
    """The comparison can fail: a single weight byte of the last block's MLP is changed."""
    model, images = odd_model
    program = compile_model(model, machine("small"))
    weights = program.weights.clone()
    step = next(step for step in program.steps if step.name == "blocks.0.mlp.fc2")
    weights[step.instruction.b_base, 0] ^= 64
    report = cosimulate(replace(program, weights=weights), images[:1], tensors="all")
    assert report.bit_exact_images == 0
    tensors = [mismatch.tensor for mismatch in report.mismatches]
    assert tensors == ["logits", "blocks.0.add_1"] or tensors == ["blocks.0.add_1"]
    first = report.mismatches[-1]
    assert first.feature == 0
    assert first.expected != first.got
    assert report.rtl_cycles == [simulate(program).total]


def test_waves_are_written(machine, odd_model, tmp_path):
    model, images = odd_model
    waves = tmp_path / "run" / "odd.fst"
    program = compile_model(model, machine("small"))
    agree(cosimulate(program, images[:1], tensors="none", waves=waves), 1)
    assert waves.stat().st_size > 10_000
    with pytest.raises(VitruviusError, match="pyverilator, which writes none"):
        cosimulate(program, images[:1], engine="pyverilator", waves=waves)


def test_a_failing_process_ends_the_others(machine, odd_model, monkeypatch):
    """One of two simulator processes fails at once: its error comes, and nothing waits."""
    from vitruvius.sim import cosim
    from vitruvius.sim.bench import BenchError

    ended = []

    def prepare(engine, design, *, trace):
        def run(folder, stop):
            if folder.name == "job0":
                raise BenchError("the simulator fell over")
            ended.append(stop.wait(timeout=60))

        return run

    monkeypatch.setattr(cosim, "_prepare", prepare)
    model, images = odd_model
    with pytest.raises(BenchError, match="fell over"):
        cosimulate(compile_model(model, machine("small")), images, workers=2)
    assert ended == [True]


def test_bad_requests_are_refused(machine, odd_model):
    model, images = odd_model
    program = compile_model(model, machine("small"))
    with pytest.raises(VitruviusError, match="expected cocotb or pyverilator"):
        cosimulate(program, images, engine="modelsim")
    with pytest.raises(VitruviusError, match="expected at least one image"):
        cosimulate(program, torch.zeros(0, 3, 6, 6))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["large", "wide"])
def test_every_tensor_on_the_other_machines(name, machine, digits_model, digit_images, odd_model):
    """1024 multipliers; and columns wider than the reduction, with a single row."""
    program = compile_model(digits_model, machine(name))
    agree(cosimulate(program, digit_images.test_images[:4], tensors="all"), 4)
    model, images = odd_model
    agree(cosimulate(compile_model(model, machine(name)), images, tensors="all"), len(images))


@pytest.mark.slow
def test_all_test_digits(machine, digits_model, digit_images):
    program = compile_model(digits_model, machine("small"))
    report = cosimulate(program, digit_images.test_images, tensors="none")
    agree(report, 360)
    codes = torch.tensor(report.logits)
    accuracy = float((codes.argmax(1) == digit_images.test_labels).double().mean())
    assert accuracy == digits_model.accuracy(digit_images.test_images, digit_images.test_labels)
