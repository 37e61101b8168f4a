import pytest
import torch

from vitruvius.hwgen.units.ivit.layernorm import (
    ILayerNorm,
    RowSpread,
    cycles,
    spread_layout,
    sums_layout,
)
from vitruvius.models.integer.ivit.layernorm import Affine, integer_root, layernorm, mean_half_even

TOP = (1 << 31) - 1


def pack(layout, **fields):
    return sum((fields[name] & ((1 << field.width) - 1)) << field.offset for name, field in layout)


def example_rows(rng, width):
    """All equal, extremes, one far above the rest, means that are ties, then random ones."""
    rows = [
        [0] * width,
        [-32768] * width,
        [32767] * width,
        [32767] + [-32768] * (width - 1),
        [-32768] * (width - 1) + [32767],
        [-32768 if index % 2 else 32767 for index in range(width)],
        [1] + [0] * (width - 1),
        [index % 2 + 2 for index in range(width)],
        [-(index % 2) - 3 for index in range(width)],
    ]
    for _ in range(6):
        middle, spread = rng.randint(-8000, 8000), rng.choice([1, 30, 2000, 24000])
        rows.append([middle + rng.randint(-spread, spread) for _ in range(width)])
    return [[max(-32768, min(32767, value)) for value in row] for row in rows]


def test_mean_and_reciprocal_equal_the_golden_in_the_stated_cycles(play_streams, rng):
    """Fails for a mean that rounds otherwise at a tie, a root or a quotient that is one off."""
    rows = [row for width in (1, 2, 4, 63, 192, 1024) for row in example_rows(rng, width)]
    offers, expected = [], []
    for row in rows:
        x = torch.tensor(row)
        offers.append(
            pack(sums_layout(), total=sum(row), squares=sum(v * v for v in row), width=len(row))
        )
        mean = mean_half_even(x)
        root = integer_root((x - mean).square().sum(-1, keepdim=True))
        expected.append(pack(spread_layout(), mean=int(mean), factor=TOP // int(root)))
    taken, given = play_streams(RowSpread(), offers, len(offers))
    assert [word for _, word in given] == expected
    for index, (cycle, _) in enumerate(given):
        assert cycle - taken[index] == RowSpread.cycles()
        if index:
            assert taken[index] == given[index - 1][0] + 1


def parameters(rng, width):
    """Biases that saturate both ways among small ones, and channels without gamma."""
    bias = [rng.choice([-TOP - 1, TOP, 0, rng.randint(-(1 << 28), 1 << 28)]) for _ in range(width)]
    alive = [int(rng.random() < 0.8) for _ in range(width)]
    return Affine(torch.tensor(bias), torch.tensor(alive), torch.ones(width))


def affine_writes(codes, lanes):
    """Port values that load biases and the channels' gates, and the one that ends loading."""
    writes = []
    pairs = list(zip(codes.bias.tolist(), codes.alive.tolist(), strict=True))
    pairs += [(TOP, 1)] * (-len(pairs) % lanes)  # void lanes leave as 0 whatever stands there
    for begin in range(0, len(pairs), lanes):
        word = 0
        for lane, (bias, alive) in enumerate(pairs[begin : begin + lanes]):
            word |= ((bias & 0xFFFFFFFF) | alive << 32) << (33 * lane)
        writes.append(
            {"affine__enable": 1, "affine__address": begin // lanes, "affine__data": word}
        )
    return [*writes, {"affine__enable": 0}]


def chunked(row, lanes, bits, fill):
    padded = row + [fill] * (-len(row) % lanes)
    mask = (1 << bits) - 1
    return [
        sum((v & mask) << (bits * lane) for lane, v in enumerate(padded[begin : begin + lanes]))
        for begin in range(0, len(padded), lanes)
    ]


@pytest.mark.parametrize(
    ("lanes", "width", "flow"),
    [(4, 13, "free"), (4, 16, "stalled"), (4, 16, "free"), (3, 1, "free")],
)
def test_rows_equal_the_golden_in_the_stated_cycles(play_streams, rng, lanes, width, flow):
    """Fails for a wrong result, void lanes that count, rows that mix, a cycle more or less."""
    rows = example_rows(rng, width)
    codes = parameters(rng, width)
    # What lies in the void lanes of the last chunk must not count.
    offers = [word for row in rows for word in chunked(row, lanes, 16, 32767)]
    patterns = {}
    if flow == "stalled":
        patterns["offering"] = [int(rng.random() < 0.5) for _ in range(97)] + [1]
        patterns["accepting"] = [int(rng.random() < 0.2) for _ in range(101)] + [1]
    taken, given = play_streams(
        ILayerNorm(lanes=lanes, max_width=16),
        offers,
        len(offers),
        setup=affine_writes(codes, lanes),
        width=width,
        **patterns,
    )
    golden = layernorm(torch.tensor(rows), codes).tolist()
    expected = [word for row in golden for word in chunked(row, lanes, 32, 0)]
    assert [payload for _, payload in given] == expected
    if flow == "free":
        spent = given[-1][0] - taken[0]
        assert spent == cycles(width=width, lanes=lanes, rows=len(rows))


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="lanes: expected at least 1, got 0"):
        ILayerNorm(lanes=0)
    with pytest.raises(ValueError, match="max_width: expected 1 to 1024, got 1025"):
        RowSpread(max_width=1025)
