"""The streaming accelerator in Verilog: digits, faults of the bus, resets, memory on the chip."""

from __future__ import annotations

import pytest

from vitruvius.hwgen.axi.memory_model import MemoryModel
from vitruvius.hwgen.axi.register_map import ErrorCode, register
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.image import ParameterImage
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.sim.native.engine import NativeRun
from vitruvius.sim.native.script import Script
from vitruvius.sim.stream_cosim import build, cosimulate_stream

MEMORY = MemoryModel(latency=100, gap=0, outstanding=16)
DONE = 1 << 1
LIMIT = 1_000_000


@pytest.fixture(scope="module")
def program(digits_model):
    return compile_model(digits_model, load_machine("small"))


@pytest.fixture(scope="module")
def compiled(program):
    return build(program.machine)


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
    report = cosimulate_stream(program, images, memory=MEMORY, tensors=True, compiled=compiled)
    assert report.bit_exact_images == 6
    assert report.tensors_compared > 25
    assert not report.mismatches
    assert report.counters
    wrong = {name: pair for name, pair in report.counters.items() if pair[0] != pair[1]}
    assert not wrong


def test_random_waits_change_no_result(program, compiled, digit_images) -> None:
    images = digit_images.test_images[10:13]
    report = cosimulate_stream(program, images, memory=MEMORY, jitter=5, compiled=compiled)
    assert report.bit_exact_images == 3


@pytest.mark.slow
def test_all_digits(program, compiled, digit_images) -> None:
    report = cosimulate_stream(program, digit_images.test_images, memory=MEMORY, compiled=compiled)
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
    outcome = NativeRun(compiled).run(script, memory=contents)
    assert error_of(outcome.values["failed"]) == ErrorCode.READ
    assert not outcome.values["failed"] & 1
    assert outcome.values["address"] <= address < outcome.values["address"] + 4096
    assert outcome.values["again"] & DONE
    assert layout.results_of(outcome.data["results"]) == expected


def test_a_write_error_stops_the_run(compiled, layout, contents) -> None:
    script = started(prepared(layout).fail_writes(layout.results))
    script.read(register("ERROR_ADDRESS"), "address")
    outcome = NativeRun(compiled).run(script, memory=contents)
    assert error_of(outcome.values["status"]) == ErrorCode.WRITE
    assert outcome.values["address"] == layout.results & 0xFFFF_FFFF


def test_a_memory_that_never_answers_is_told(compiled, layout, contents) -> None:
    script = prepared(layout).write(register("WATCHDOG"), 5000).silence(layout.images)
    started(script).read(register("ERROR_ADDRESS"), "address")
    outcome = NativeRun(compiled).run(script, memory=contents)
    assert error_of(outcome.values["status"]) == ErrorCode.WATCHDOG
    assert outcome.values["address"] == layout.images


@pytest.mark.parametrize("place", [0, 4])
def test_a_foreign_parameter_image_is_refused(compiled, layout, contents, place: int) -> None:
    """Another magic word; a program built for another machine."""
    parameters = bytearray(contents[0][1])
    parameters[place] ^= 1
    script = started(prepared(layout))
    memory = [(layout.parameters, bytes(parameters)), contents[1]]
    outcome = NativeRun(compiled).run(script, memory=memory)
    assert error_of(outcome.values["status"]) == ErrorCode.FOREIGN


def test_a_start_while_busy_is_ignored_and_told(compiled, layout, contents, expected) -> None:
    script = prepared(layout).write(register("CONTROL"), 1).sleep(9000)
    script.write(register("CONTROL"), 1).read(register("STATUS"), "busy").wait_done(LIMIT)
    script.dump(layout.results, layout.result_pitch, "results")
    outcome = NativeRun(compiled).run(script, memory=contents)
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
    outcome = NativeRun(compiled).run(script, memory=contents, model=MEMORY)
    assert outcome.values["status"] & DONE
    assert layout.results_of(outcome.data["results"]) == expected


@pytest.mark.slow
def test_memory_on_the_chip(digits_model, digit_images) -> None:
    machine = load_machine("small").model_copy(update={"memory": 512})
    report = cosimulate_stream(
        compile_model(digits_model, machine), digit_images.test_images[:3], memory=MEMORY
    )
    assert report.bit_exact_images == 3
    assert report.cycle_exact
