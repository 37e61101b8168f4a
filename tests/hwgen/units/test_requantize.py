import pytest
import torch

from vitruvius.hwgen.units.requantize import Requantizer
from vitruvius.models.integer.requantize import requantize


@pytest.mark.parametrize(("accumulator_bits", "out_bits"), [(32, 16), (32, 8), (16, 8), (20, 36)])
def test_equals_the_golden(play, rng, accumulator_bits, out_bits):
    top = 1 << (accumulator_bits - 1)
    corners = [-top, -top + 1, -3, -2, -1, 0, 1, 2, 3, top - 1]
    cases = [
        (accumulator, multiplier, shift)
        for accumulator in corners
        for multiplier in (0, 1, 1 << 15, (1 << 16) - 1)
        for shift in (0, 1, 2, 15, 16, 31, 32, 46, 47, 48, 49, 62, 63)
    ]
    for _ in range(6000):
        bits = rng.randint(1, accumulator_bits)
        accumulator = rng.randrange(-(1 << (bits - 1)), 1 << (bits - 1))
        # A power of two meets ties, which a random multiplier does not.
        multiplier = rng.choice([rng.randrange(1 << 16), 1 << rng.randrange(16)])
        cases.append((accumulator, multiplier, rng.randrange(64)))
    accumulators, multipliers, shifts = map(list, zip(*cases, strict=True))
    unit = Requantizer(accumulator_bits=accumulator_bits, out_bits=out_bits)
    result = play(
        unit,
        {"accumulator": accumulators, "multiplier": multipliers, "shift": shifts},
        {"result": -out_bits},
        extra=unit.LATENCY,
    )["result"]
    expected = requantize(
        torch.tensor(accumulators), torch.tensor(multipliers), torch.tensor(shifts), out_bits
    ).tolist()
    assert result[unit.LATENCY :] == expected
    assert min(expected) < 0 < max(expected)


def test_bad_widths_are_named():
    with pytest.raises(ValueError, match="accumulator_bits: expected 2 to 48, got 1"):
        Requantizer(accumulator_bits=1, out_bits=8)
    with pytest.raises(ValueError, match="out_bits: expected 2 to 48, got 49"):
        Requantizer(out_bits=49)
