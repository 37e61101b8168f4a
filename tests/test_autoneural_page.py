"""docs/autoneural.md has what its generator measures, and names what exists."""

from __future__ import annotations

import re

import pytest

from vitruvius.benchmarks.autoneural import MARKS, MODELS, PAGE, WIDTHS, ratios
from vitruvius.models.resolve import zoo_names


def _rows() -> dict[tuple[str, str], float]:
    table = PAGE.read_text(encoding="utf-8").partition(MARKS[0])[2].partition(MARKS[1])[0]
    rows = re.findall(r"\| `(\w+)` \| (\w+) \| ([0-9.]+) dB", table)
    return {(name, widths): float(ratio) for name, widths, ratio in rows}


def test_every_model_has_a_row_for_every_width() -> None:
    assert _rows().keys() == {(name, widths) for name in MODELS for widths in WIDTHS}
    assert set(MODELS) <= set(zoo_names())


def test_the_ratios_are_those_of_now() -> None:
    """Within half a decibel: floats of another processor may round a code the other way."""
    for output in ratios("internvit_tiny").outputs:
        assert _rows()["internvit_tiny", output.widths] == pytest.approx(output.sqnr_db, abs=0.5)
