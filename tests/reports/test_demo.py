"""What a report says of its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.models.graph import Graph, Operator, TensorSpec
from vitruvius.reports.demo import DemoReport, Sample, cycle_range, operator_kinds, verdict
from vitruvius.sim.cosim import CosimReport


def test_agreement_needs_bits_cycles_and_counters(report: DemoReport, cosim: CosimReport) -> None:
    assert report.agrees
    miscounted = replace(cosim, counters={"PRODUCT_CYCLES": (900, 901)})
    for wrong in (
        replace(cosim, bit_exact_images=2),
        replace(cosim, rtl_cycles=[1300, 1100, 1099]),
        miscounted,
    ):
        assert not replace(report, cosim=wrong).agrees
    assert verdict(miscounted) == "3 of 3 images bit-exact, predicted cycles differ"


def test_where_memory_has_its_own_timing_words_are_compared(cosim: CosimReport) -> None:
    untimed = replace(
        cosim, timed=False, predicted_cycles=[], rtl_cycles=[], counters={"KEY_WORDS": (4, 4)}
    )
    assert verdict(untimed) == "3 of 3 images bit-exact, predicted words and beats equal"


def test_a_sample_has_as_many_logits_on_every_way(make_sample: Callable[..., Sample]) -> None:
    assert make_sample().bit_exact
    assert not make_sample(rtl=(5, -300, 8)).bit_exact
    with pytest.raises(VitruviusError, match="3 float, 3 integer, 2 RTL"):
        make_sample(rtl=(5, -300))


def test_cycle_range() -> None:
    assert cycle_range([1000, 1000]) == "1,000"
    assert cycle_range([]) == "-"
    assert cycle_range([2001, 1000, 1500]) == "1,000 to 2,001"


def test_operators_are_counted_by_kind() -> None:
    def operator(name: str, kind: str, reads: tuple[str, ...], macs: int, params: int) -> Operator:
        spec = TensorSpec((1, 4), "float32")
        return Operator(name, kind, "", "", reads, spec, macs=macs, params=params)

    graph = Graph(
        "g",
        [
            operator("x", "Input", (), 0, 0),
            operator("a", "Linear", ("x",), 10, 5),
            operator("b", "Linear", ("a",), 30, 7),
            operator("c", "Conv2d", ("b",), 50, 1),
            operator("out", "Output", ("c",), 0, 0),
        ],
        {},
    )
    rows = [(row.kind, row.count, row.macs, row.params) for row in operator_kinds(graph)]
    assert rows == [
        ("Conv2d", 1, 50, 1),
        ("Linear", 2, 40, 12),
        ("Input", 1, 0, 0),
        ("Output", 1, 0, 0),
    ]
