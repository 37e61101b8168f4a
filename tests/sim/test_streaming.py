"""The cycle simulator of the streaming accelerator, against figures measured on its Verilog."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction

import pytest

from vitruvius.benchmarks.random_pairs import pair
from vitruvius.hwgen.axi.memory_model import MemoryModel
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.reports.timeline import timeline_json
from vitruvius.sim.lost_cycles import by_operator, lost_cycles
from vitruvius.sim.streaming import simulate

MEMORY = MemoryModel(latency=100, gap=0, outstanding=16)


@pytest.fixture(scope="module")
def digits_program(digits_model):
    return compile_model(digits_model, load_machine("small"))


def test_cycles_measured_on_the_verilog(digits_program) -> None:
    """The registers of `small` with three digits, read in co-simulation."""
    report = simulate(digits_program, images=3, memory=MEMORY)
    measured = {
        "CYCLES": 200_115,
        "PRODUCT_CYCLES": 194_304,
        "PADDING_CYCLES": 720,
        "SWITCH_CYCLES": 176,
        "WAIT_FETCHED": 925,
        "WAIT_NORMALISED": 0,
        "TOKEN_WORDS": 36_816,
        "WEIGHT_WORDS": 184_704,
        "SOFTMAX_CHUNKS": 4_080,
        "NORM_CHUNKS": 6_576,
        "READ_BEATS": 77_714,
        "FETCH_WAITS": 147_000,
        "WRITTEN_BEATS": 9,
    }
    assert {name: report.counters[name] for name in measured} == measured


@pytest.mark.parametrize("number", [0, 3, 9, 14])
def test_parts_sum_to_the_total(number: int) -> None:
    made = pair(number)
    report = simulate(made.program, images=3, memory=made.memory)
    lost = lost_cycles(report)
    assert sum(lost.parts.values()) == report.cycles
    assert min(lost.parts.values()) >= 0
    useful = Fraction(3 * made.program.macs, made.program.machine.multipliers)
    assert lost.parts["useful"] == useful


def test_operators_take_what_is_between_boot_and_tail(digits_program) -> None:
    report = simulate(digits_program, memory=MEMORY)
    lost = lost_cycles(report)
    spent = sum(row.cycles for row in by_operator(report))
    assert spent == report.cycles - lost.parts["boot"] - lost.parts["tail"]


def test_a_slower_memory_costs_cycles_only_where_it_is_waited_for(digits_program) -> None:
    fast = simulate(digits_program, images=2, memory=MEMORY)
    slow = simulate(digits_program, images=2, memory=MemoryModel(latency=400, gap=3))
    assert slow.counters["PRODUCT_CYCLES"] == fast.counters["PRODUCT_CYCLES"]
    assert slow.counters["WAIT_FETCHED"] > fast.counters["WAIT_FETCHED"]
    assert slow.cycles > fast.cycles


def test_the_timeline_is_a_chrome_trace(digits_program) -> None:
    report = simulate(digits_program, images=2, memory=MEMORY)
    events = json.loads(timeline_json(report))["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert all(event["dur"] >= 0 and 0 <= event["ts"] <= report.cycles for event in spans)
    products = [event for event in spans if event["tid"] == 0]
    assert len(products) == 2 * len(digits_program.steps)
    assert all(a["ts"] + a["dur"] <= b["ts"] for a, b in itertools.pairwise(products))
