"""The cycle simulator, against figures measured on its Verilog."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction

import pytest

from vitruvius.benchmarks.random_pairs import pair
from vitruvius.hwgen.axi.memory_model import MemoryModel
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.hwgen.core.schedule import schedule
from vitruvius.reports.timeline import timeline_json
from vitruvius.sim.cycle import simulate
from vitruvius.sim.lost_cycles import by_operator, lost_cycles

MEMORY = MemoryModel(latency=100, gap=0, outstanding=16)


@pytest.fixture(scope="module")
def digits_program(digits_model):
    return compile_model(digits_model, load_machine("small"))


def test_cycles_measured_on_the_verilog(digits_program) -> None:
    """The registers of `small` with three digits, read in co-simulation."""
    report = simulate(digits_program, images=3, memory=MEMORY)
    measured = {
        "CYCLES": 200_306,
        "PRODUCT_CYCLES": 194_304,
        "PADDING_CYCLES": 720,
        "SWITCH_CYCLES": 176,
        "WAIT_FETCHED": 1_023,
        "WAIT_NORMALISED": 0,
        "TOKEN_WORDS": 36_816,
        "QUERY_WORDS": 3_264,
        "WEIGHT_WORDS": 184_704,
        "SOFTMAX_CHUNKS": 4_080,
        "NORM_CHUNKS": 6_576,
        "READ_BEATS": 77_807,
        "FETCH_WAITS": 149_714,
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


def test_an_image_alone_takes_no_less_than_one_in_a_row(digits_program) -> None:
    """Images behind each other overlap; boot is paid once; per-image cycles sum to the run's."""
    three = simulate(digits_program, images=3, memory=MEMORY)
    assert sum(three.image_cycles) == three.cycles
    first, second, third = three.image_cycles
    booted = simulate(digits_program, memory=MEMORY, booted=True)
    assert first > booted.cycles > second == third
    for item, span in zip(booted.products, booted.spans(), strict=True):
        assert span == item.product_cycles + item.padding + sum(item.lost.values())


def played(tokens, tiles, rows, order):
    """A schedule played step by step: (steps, rows' tiles, loads per step, last steps)."""
    period = max(tiles, rows) if order == "reordered" else tiles
    left, row_in, seen = [0] * rows, [None] * rows, {}
    waiting, step, loads, finished = list(range(tokens)), 0, [], {}
    while waiting or any(left):
        turn, loaded = step % period, 0
        if order == "reordered":
            begins = [turn] if turn < rows else []
        else:
            begins = range(rows) if turn == 0 else []
        for slot in begins:
            if waiting:
                assert left[slot] == 0
                row_in[slot], left[slot] = waiting.pop(0), tiles
                loaded += 1
        for slot in range(rows):
            if left[slot]:
                seen.setdefault(row_in[slot], []).append(step % tiles)
                left[slot] -= 1
                if left[slot] == 0:
                    finished[row_in[slot]] = step
        loads.append(loaded)
        step += 1
    return step, seen, loads, finished


@pytest.mark.parametrize("order", ["reordered", "naive"])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("tokens", [1, 2, 5, 16, 17])
@pytest.mark.parametrize("tiles", [1, 2, 3, 5, 16])
def test_the_schedule_shows_every_row_every_tile_once(tokens, tiles, rows, order):
    plan = schedule(tokens=tokens, tiles=tiles, words=6, rows=rows, order=order)
    steps, seen, loads, finished = played(tokens, tiles, rows, order)
    assert plan.steps == steps
    assert sorted(seen) == list(range(tokens))
    assert all(sorted(visited) == list(range(tiles)) for visited in seen.values())
    assert max(loads) == (1 if order == "reordered" else min(rows, tokens))
    skew = 1 if order == "reordered" else 0
    last = {row: row // rows * plan.period + row % rows * skew + tiles - 1 for row in range(tokens)}
    assert finished == last


def test_edge_moe_key_steps():
    """Edge-MoE (arXiv 2305.18691), N = 129, P = 4: 4257 key steps of 24 words, 102,168 cycles."""
    plan = schedule(tokens=129, tiles=129, words=24, rows=4)
    assert plan.steps == 4257
    assert plan.issue_cycles == 102_168
