"""docs/quantization.md holds what its generator measures, between two marks."""

from __future__ import annotations

from pathlib import Path

from vitruvius.benchmarks.quantization import (
    BEGIN,
    DEIT,
    FOR_DEIT,
    SETTINGS,
    TRAINED,
)
from vitruvius.models.datasets import photographs

PAGE = Path(__file__).parent.parent / "docs" / "quantization.md"


def test_the_page_has_a_row_for_every_model_and_setting() -> None:
    rows = [
        tuple(cell.strip() for cell in line.split("|")[1:3])
        for line in PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].splitlines()
        if line.startswith("| `")
    ]
    assert rows == [
        *((f"`{name}`", setting) for name in TRAINED for setting in SETTINGS),
        *((f"`{name}`", setting) for name in DEIT for setting in FOR_DEIT),
    ]


def test_photographs_are_the_same_every_time() -> None:
    first, again = photographs(3, (32, 32)), photographs(3, (32, 32))
    assert first.shape == (3, 3, 32, 32)
    assert first.equal(again)
    assert float(first.abs().max()) <= 1
