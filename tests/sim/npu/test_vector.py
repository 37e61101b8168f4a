"""The vector unit: cycles counted on paper, and a rule or a reason for every word of the graph."""

from __future__ import annotations

from math import ceil

import pytest

from vitruvius.models.evaluate import KINDS
from vitruvius.models.graph import Operator, TensorSpec
from vitruvius.sim.npu.placement import ADDRESSING, MOVES, PRODUCTS, ROWS
from vitruvius.sim.npu.target import NpuTarget, load_npu
from vitruvius.sim.npu.vector import (
    VectorWork,
    actions,
    vector_cycles,
    vector_mapping,
    vector_work,
)


def changed(**vector: object) -> NpuTarget:
    fields = load_npu("edge16").model_dump(exclude_none=True)
    fields["vector"] |= vector
    return NpuTarget.model_validate(fields)


def operator(kind, shape, **attributes):
    return Operator("x", kind, "", "", ("a",), TensorSpec(shape, "float32"), attributes)


def test_layer_norm_on_paper() -> None:
    """197 rows of 192 on 16 lanes: 12 chunks of 2 + 3 + 1 cycles, two trees of 4, and a row's
    2 multiplications, addition, square root and division of 8 cycles each; one pipeline's depth.
    """
    op = operator("LayerNorm", (1, 197, 192), normalized=192)
    work = vector_work(op, [(1, 197, 192)], load_npu("edge16"))
    assert work is not None
    row = 12 * 6 + 2 * 4 + 2 + 1 + 8 + 8
    depth = (2 * 1 + 3 * 3 + 4) + (2 * 3 + 1 + 16 + 16)
    assert vector_cycles(work, load_npu("edge16")) == 197 * row + depth


def test_softmax_on_paper() -> None:
    """3 heads of 197 rows of 197: 13 chunks of 4 + 2 + 1 cycles, two trees, one division."""
    shape = (1, 3, 197, 197)
    work = vector_work(operator("Softmax", shape, dim=-1), [shape], load_npu("edge16"))
    assert work is not None
    assert (work.rows, work.length) == (591, 197)
    depth = 4 + 4 + 3 + 16
    assert vector_cycles(work, load_npu("edge16")) == 591 * (13 * 7 + 8 + 8) + depth
    counts = actions(work, load_npu("edge16"))
    assert counts["exp"] == counts["multiply"] == 591 * 197
    assert counts["divide"] == 591
    assert counts["alu"] == 591 * (197 * 4 + 2 * 15)  # two trees over 16 lanes
    assert vector_mapping(work, load_npu("edge16")) == pytest.approx(197 / 208)


def test_gelu_is_a_table_or_i_vits_shifts() -> None:
    """ShiftGELU divides for each element, which a table does not."""
    shape = (1, 197, 768)
    table = vector_work(operator("Gelu", shape), [shape], changed())
    shift = vector_work(operator("Gelu", shape), [shape], changed(gelu="shift"))
    assert table is not None
    assert shift is not None
    elements = 197 * 768
    assert vector_cycles(table, changed()) == ceil(elements / 16) + 2
    assert actions(shift, changed(gelu="shift"))["divide"] == elements
    assert vector_cycles(shift, changed(gelu="shift")) > 10 * vector_cycles(table, changed())


def test_short_rows_lie_side_by_side() -> None:
    """Catches lanes left empty behind rows that are shorter than the unit is wide."""
    target = load_npu("edge16")
    short, long = VectorWork(64, 4, {"alu": 1}), VectorWork(64, 16, {"alu": 1})
    assert vector_cycles(short, target) == 16 + 1
    assert vector_cycles(long, target) == 64 + 1
    assert vector_mapping(short, target) == 1.0


def test_more_lanes_are_never_slower() -> None:
    for work in (
        VectorWork(197, 192, {"alu": 2}, {"divide": 1}, 1),
        VectorWork(1, 5000, {"exp": 1}),
    ):
        cycles = [vector_cycles(work, changed(lanes=lanes)) for lanes in (1, 4, 16, 64)]
        assert cycles == sorted(cycles, reverse=True)


def test_every_interval_and_latency_is_used() -> None:
    """Catches a field of the file that no cycle depends on."""
    counts = dict.fromkeys(("alu", "multiply", "divide", "sqrt", "exp", "lookup", "requantize"), 1)
    work = VectorWork(3, 50, counts)
    now = vector_cycles(work, changed())
    for part in ("interval", "latency"):
        for name in counts:
            values = load_npu("edge16").model_dump()["vector"][part]
            slower = changed(**{part: values | {name: values[name] + 7}})
            assert vector_cycles(work, slower) > now, (part, name)


def test_every_kind_has_a_unit_or_is_refused_by_name() -> None:
    """A new word of the vocabulary shows here; nothing is free by being forgotten."""
    attributes = {
        "dim": -1, "normalized": 4, "groups": 2, "kernel": (2, 2), "k": 1, "exponent": 3.0,
        "mode": "bilinear", "antialias": False,
    }  # fmt: skip
    shape = (1, 4, 4, 4)
    without = {
        kind
        for kind in KINDS
        if kind not in ADDRESSING | MOVES | PRODUCTS | ROWS | {"Input", "Constant", "Output"}
        and vector_work(operator(kind, shape, **attributes), [shape] * 3, load_npu("edge16"))
        is None
    }
    assert without == {"Host", "Gather", "Scatter"}
