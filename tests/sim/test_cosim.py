"""The accelerator in Verilog: digits, faults of the bus, resets, memory on the chip."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vitruvius.benchmarks import bandwidth
from vitruvius.errors import VitruviusError
from vitruvius.hwgen.axi.memory_model import MemoryModel
from vitruvius.hwgen.axi.register_map import ErrorCode, register, register_map
from vitruvius.hwgen.core.accelerator import COUNTERS
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.core import Target
from vitruvius.hwgen.core.image import ParameterImage
from vitruvius.hwgen.core.instruction import Source
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.sim.cosim import UNTIMED, cosimulate, prepare
from vitruvius.sim.cycle import simulate
from vitruvius.sim.native.script import Script

MEMORY = MemoryModel(latency=100, gap=0, outstanding=16)
DONE = 1 << 1
LIMIT = 1_000_000


@pytest.fixture(scope="module")
def program(digits_model):
    return compile_model(digits_model, load_machine("small"))


@pytest.fixture(scope="module")
def compiled(program):
    return prepare(program.machine)


@pytest.fixture(scope="module")
def layout(program):
    return ParameterImage(program)


@pytest.fixture(scope="module")
def contents(layout, digit_images):
    return [
        (layout.parameters, layout.to_bytes()),
        (layout.images, layout.image_bytes(digit_images.test_images[0])),
    ]


@pytest.fixture(scope="module")
def expected(program, digit_images):
    return program.model.run(digit_images.test_images[:1])[0].flatten().tolist()


def prepared(layout) -> Script:
    script = Script()
    for name, value in (
        ("PARAMETERS", layout.parameters),
        ("IMAGES", layout.images),
        ("RESULTS", layout.results),
        ("COUNT", 1),
        ("IMAGE_PITCH", layout.image_pitch),
        ("RESULT_PITCH", layout.result_pitch),
    ):
        script.write(register(name), value)
    return script


def started(script: Script, name: str = "status") -> Script:
    return script.write(register("CONTROL"), 1).wait_done(LIMIT, name=name)


def error_of(status: int) -> int:
    return status >> 4 & 0xF


def test_digits_are_exact_to_the_bit_and_to_the_cycle(program, compiled, digit_images) -> None:
    images = digit_images.test_images[:6]
    report = cosimulate(program, images, memory=MEMORY, tensors="all", prepared=compiled)
    assert report.bit_exact_images == 6
    assert report.tensors_compared > 6 * 25
    assert not report.mismatches
    assert report.counters
    assert report.rtl_cycles == report.predicted_cycles
    assert sum(report.rtl_cycles) == report.cycles
    wrong = {name: pair for name, pair in report.counters.items() if pair[0] != pair[1]}
    assert not wrong


def test_random_waits_change_no_result(program, compiled, digit_images) -> None:
    images = digit_images.test_images[10:13]
    report = cosimulate(program, images, memory=MEMORY, jitter=5, prepared=compiled)
    assert report.bit_exact_images == 3
    assert not report.timed
    assert report.counters.keys() == set(UNTIMED)
    assert report.cycle_exact


def test_a_run_that_finds_everything_loaded(program, compiled, layout, contents) -> None:
    """The second start boots no more, and takes the cycles that estimates are made of."""
    cycles = next(entry.address for entry in register_map(COUNTERS) if entry.name == "CYCLES")
    script = started(started(prepared(layout), "first"), "second").read(cycles, "cycles")
    outcome = compiled.run(script, memory=contents, model=MEMORY)
    report = simulate(program, memory=MEMORY, booted=True)
    assert outcome.values["cycles"] == report.cycles < simulate(program, memory=MEMORY).cycles


def test_one_wrong_weight_is_found(program, compiled, digit_images) -> None:
    """The comparison can fail: a single weight byte of the last block's MLP is changed."""
    weights = program.weights.clone()
    step = next(step for step in program.steps if step.name == "blocks.3.mlp.fc2")
    transfers = [fetch for fetch in program.fetches if fetch.target is Target.WEIGHT]
    linear = [item for item in program.steps if item.instruction.b_source is Source.WEIGHT]
    source = transfers[linear.index(step)].source
    weights[source, 0] ^= 64
    report = cosimulate(
        replace(program, weights=weights),
        digit_images.test_images[:1],
        tensors="all",
        prepared=compiled,
    )
    assert report.bit_exact_images == 0
    tensors = {mismatch.tensor for mismatch in report.mismatches}
    assert "blocks.3.add_1" in tensors
    assert not any(name.startswith(("blocks.0", "blocks.1", "blocks.2")) for name in tensors)
    first = next(item for item in report.mismatches if item.tensor == "blocks.3.add_1")
    assert first.feature == 0
    assert first.expected != first.got
    assert report.cycle_exact


def test_bad_requests_are_refused(program, digit_images) -> None:
    images = digit_images.test_images[:1]
    with pytest.raises(VitruviusError, match="expected native or cocotb"):
        cosimulate(program, images, engine="modelsim")
    with pytest.raises(VitruviusError, match="expected at least one image"):
        cosimulate(program, images[:0])
    with pytest.raises(VitruviusError, match="waves: expected engine native, got cocotb"):
        prepare(program.machine, "cocotb", trace=True)
    on_chip = program.machine.model_copy(update={"memory": 512})
    with pytest.raises(VitruviusError, match="memory on the chip: expected engine native"):
        prepare(on_chip, "cocotb")


