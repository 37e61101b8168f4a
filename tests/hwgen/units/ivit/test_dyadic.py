import pytest
import torch

from vitruvius.hwgen.units.ivit.dyadic import Requantizer31, cycles
from vitruvius.models.integer.ivit.dyadic import MAX_SHIFT, dyadic31, requantize31

TOP = (1 << 31) - 1


def run(play, cases, out_bits):
    """Results of (code, multiplier, shift, narrow), and the golden's."""
    unit = Requantizer31(out_bits=out_bits)
    ports = dict(
        zip(("code", "multiplier", "shift", "narrow"), zip(*cases, strict=True), strict=True)
    )
    inputs = {name: list(values) for name, values in ports.items()}
    result = play(unit, inputs, {"result": -out_bits}, extra=unit.LATENCY)["result"]
    assert len(result) == cycles(len(cases)) + 1  # the first input is in cycle 0
    codes, multipliers, shifts = (torch.tensor(inputs[n]) for n in ("code", "multiplier", "shift"))
    wide, narrow = (requantize31(codes, multipliers, shifts, bits) for bits in (out_bits, 8))
    expected = torch.where(torch.tensor(inputs["narrow"]) == 1, narrow, wide).tolist()
    return result[unit.LATENCY :], expected


@pytest.mark.parametrize("out_bits", [16, 32])
def test_equals_the_golden(play, rng, out_bits):
    """Fails for a wrong half of the product, sign, rounding, limit, or a shift a cycle off."""
    codes = [-TOP - 1, -TOP, -3, -2, -1, 0, 1, 2, 3, TOP]
    multipliers = [-TOP, -(1 << 30) - 1, -(1 << 30), 0, 1 << 30, (1 << 30) + 0xFFFF, TOP]
    shifts = [1, 2, 15, 16, 17, 30, 31, 32, 60, 61, 62, 63]
    cases = [
        (code, multiplier, shift, rng.randrange(2))
        for code in codes
        for multiplier in multipliers
        for shift in shifts
    ]
    for _ in range(6000):
        bits = rng.randint(1, 32)
        code = rng.randrange(-(1 << (bits - 1)), 1 << (bits - 1))
        # A power of two meets ties, which a random multiplier does not.
        size = rng.choice([rng.randrange(1 << 30, 1 << 31), 1 << 30])
        shift = rng.choice([rng.randint(1, MAX_SHIFT), min(MAX_SHIFT, 20 + bits)])
        cases.append((code, rng.choice([-1, 1]) * size, shift, rng.randrange(2)))
    found, expected = run(play, cases, out_bits)
    assert found == expected
    assert len(set(expected)) > 200  # not only saturated values and zeros


def test_ratios_and_ties_as_the_scheme_states_them(play):
    """The published vectors, and r = 1/2, where half-even differs from half-up and half-away."""
    half, ratio = dyadic31(0.5), dyadic31(0.0123)
    cases = [(code, half.multiplier, half.shift, 0) for code in (1, 3, 5, -1, -3, -5)]
    cases += [(code, ratio.multiplier, ratio.shift, 1) for code in (1000, 12345, -12345)]
    found, expected = run(play, cases, 16)
    assert found == expected == [0, 2, 2, 0, -2, -2, 12, 127, -128]


@pytest.mark.parametrize("out_bits", [7, 33])
def test_bad_width_is_named(out_bits):
    with pytest.raises(ValueError, match=f"out_bits: expected 8 to 32, got {out_bits}"):
        Requantizer31(out_bits=out_bits)
