import pytest
import torch

from vitruvius.hwgen.units.inverse_sqrt import InverseSqrt, cycles
from vitruvius.models.integer.inverse_sqrt import inverse_sqrt


def expected(values):
    mantissa, half = inverse_sqrt(torch.tensor(values))
    return list(zip(mantissa.tolist(), half.tolist(), strict=True))


def unpacked(payload):
    half = payload >> 16
    return payload & 0xFFFF, half - 64 if half >= 32 else half


@pytest.mark.parametrize("width", [1, 9, 16, 53, 62])
def test_equals_the_golden(play_streams, rng, width):
    values = [v for power in range(width) for v in ((1 << power) - 1, 1 << power, (1 << power) + 1)]
    values = [value for value in [*values, (1 << width) - 1] if 0 < value < 1 << width]
    values += [rng.randrange(1, 1 << rng.randint(1, width)) for _ in range(500 if width > 1 else 0)]
    taken, given = play_streams(InverseSqrt(width=width), values, len(values))
    assert [unpacked(payload) for _, payload in given] == expected(values)
    for index, (cycle, _) in enumerate(given):
        assert cycle - taken[index] == cycles()
        if index:
            assert taken[index] == given[index - 1][0] + 1


def test_back_pressure_keeps_the_result(play_streams, rng):
    values = [rng.randrange(1, 1 << 53) for _ in range(50)]
    pattern = [int(rng.random() < 0.1) for _ in range(999)] + [1]
    _, given = play_streams(InverseSqrt(width=53), values, 50, offering=pattern, accepting=pattern)
    assert [unpacked(payload) for _, payload in given] == expected(values)
