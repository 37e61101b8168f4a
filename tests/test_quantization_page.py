"""docs/quantization.md holds what its generator measures, between two marks."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitruvius.benchmarks.quantization import (
    BEGIN,
    DEIT,
    END,
    FOR_DEIT,
    SETTINGS,
    TRAINED,
    replaced,
)
from vitruvius.models.datasets import photographs

PAGE = Path(__file__).parent.parent / "docs" / "quantization.md"


def test_only_what_is_between_the_marks_is_replaced() -> None:
    page = f"# Page\n\nbefore\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n"
    new = replaced(page, ["| a |", "| b |"])
    assert new == f"# Page\n\nbefore\n\n{BEGIN}\n\n| a |\n| b |\n\n{END}\n\nafter\n"
    assert replaced(new, ["| a |", "| b |"]) == new


@pytest.mark.parametrize("page", ["# Page\n", f"{BEGIN}\n", f"{END}\n{BEGIN}\n"])
def test_a_page_without_both_marks_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="expected the lines"):
        replaced(page, [])


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
