from itertools import pairwise

import pytest
import torch

from vitruvius.hwgen.units.ivit.shiftmax import Shiftmax, cycles, division
from vitruvius.models.integer.ivit.shiftmax import largest_step, shiftmax


def example_row(rng, length, index):
    """Corners first: equal, extremes, one far above the rest, ends of the octaves; then random."""
    corners = [
        [5] * length,
        [-128] * length,
        [127] * length,
        [127] + [-128] * (length - 1),
        [-128] * (length - 1) + [127],
        [0, *[-1] * (length - 1)],
        [-(lane % 256) + 127 for lane in range(length)],
    ]
    if index < len(corners):
        return corners[index]
    middle, spread = rng.randint(-100, 100), rng.choice([1, 6, 40, 228])
    row = [middle + rng.randint(-spread, spread) for _ in range(length)]
    return [max(-128, min(127, score)) for score in row]


def offered(rng, rows, lanes, tiles, octaves, busyness):
    """Inputs of every cycle, `ready` of every cycle, and the cycles of rows' last chunks.

    A chunk stays until it is taken. ``ready`` is down while two complete rows wait.
    """
    chunks = []
    for row in rows:
        # What lies in the void lanes of the last chunk must not count.
        padded = row + [127] * (-len(row) % lanes)
        for begin in range(0, len(padded), lanes):
            chunk = padded[begin : begin + lanes]
            chunks.append(sum((score & 0xFF) << (8 * lane) for lane, score in enumerate(chunk)))
    valids, payloads, readies, arrivals = [], [], [], []
    offering, given = False, 0
    while given < len(chunks):
        cycle = len(valids)
        begun = [
            completion - 2 * (tiles - 1) - Shiftmax.weighing(octaves)
            for completion in cycles(arrivals, tiles, octaves)
        ]
        ready = sum(begin >= cycle for begin in begun) < 2
        offering = offering or rng.random() < busyness
        valids.append(int(offering))
        payloads.append(chunks[given] if offering else rng.getrandbits(8 * lanes))
        readies.append(int(ready))
        if offering and ready:
            given += 1
            offering = False
            if given % tiles == 0:
                arrivals.append(cycle)
    return valids, payloads, readies, arrivals


def check(play, rng, unit, rows, *, step, narrow=0, busyness=1.0):
    """Every output of every cycle equals the golden's results in the stated cycles."""
    lanes, octaves, length = unit.lanes, unit.octaves, len(rows[0])
    tiles = -(-length // lanes)
    valids, payloads, readies, arrivals = offered(rng, rows, lanes, tiles, octaves, busyness)
    completions = cycles(arrivals, tiles, octaves)
    for name in ("valid", "ready", "payload"):
        setattr(unit, f"i__{name}", getattr(unit.i, name))
    record = play(
        unit,
        {
            "i__valid": [*valids, 0],
            "i__payload": [*payloads, 0],
            "tiles": [tiles],
            "last_count": [length - (tiles - 1) * lanes],
            "step": [step],
            "narrow": [narrow],
        },
        dict.fromkeys(("i__ready", "valid", "last", "results", "busy"), 0),
        extra=completions[-1] + 4 - len(valids),
    )
    count = len(record["busy"])
    golden = shiftmax(torch.tensor(rows), step, bits=8 if narrow else 16, n=octaves).tolist()
    expected, busy = {}, [0] * count
    for row, arrival, completion in zip(golden, arrivals, completions, strict=True):
        padded = row + [0] * (-length % lanes)
        for tile in range(tiles):
            chunk = padded[tile * lanes : (tile + 1) * lanes]
            word = sum(result << (15 * lane) for lane, result in enumerate(chunk))
            expected[completion - tiles + 1 + tile] = (int(tile == tiles - 1), word)
        busy[arrival + 1 : completion + 1] = [1] * (completion - arrival)
    seen = {
        cycle: (record["last"][cycle], record["results"][cycle])
        for cycle in range(count)
        if record["valid"][cycle]
    }
    assert seen == expected
    assert record["busy"] == busy
    assert record["i__ready"][: len(readies)] == readies
    return golden, arrivals, completions


# Lanes, most chunks, octaves, row length. The second has as many words of exponentials as it needs,
# not one more; the third has rows of one key and is bound by the divider.
SHAPES = [(4, 48, 15, 93), (2, 13, 15, 26), (1, 1, 15, 1), (3, 8, 22, 22)]


@pytest.mark.parametrize(
    ("shape", "busyness"),
    [*((shape, 1.0) for shape in SHAPES), (SHAPES[0], 0.4), (SHAPES[1], 0.6)],
)
def test_equals_the_golden_in_the_stated_cycles(play, rng, shape, busyness):
    """Fails for a wrong result, a result or `ready` a cycle off, or rows that mix."""
    lanes, tiles, octaves, length = shape
    rows = [example_row(rng, length, index) for index in range(16)]
    step = rng.choice([1, 9, 34, 511, rng.randint(1, 511)])
    unit = Shiftmax(lanes=lanes, max_tiles=tiles, octaves=octaves)
    check(play, rng, unit, rows, step=step, narrow=rng.randrange(2), busyness=busyness)


def test_rows_back_to_back_take_the_pace_that_is_stated(play, rng):
    """Behind the first, the longer of reading and division a row: 24 chunks, then 2."""
    for length, pace in ((93, 24), (8, division())):
        rows = [example_row(rng, length, index) for index in range(12)]
        unit = Shiftmax(lanes=4, max_tiles=48)
        _, _, completions = check(play, rng, unit, rows, step=34)
        assert {b - a for a, b in pairwise(completions)} == {pace}


@pytest.mark.parametrize(("step", "saturates"), [(341, False), (511, True)])
def test_a_sum_at_saturation_equals_the_golden(play, rng, step, saturates):
    """192 equal scores: the sum passes 2**31 - 1 from 342 on; a sum that wraps would be small."""
    assert (step > largest_step(192)) == saturates
    rows = [[7] * 192, [7] * 191 + [6], [-128] * 191 + [127]]
    golden, _, _ = check(play, rng, Shiftmax(lanes=4, max_tiles=48), rows, step=step)
    assert golden[0][0] == (step << 15) >> 16  # the reciprocal is 1


@pytest.mark.parametrize(
    ("narrow", "expected"),
    [
        (0, [769, 661, 423, 353, 9, 16745, 7756, 6033]),
        (1, [3, 2, 1, 1, 0, 65, 30, 23]),
    ],
)
def test_the_published_row(play, rng, narrow, expected):
    row = [20, 15, 0, -7, -128, 127, 100, 90]
    unit = Shiftmax(lanes=4, max_tiles=48)
    golden, _, _ = check(play, rng, unit, [row], step=34, narrow=narrow)
    assert golden == [expected]


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="lanes: expected at least 1, got 0"):
        Shiftmax(lanes=0, max_tiles=1)
    with pytest.raises(ValueError, match="max_tiles: expected at least 1, got 0"):
        Shiftmax(lanes=1, max_tiles=0)
    with pytest.raises(ValueError, match="octaves: expected 1 to 22, got 23"):
        Shiftmax(lanes=1, max_tiles=1, octaves=23)
