"""Prefixes and rounding, against values written by hand."""

from __future__ import annotations

import pytest

from vitruvius.reports.quantities import percent, quantity


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 s"),
        (1.0, "1.00 s"),
        (12.34, "12.3 s"),
        (123.4, "123 s"),
        (999.4, "999 s"),
        (999.6, "1.00 ks"),
        (1e-3, "1.00 ms"),
        (9.996e-4, "1.00 ms"),
        (3.52e-4, "352 µs"),
        (7.06e-8, "70.6 ns"),
        (1e-12, "1.00 ps"),
        (1e-15, "0.00100 ps"),
        (-2.5e6, "-2.50 Ms"),
        (4e12, "4.00 Ts"),
        (5e15, "5000 Ts"),
        (float("inf"), "inf s"),
    ],
)
def test_quantity(value: float, text: str) -> None:
    assert quantity(value, "s") == text


def test_digits() -> None:
    assert quantity(0.0001234567, "J", digits=5) == "123.46 µJ"
    assert percent(0.98887, digits=2) == "98.89 %"