@pytest.mark.slow
def test_a_memory_and_a_host_that_nobody_here_wrote(program, digit_images) -> None:
    """cocotbext-axi drives the whole accelerator: every bit, and every count of words."""
    images = digit_images.test_images[:2]
    report = cosimulate(program, images, engine="cocotb", tensors="none")
    assert report.bit_exact_images == 2
    assert report.cycle_exact
    assert report.counters.keys() == set(UNTIMED)
    assert not report.timed


@pytest.mark.slow
def test_waves_are_written(program, digit_images, tmp_path) -> None:
    waves = tmp_path / "run" / "digit.fst"
    report = cosimulate(program, digit_images.test_images[:1], tensors="none", waves=waves)
    assert report.cycle_exact
    assert waves.stat().st_size > 10_000


@pytest.mark.slow
def test_all_digits(program, compiled, digit_images) -> None:
    report = cosimulate(
        program, digit_images.test_images, memory=MEMORY, tensors="none", prepared=compiled
    )
    assert report.bit_exact_images == report.images == 360
    assert report.cycle_exact


def test_a_read_error_stops_the_run_and_a_soft_reset_recovers(
    compiled, layout, contents, expected
) -> None:
    address = layout.place(layout.program.fetches[5], 0)[0]
    script = started(prepared(layout).fail_reads(address), "failed")
    script.read(register("ERROR_ADDRESS"), "address")
    script.no_faults().write(register("CONTROL"), 4)
    started(script, "again").dump(layout.results, layout.result_pitch, "results")
    outcome = compiled.run(script, memory=contents)
    assert error_of(outcome.values["failed"]) == ErrorCode.READ
    assert not outcome.values["failed"] & 1
    assert outcome.values["address"] <= address < outcome.values["address"] + 4096
    assert outcome.values["again"] & DONE
    assert layout.results_of(outcome.data["results"]) == expected


def test_a_write_error_stops_the_run(compiled, layout, contents) -> None:
    script = started(prepared(layout).fail_writes(layout.results))
    script.read(register("ERROR_ADDRESS"), "address")
    outcome = compiled.run(script, memory=contents)
    assert error_of(outcome.values["status"]) == ErrorCode.WRITE
    assert outcome.values["address"] == layout.results & 0xFFFF_FFFF


def test_a_memory_that_never_answers_is_told(compiled, layout, contents) -> None:
    script = prepared(layout).write(register("WATCHDOG"), 5000).silence(layout.images)
    started(script).read(register("ERROR_ADDRESS"), "address")
    outcome = compiled.run(script, memory=contents)
    assert error_of(outcome.values["status"]) == ErrorCode.WATCHDOG
    assert outcome.values["address"] == layout.images


@pytest.mark.parametrize(("rows", "order"), [(24, "reordered"), (3, "naive")])
def test_words_a_cycle(rows, order) -> None:
    """The most words that a cycle reads. With 24 slots a product of few words a row, behind one of
    many, once pushed the last rows of that one out of the drain before they had left.
    """
    model, image = bandwidth.small_model()
    reading = bandwidth.read(model, image, rows, order)
    assert reading.peak == {"QUERY": 1 if order == "reordered" else rows, "KEY": 1, "VALUE": 1}


@pytest.mark.parametrize("place", [0, 4])
def test_a_foreign_parameter_image_is_refused(compiled, layout, contents, place: int) -> None:
    """Another magic word; a program built for another machine."""
    parameters = bytearray(contents[0][1])
    parameters[place] ^= 1
    script = started(prepared(layout))
    memory = [(layout.parameters, bytes(parameters)), contents[1]]
    outcome = compiled.run(script, memory=memory)
    assert error_of(outcome.values["status"]) == ErrorCode.FOREIGN


def test_a_start_while_busy_is_ignored_and_told(compiled, layout, contents, expected) -> None:
    script = prepared(layout).write(register("CONTROL"), 1).sleep(9000)
    script.write(register("CONTROL"), 1).read(register("STATUS"), "busy").wait_done(LIMIT)
    script.dump(layout.results, layout.result_pitch, "results")
    outcome = compiled.run(script, memory=contents)
    assert error_of(outcome.values["busy"]) == ErrorCode.BUSY
    assert outcome.values["busy"] & 1
    assert outcome.values["status"] & DONE
    assert layout.results_of(outcome.data["results"]) == expected


@pytest.mark.parametrize("cycle", [50, 3000, 20_000, 60_000])
def test_a_reset_in_the_middle_then_a_correct_run(
    compiled, layout, contents, expected, cycle: int
) -> None:
    script = prepared(layout).write(register("CONTROL"), 1).sleep(cycle)
    script.write(register("CONTROL"), 4)
    started(script).dump(layout.results, layout.result_pitch, "results")
    outcome = compiled.run(script, memory=contents, model=MEMORY)
    assert outcome.values["status"] & DONE
    assert layout.results_of(outcome.data["results"]) == expected


@pytest.mark.slow
def test_memory_on_the_chip(digits_model, digit_images) -> None:
    machine = load_machine("small").model_copy(update={"memory": 512})
    report = cosimulate(compile_model(digits_model, machine), digit_images.test_images[:3])
    assert report.bit_exact_images == 3
    assert report.cycle_exact
