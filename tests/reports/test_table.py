"""The terminal's tables hold what was found, at any width, and no text is taken for markup."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from vitruvius.reports.demo import DemoReport
from vitruvius.reports.table import (
    cosim_table,
    demo_table,
    estimate_table,
    findings_table,
    mismatch_table,
)
from vitruvius.sim.cosim import CosimReport, Mismatch
from vitruvius.sim.estimate import Estimate


def shown(table: RenderableType, width: int = 200) -> str:
    stream = StringIO()
    Console(file=stream, width=width).print(table)
    return stream.getvalue()


def row(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line.split()


def test_cosim_table(cosim: CosimReport) -> None:
    text = shown(cosim_table(cosim))
    assert text.startswith("tiny <model> on small: 3 of 3 images bit-exact, predicted cycles equal")
    assert row(text, "PRODUCT_CYCLES") == ["PRODUCT_CYCLES", "900", "900"]
    assert "predicted 1,300, then 1,100, RTL 1,300, then 1,100" in text
    assert "memory: 100 cycles to an answer, 0 between beats, 16 bursts pending" in text
    assert "27 tensors compared" in text
    assert "123 kcycles/s" in text


def test_mismatch_table_shows_the_first_and_counts_the_rest() -> None:
    wrong = [Mismatch(i, f"blocks.{i}[odd]", 3, 5, 17, -18, 2000) for i in range(12)]
    text = shown(mismatch_table(wrong))
    assert text.startswith("12 tensors differ, the first 10:")
    assert row(text, "    9") == ["9", "blocks.9[odd]", "3", "5", "17", "-18", "2,000"]
    assert "blocks.10" not in text


def test_estimate_table(estimate: Estimate) -> None:
    text = shown(estimate_table(estimate))
    assert text.startswith("tiny <model> on fpga:zcu102, machine small at 200 MHz")
    assert row(text, "blocks.0.fc")[2:9] == ["1,000", "5.00", "µs", "4.00", "µJ", "60", "%"]
    assert row(text, "one image")[2:7] == ["1,234", "6.17", "µs", "4.56", "µJ"]
    assert "warning: the port is narrow" in text
    assert "on the host: host_part: no rule for it" in text
    assert "a product costs 1 pJ (published)" in text


@pytest.mark.parametrize("width", [60, 120])
def test_demo_table(report: DemoReport, width: int) -> None:
    text = shown(demo_table(report), width)
    assert "99.17 % of 360 test images" in text
    assert row(text, "integer accuracy")[2] == "98.89"
    assert text.splitlines()[-1].strip() == "3 of 3 images bit-exact, predicted cycles equal"
    assert all(len(line) <= width for line in text.splitlines())


def test_a_disagreement_is_the_last_word(spoilt: DemoReport) -> None:
    assert shown(demo_table(spoilt)).rstrip().endswith("predicted cycles differ")


def test_texts_are_not_markup(estimate: Estimate) -> None:
    odd = replace(estimate.operators[0], name="[red]fc[/red]", bottleneck="[/]")
    text = shown(estimate_table(replace(estimate, operators=(odd,))))
    assert "[red]fc[/red]" in text
    assert "[/]" in text
    found = shown(findings_table([("g++", "", "", "compiles", "apt-get install [g++]")]))
    assert "missing" in found
    assert "apt-get install [g++]" in found
