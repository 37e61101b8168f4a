"""docs/ideas.md says what its generator says now."""

from __future__ import annotations

import re

import pytest

from vitruvius.benchmarks.ideas import BEGIN, END, MACHINE, PAGE, PLOT, content, model
from vitruvius.benchmarks.marked_page import replaced
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.sim.ideas import IDEAS, compare
from vitruvius.sim.ideas_cells import load_cells


def test_the_page_has_the_chart_and_the_counted_cells() -> None:
    """Fails when cells were counted again and the page was not written, or an idea is missing."""
    page = PAGE.read_text(encoding="utf-8")
    assert f"]({PLOT.name})" in page
    assert PLOT.stat().st_size > 1000
    for item in load_cells().cells:
        row = f"| {item.text} | {item.lut:,} | {item.ff:,} | {item.dsp:,} | {item.bram36:g} | "
        assert f"{row}yosys |" in page
    assert page.count("\n") <= 100
    for idea in IDEAS:
        assert page.count(f"| {idea.name}: ") == len(idea.without)
        assert f"| + {idea.name} | " in page


def test_the_words_above_the_tables_are_those_of_the_tables() -> None:
    """The figures that are typed: factors, shares. Catches prose that outlives its measurement."""
    page = PAGE.read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.endswith(("RTL |", "ed |"))]
    times = {row[0].removeprefix("| "): float(row[2]) for row in rows}
    assert min(value for name, value in times.items() if name.endswith("weights")) > 7
    assert min(value for name, value in times.items() if name.endswith("kind of product")) > 7
    (prefetch,) = (value for name, value in times.items() if name.startswith("prefetch"))
    assert 1.28 < prefetch < 1.4, "a third"
    (turns,) = (value for name, value in times.items() if "in turn" in name)
    assert "lose 4 %" in page
    assert round(100 * turns) == 104
    (query,) = (value for name, value in times.items() if "one query" in name)
    assert 1.2 < query < 1.3, "a quarter"
    (bits,) = re.findall(r"GELU table: ([\d.]+) Mbit more", page)
    full = next(float(row[7]) for row in rows if row[0].endswith("+ prefetch"))
    assert float(bits) > full / 2


@pytest.mark.slow
def test_the_page_is_up_to_date() -> None:
    """Fails when a formula changed and the page did not: half a minute, most of it quantizing."""
    page = PAGE.read_text(encoding="utf-8")
    found = compare(model(), load_machine(MACHINE))
    assert replaced(page, BEGIN, END, content(found)) == page
