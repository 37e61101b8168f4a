import pytest
import torch

from vitruvius.hwgen.units.layernorm import (
    NormLane,
    NormScale,
    RowMoments,
    moments_layout,
    scale_layout,
)
from vitruvius.models.integer.inverse_sqrt import inverse_sqrt
from vitruvius.models.integer.layernorm import LayerNormCodes, layernorm


def unpack(layout, word):
    return {name: (word >> field.offset) & ((1 << field.width) - 1) for name, field in layout}


@pytest.mark.parametrize("lanes", [1, 3, 8])
def test_moments_equal_the_sums(play, rng, lanes):
    chunks = [[value] * lanes for value in (-32768, 32767, 0)]
    chunks += [[rng.randint(-32768, 32767) for _ in range(lanes)] for _ in range(500)]
    counts = [rng.randint(0, lanes) for _ in chunks]
    counts[:3] = [lanes] * 3
    unit = RowMoments(lanes=lanes)
    words = [sum((v & 0xFFFF) << (16 * i) for i, v in enumerate(chunk)) for chunk in chunks]
    record = play(
        unit,
        {"values": words, "count": counts},
        {"total": -len(unit.total), "squares": len(unit.squares)},
        extra=unit.LATENCY,
    )
    used = [chunk[:count] for chunk, count in zip(chunks, counts, strict=True)]
    assert record["total"][unit.LATENCY :] == [sum(chunk) for chunk in used]
    assert record["squares"][unit.LATENCY :] == [sum(v * v for v in chunk) for chunk in used]


def test_scale_equals_the_golden_in_the_stated_cycles(play_streams, rng, norm_row_examples, pack):
    widths = (1, 2, 64, 777, 1024)
    rows = [(row, width) for width in widths for row in norm_row_examples(rng, width)]
    offers, expected = [], []
    for row, width in rows:
        total, squares = sum(row), sum(value * value for value in row)
        epsilon = rng.choice([1, 7, 1 << 30, (1 << 52) - 1])
        offers.append(
            pack(moments_layout(), total=total, squares=squares, width=width, epsilon=epsilon)
        )
        r, half = inverse_sqrt(torch.tensor(width * squares - total * total + epsilon))
        expected.append({"total": total % (1 << 26), "mantissa": int(r), "shift": int(half) + 13})
    taken, given = play_streams(NormScale(), offers, len(offers))
    assert [unpack(scale_layout(), word) for _, word in given] == expected
    for index, (cycle, _) in enumerate(given):
        assert cycle - taken[index] == NormScale.cycles()
        if index:
            assert taken[index] == given[index - 1][0] + 1


def affine(rng, shift):
    """Gain and offset of one value: mostly such that 8 bits hold the result, sometimes extreme."""
    if rng.random() < 0.2:
        return rng.choice([-32768, 32767]), rng.choice([-(1 << 31), (1 << 31) - 1, 0])
    reach = 1 << min(15, max(1, shift - 4))
    far = 1 << min(31, shift + 6)
    return rng.randint(-reach, reach - 1), rng.randint(-far, far - 1)


def test_lane_equals_the_golden(play, rng, norm_row_examples):
    ports = ("x", "width", "total", "mantissa", "shift", "gain", "offset", "affine_shift")
    inputs = {name: [] for name in ports}
    expected = []
    for width in (1, 2, 3, 64, 64, 64, 200, 200, 1024):
        for row in norm_row_examples(rng, width):
            shift, epsilon = rng.randint(0, 31), rng.choice([1, 900, 1 << 40])
            gain, offset = map(list, zip(*(affine(rng, shift) for _ in row), strict=True))
            x = torch.tensor(row)
            codes = LayerNormCodes(torch.tensor(gain), torch.tensor(offset), shift, epsilon)
            expected += layernorm(x, codes).tolist()
            total = int(x.sum())
            r, half = inverse_sqrt(width * (x * x).sum() - total * total + epsilon)
            for index, value in enumerate(row):
                values = (value, width, total, int(r), int(half) + 13, gain[index], offset[index],
                          shift)  # fmt: skip
                for name, item in zip(ports, values, strict=True):
                    inputs[name].append(item)
    result = play(NormLane(), inputs, {"result": -8}, extra=NormLane.LATENCY)["result"]
    assert result[NormLane.LATENCY :] == expected
    assert len(set(expected)) > 150  # not only saturated values; at least 217 in 400 seeds


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="lanes: expected at least 1, got 0"):
        RowMoments(lanes=0)
    with pytest.raises(ValueError, match="max_width: expected 1 to 1024, got 1025"):
        NormScale(max_width=1025)
