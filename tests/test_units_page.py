"""docs/units.md says what its generator measures now, and the measure itself is right."""

from __future__ import annotations

import math

import pytest
import torch

from vitruvius.benchmarks.accuracy_units import (
    ACCURACY,
    COST,
    PAGE,
    SCHEMES,
    SCHEMES_COST,
    accuracy,
    errors,
    exact_gelu,
    probabilities,
    rounded_table,
    schemes,
    tabled_gelu,
    units,
)
from vitruvius.benchmarks.marked_page import replaced
from vitruvius.benchmarks.unit_schemes import compared, edge_norm, line, normal, quantized
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


def test_the_errors_of_both_schemes_on_the_page_are_up_to_date() -> None:
    """Fails when a golden of either scheme, a quantizer's rule or an input changed."""
    page = PAGE.read_text(encoding="utf-8")
    assert replaced(page, *SCHEMES, schemes()) == page


def test_every_unit_of_both_schemes_has_its_cycles_and_cost_on_the_page() -> None:
    """Fails when a unit was added, or its sizes or cycles changed and synthesis did not run again.
    Its first columns are those of `Compared`; four of cells follow.
    """
    page = PAGE.read_text(encoding="utf-8")
    table = page.partition(SCHEMES_COST[0])[2].partition(SCHEMES_COST[1])[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert [row.rsplit("|", 5)[0].strip() for row in rows] == [
        item.columns().removesuffix("|").strip() for item in compared()
    ]
    assert all(cell.strip() for row in rows for cell in row.split("|")[1:-1])


def test_an_error_is_of_values_and_not_of_codes() -> None:
    """Two of four values are off by 3 and 4: the largest is 4, the root mean square 2.5."""
    exact = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    found = exact + torch.tensor([0.0, 3.0, 0.0, -4.0])
    assert (
        line("unit", "row", "codes", found, exact) == "| unit | row | codes | 4.00e+00 | 2.50e+00 |"
    )


def test_the_scale_is_that_of_the_largest_magnitude() -> None:
    codes, scale = quantized(torch.tensor([0.5, -12.7, 0.04], dtype=torch.float64), 8)
    assert (codes.tolist(), scale) == ([5, -127, 0], pytest.approx(0.1, rel=1e-6))


def test_gain_and_offset_give_the_float_layernorm() -> None:
    """Fails for a gain or an offset at another scale: half a code is rounding, a tenth the rest."""
    x = normal(20, 64)
    gamma, beta = 1 + normal(64, seed=1) / 4, normal(64, seed=2) / 4
    codes, scale = quantized(x, 16)
    exact = torch.nn.functional.layer_norm(x, (64,), gamma, beta, 1e-6)
    out = float(exact.abs().max()) / 127
    found = edge_norm(codes, scale, gamma, beta, out) * out
    assert float((found - exact).abs().max()) < 0.6 * out


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
