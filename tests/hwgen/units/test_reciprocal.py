import pytest
import torch

from vitruvius.hwgen.units.reciprocal import Reciprocal
from vitruvius.models.integer.reciprocal import reciprocal


@pytest.mark.parametrize("width", [1, 5, 16, 18, 40])
def test_equals_the_golden(play, rng, width):
    values = [v for power in range(width) for v in ((1 << power) - 1, 1 << power, (1 << power) + 1)]
    values.append((1 << width) - 1)
    values = [value for value in values if 0 < value < 1 << width]
    if width > 1:
        values += [rng.randrange(1, 1 << rng.randint(1, width)) for _ in range(4000)]
    unit = Reciprocal(width=width)
    record = play(
        unit,
        {"value": values},
        {"mantissa": 16, "length": len(unit.length)},
        extra=unit.LATENCY,
    )
    mantissa, length = reciprocal(torch.tensor(values))
    assert record["mantissa"][unit.LATENCY :] == mantissa.tolist()
    assert record["length"][unit.LATENCY :] == length.tolist()


@pytest.mark.parametrize("width", [0, 63])
def test_bad_width_is_named(width):
    with pytest.raises(ValueError, match=f"width: expected 1 to 62, got {width}"):
        Reciprocal(width=width)
