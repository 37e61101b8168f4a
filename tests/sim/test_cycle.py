"""The cycle simulator by itself; that it equals the RTL is tested in test_cosim."""

from __future__ import annotations

import pytest

from vitruvius.hwgen.compiler import compile_model
from vitruvius.hwgen.instruction import Destination, Opcode
from vitruvius.hwgen.product_engine import schedule
from vitruvius.sim.cycle import simulate


def played(tokens, tiles, rows):
    """The reordered schedule played step by step: (steps, rows' tiles, loads per step)."""
    period = max(tiles, rows)
    left, row_in, seen = [0] * rows, [None] * rows, {}
    waiting, step, loads, finished = list(range(tokens)), 0, [], {}
    while waiting or any(left):
        turn, loaded = step % period, 0
        if turn < rows and waiting:
            assert left[turn] == 0
            row_in[turn], left[turn], loaded = waiting.pop(0), tiles, 1
        for slot in range(rows):
            if left[slot]:
                seen.setdefault(row_in[slot], []).append(step % tiles)
                left[slot] -= 1
                if left[slot] == 0:
                    finished[row_in[slot]] = step
        loads.append(loaded)
        step += 1
    return step, seen, loads, finished


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("tokens", [1, 2, 5, 16, 17])
@pytest.mark.parametrize("tiles", [1, 2, 3, 5, 16])
def test_the_schedule_shows_every_row_every_tile_once(tokens, tiles, rows):
    plan = schedule(tokens=tokens, tiles=tiles, words=6, rows=rows)
    steps, seen, loads, finished = played(tokens, tiles, rows)
    assert plan.steps == steps
    assert sorted(seen) == list(range(tokens))
    assert all(sorted(visited) == list(range(tiles)) for visited in seen.values())
    assert max(loads) == 1
    assert [plan.finish_step(row, rows, tiles) for row in range(tokens)] == [
        finished[row] for row in range(tokens)
    ]


def test_edge_moe_key_steps():
    """Edge-MoE (arXiv 2305.18691), N = 129, P = 4: 4257 key steps of 24 words, 102,168 cycles."""
    plan = schedule(tokens=129, tiles=129, words=24, rows=4)
    assert plan.steps == 4257
    assert plan.issue_cycles == 102_168


def test_counters_add_up(machine, digits_model):
    for name in ("small", "medium", "large", "awkward"):
        program = compile_model(digits_model, machine(name))
        report = simulate(program)
        assert report.total == sum(step.cycles for step in report.steps)
        assert len(report.steps) == len(program.steps)
        assert report.macs == program.macs
        assert 0 < report.utilisation < 1
        ideal = report.macs / program.machine.multipliers
        assert report.product_cycles >= ideal


def test_every_product_of_the_model_is_counted(machine, digits_model, digits_graph):
    """The accelerator multiplies what the float graph multiplies, no more and no less."""
    program = compile_model(digits_model, machine("awkward"))
    assert program.macs == sum(operator.macs for operator in digits_graph.operators())
    kinds = {step.instruction.destination for step in program.steps if step.macs}
    assert kinds == set(Destination)
    assert program.steps[-1].instruction.opcode is Opcode.END
