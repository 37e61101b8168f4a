"""docs/units.md says what its generator measures now, and the measure itself is right."""

from __future__ import annotations

import math

import pytest
import torch

from vitruvius.benchmarks.accuracy_units import (
    ACCURACY,
    COST,
    PAGE,
    accuracy,
    errors,
    exact_gelu,
    probabilities,
    rounded_table,
    tabled_gelu,
    units,
)
from vitruvius.benchmarks.marked_page import replaced
from vitruvius.models.integer.softmax import exponential_table

FINE = torch.arange(-(8 << 14), (8 << 14) + 1, dtype=torch.float64) / 2**14


def test_the_accuracy_on_the_page_is_up_to_date() -> None:
    """Fails when a golden, a table or a measure changed and the page did not."""
    page = PAGE.read_text(encoding="utf-8")
    assert replaced(page, *ACCURACY, accuracy()) == page


def test_every_unit_has_its_cost_on_the_page() -> None:
    """Fails when a unit was added or its sizes changed and synthesis did not run again."""
    page = PAGE.read_text(encoding="utf-8")
    cost = page.partition(COST[0])[2].partition(COST[1])[0]
    rows = [line.split("|")[1].strip() for line in cost.splitlines() if line.startswith("| ")]
    assert rows == ["unit", "---", *(name for name, _ in units())]


def test_the_exact_gelu_is_that_of_the_standard_library() -> None:
    points = [-30.0, -5.5, -1.0, -1 / 1024, 0.0, 0.3, 5.5, 31.9]
    found = exact_gelu(torch.tensor(points, dtype=torch.float64)).tolist()
    assert found == pytest.approx([x / 2 * math.erfc(-x / math.sqrt(2)) for x in points], rel=1e-13)


@pytest.mark.parametrize(
    ("entries", "step", "bits", "nearest", "published"),
    [
        (177, 5, 22, False, 9.74e-5),
        (81, 4, 16, False, 4.0e-4),
        (41, 3, 16, False, 1.5e-3),
        (321, 6, 16, False, 2.9e-5),
        (177, 5, 22, True, 7.7e-3),
    ],
)
def test_tables_of_other_sizes_are_as_exact_as_published(
    entries: int, step: int, bits: int, nearest: bool, published: float
) -> None:
    """Found by others for Edge-MoE's table and its neighbours: our measure must find the same."""
    table = rounded_table(entries, step, bits)
    found, mean = errors(tabled_gelu(FINE, table, step, nearest=nearest), exact_gelu(FINE))
    assert found == pytest.approx(published, rel=0.04)
    if (step, nearest) == (5, False):
        assert mean == pytest.approx(2.0e-5, rel=0.04)


def test_the_probabilities_measured_are_weights_over_their_sum() -> None:
    """Two equal scores and one 2 nats below, by hand: 255, 255 and 35 of 545."""
    assert exponential_table()[64] == 35
    found = probabilities(torch.tensor([[100, 100, 36]]))[0].tolist()
    assert found == pytest.approx([255 / 545, 255 / 545, 35 / 545], rel=2**-15)
    assert sum(exponential_table()[200:]) == 0 < exponential_table()[199]
