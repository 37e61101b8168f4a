"""Random models on random machines, in Verilog: every bit and every counter."""

from __future__ import annotations

import pytest

from vitruvius.benchmarks.random_pairs import faults

FEW = (4, 20, 55)
MANY = 98


@pytest.mark.parametrize("number", FEW)
def test_a_few_pairs(number: int) -> None:
    assert not faults(number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [number for number in range(MANY) if number not in FEW])
def test_many_pairs(number: int) -> None:
    assert not faults(number)
