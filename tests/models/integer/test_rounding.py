from fractions import Fraction

import torch

from vitruvius.models.integer.rounding import round_shift, saturate


def test_every_small_value_rounds_to_nearest_even():
    values = torch.arange(-300, 301)
    for shift in range(8):
        expected = [round(Fraction(value, 1 << shift)) for value in values.tolist()]
        assert round_shift(values, shift).tolist() == expected


def test_large_values_and_shifts():
    for value in (-(1 << 61), -(1 << 61) + 1, -(1 << 40) - 1, (1 << 40) + 1, (1 << 61) - 1):
        for shift in (1, 31, 40, 41, 61, 62):
            result = int(round_shift(torch.tensor(value), shift))
            assert result == round(Fraction(value, 1 << shift)), (value, shift)


def test_each_element_has_its_own_shift():
    shifts = torch.tensor([0, 1, 2, 3])
    assert round_shift(torch.tensor(12), shifts).tolist() == [12, 6, 3, 2]


def test_saturation_at_both_ends():
    values = torch.tensor([-129, -128, 127, 128, 255, 256])
    assert saturate(values, 8).tolist() == [-128, -128, 127, 127, 127, 127]
    assert saturate(values, 8, signed=False).tolist() == [0, 0, 127, 128, 255, 255]
