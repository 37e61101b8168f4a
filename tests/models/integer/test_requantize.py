import math
import random
from fractions import Fraction

import pytest
import torch

from vitruvius.models.integer.requantize import Dyadic, dyadic, dyadic_tensor, requantize


def test_dyadic_is_within_half_a_step_of_the_ratio():
    generator = random.Random(3)
    for _ in range(2000):
        ratio = math.ldexp(generator.uniform(0.5, 1), generator.randint(-40, 15))
        found = dyadic(ratio)
        assert 1 << 15 <= found.multiplier < 1 << 16
        error = abs(Fraction(found.multiplier, 1 << found.shift) / Fraction(ratio) - 1)
        assert error <= Fraction(1, 1 << 16)


def test_ratios_at_the_edges():
    assert dyadic(0.0) == Dyadic(0, 0)
    assert dyadic(1e-30) == Dyadic(0, 0)
    assert dyadic(1.0) == Dyadic(1 << 15, 15)
    assert dyadic(1 - 2.0**-20) == Dyadic(1 << 15, 15)  # rounds up to a power of two
    for ratio in (-1.0, 2.0**15, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"expected 0 <= ratio < 2\*\*15, got"):
            dyadic(ratio)


def test_dyadic_tensor_is_dyadic_of_each():
    ratios = [0.5, 0.001, 3.0]
    multipliers, shifts = dyadic_tensor(torch.tensor(ratios, dtype=torch.float64))
    assert [Dyadic(*pair) for pair in zip(multipliers.tolist(), shifts.tolist(), strict=True)] == [
        dyadic(ratio) for ratio in ratios
    ]


@pytest.mark.parametrize("bits", [8, 16])
def test_equals_exact_rational_arithmetic(bits):
    generator = random.Random(bits)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    for _ in range(3000):
        width = generator.randint(1, 32)
        accumulator = generator.randrange(-(1 << (width - 1)), 1 << (width - 1))
        multiplier = generator.choice([generator.randrange(1 << 16), 1 << generator.randrange(16)])
        shift = generator.randrange(63)
        exact = round(Fraction(accumulator * multiplier, 1 << shift))
        result = int(requantize(torch.tensor(accumulator), multiplier, shift, bits))
        assert result == min(max(exact, low), high), (accumulator, multiplier, shift)
