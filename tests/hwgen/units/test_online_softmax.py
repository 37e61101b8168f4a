import pytest

from vitruvius.hwgen.units.online_softmax import OnlineSoftmax, cycles
from vitruvius.models.integer.online_softmax import online_softmax


def offers(rows):
    return [
        (score & 0xFFFF) | (index == 0) << 16 | (index == len(row) - 1) << 17
        for row in rows
        for index, score in enumerate(row)
    ]


def unpacked(payload):
    maximum = payload & 0xFFFF
    return maximum - (1 << 16) if maximum >> 15 else maximum, payload >> 16


def example_rows(rng):
    rows = [
        [0],
        [-32768],
        [7] * 64,
        [300, *([100] * 20)],
        [*([100] * 20), 300],
        [-32768, 32767, -32768],
        [32767] * 64,
        [0, 511],
        [0, 512],
        [0, -511, -512, -513],
        list(range(64)),
        list(range(64, 0, -1)),
    ]
    for _ in range(60):
        spread = rng.choice([10, 200, 1000, 30000])
        length = rng.randint(1, 64)
        rows.append([rng.randint(-spread, spread) for _ in range(length)])
    return rows


def test_equals_the_golden_in_the_stated_cycles(play_streams, rng):
    rows = example_rows(rng)
    taken, given = play_streams(OnlineSoftmax(max_length=64), offers(rows), len(rows))
    assert [unpacked(payload) for _, payload in given] == [online_softmax(row) for row in rows]
    begin = 0
    for row, (cycle, _) in zip(rows, given, strict=True):
        assert cycle - taken[begin] == cycles(len(row))
        begin += len(row)


def test_back_pressure_changes_nothing(play_streams, rng):
    rows = example_rows(rng)[:30]
    pattern = [int(rng.random() < 0.3) for _ in range(499)] + [1]
    _, given = play_streams(
        OnlineSoftmax(max_length=64), offers(rows), len(rows), offering=pattern, accepting=pattern
    )
    assert [unpacked(payload) for _, payload in given] == [online_softmax(row) for row in rows]


def test_bad_length_is_named():
    with pytest.raises(ValueError, match="max_length: expected at least 1, got 0"):
        OnlineSoftmax(max_length=0)
