from itertools import pairwise

import pytest
import torch

from vitruvius.hwgen.units.ivit.shift_gelu_rows import ShiftGeluRows, cycles
from vitruvius.models.integer.ivit.shift_gelu import LARGEST_STEP, OCTAVES, shift_gelu

PUBLISHED = [-128, -60, -20, -5, 0, 5, 20, 60, 100, 127]


def example_row(rng, length, index):
    """Corners first: equal, extremes, all negative, all codes around a maximum; then random."""
    corners = [
        [0] * length,
        [-128] * length,
        [127] * length,
        [127] + [-128] * (length - 1),
        [-128] * (length - 1) + [-1],
        [-7 - lane % 122 for lane in range(length)],
        [127 - lane % 256 for lane in range(length)],
        [lane % 256 - 128 for lane in range(length)],
    ]
    if index < len(corners):
        return corners[index]
    middle, spread = rng.randint(-110, 110), rng.choice([1, 6, 40, 228])
    row = [middle + rng.randint(-spread, spread) for _ in range(length)]
    return [max(-128, min(127, code)) for code in row]


def begins(unit, arrivals, tiles):
    """The cycles in which the rows' tables begin, from the contract's completions."""
    behind = 256 // unit.dividers + unit.FILL + tiles + unit.LATENCY
    return [completion - behind for completion in cycles(arrivals, tiles, unit.dividers)]


def offered(rng, unit, rows, tiles, busyness):
    """Inputs of every cycle, `ready` of every cycle, and the cycles of rows' last chunks.

    A chunk stays until it is taken. ``ready`` is down while two complete rows wait.
    """
    lanes = unit.lanes
    chunks = []
    for row in rows:
        # What lies in the void lanes of the last chunk must not count.
        padded = row + [127] * (-len(row) % lanes)
        for begin in range(0, len(padded), lanes):
            chunk = padded[begin : begin + lanes]
            chunks.append(sum((code & 0xFF) << (8 * lane) for lane, code in enumerate(chunk)))
    valids, payloads, readies, arrivals = [], [], [], []
    offering, given = False, 0
    while given < len(chunks):
        cycle = len(valids)
        ready = sum(begin >= cycle for begin in begins(unit, arrivals, tiles)) < 2
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


def check(play, rng, unit, rows, *, step, busyness=1.0):
    """Every output of every cycle equals the golden's results in the stated cycles."""
    lanes, length = unit.lanes, len(rows[0])
    tiles = -(-length // lanes)
    valids, payloads, readies, arrivals = offered(rng, unit, rows, tiles, busyness)
    completions = cycles(arrivals, tiles, unit.dividers)
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
        },
        dict.fromkeys(("i__ready", "valid", "last", "results", "busy"), 0),
        extra=completions[-1] + 4 - len(valids),
    )
    count = len(record["busy"])
    golden = shift_gelu(torch.tensor(rows), step, "faithful").tolist()
    expected, busy = {}, [0] * count
    for row, arrival, completion in zip(golden, arrivals, completions, strict=True):
        padded = row + [0] * (-length % lanes)
        for tile in range(tiles):
            chunk = padded[tile * lanes : (tile + 1) * lanes]
            word = sum((result & 0xFFFF) << (16 * lane) for lane, result in enumerate(chunk))
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


# Lanes, most chunks, dividers, row length. The second fills its store of chunks to the last place:
# rows a little shorter than a table takes. The third has rows of one code, the fourth long ones.
SHAPES = [(4, 48, 2, 93), (2, 55, 4, 110), (1, 1, 2, 1), (1, 150, 2, 150)]


@pytest.mark.parametrize(
    ("shape", "busyness"),
    [
        (SHAPES[0], 1.0),
        (SHAPES[0], 0.4),
        (SHAPES[2], 1.0),
        # Four dividers take a minute to build.
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((SHAPES[1], 1.0), (SHAPES[1], 0.97), (SHAPES[3], 1.0))
        ),
    ],
)
def test_equals_the_golden_in_the_stated_cycles(play, rng, shape, busyness):
    """Fails for a wrong result, a result or `ready` a cycle off, tables or rows that mix."""
    lanes, tiles, dividers, length = shape
    rows = [example_row(rng, length, index) for index in range(16)]
    step = rng.choice([1, 9, 20, LARGEST_STEP, rng.randint(1, LARGEST_STEP)])
    unit = ShiftGeluRows(lanes=lanes, max_tiles=tiles, dividers=dividers)
    check(play, rng, unit, rows, step=step, busyness=busyness)


@pytest.mark.parametrize(
    "step",
    [
        LARGEST_STEP,
        *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 2, 8, 20, 63, 64)),
    ],
)
def test_every_code_below_every_maximum_equals_the_golden(play, rng, step):
    """All pairs of a maximum and a code: fails for a sum that wraps where it should saturate, at
    maxima far below 0, and for an exponential that is not cut, at maxima far above.
    """
    rows = [[min(code, maximum) for code in range(-128, 128)] for maximum in range(-128, 128)]
    golden, _, _ = check(play, rng, ShiftGeluRows(lanes=2, max_tiles=128), rows, step=step)
    # The published fault that the safe mode does not have: x / 2 where the maximum is too large.
    collapsed = step * OCTAVES / 1.4375 < 127
    assert (golden[-1][0] == -128 * 64 + 128) == collapsed


@pytest.mark.slow
def test_rows_back_to_back_take_the_pace_that_is_stated(play, rng):
    """Behind the first, the longer of reading a row and filling a table: 150, then 256 / 2."""
    for length, pace in ((150, 150), (40, 128)):
        rows = [example_row(rng, length, index) for index in range(9)]
        unit = ShiftGeluRows(lanes=1, max_tiles=150, dividers=2)
        _, _, completions = check(play, rng, unit, rows, step=34)
        assert {b - a for a, b in pairwise(completions)} == {pace}


def test_the_published_row(play, rng):
    unit = ShiftGeluRows(lanes=4, max_tiles=3)
    golden, _, _ = check(play, rng, unit, [PUBLISHED], step=20)
    assert golden == [[0, -360, -720, -290, 0, 365, 1880, 7260, 12600, 15240]]


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="lanes: expected at least 1, got 0"):
        ShiftGeluRows(lanes=0, max_tiles=1)
    with pytest.raises(ValueError, match="max_tiles: expected at least 1, got 0"):
        ShiftGeluRows(lanes=1, max_tiles=0)
    with pytest.raises(ValueError, match="dividers: expected 1, 2 or 4, got 8"):
        ShiftGeluRows(lanes=1, max_tiles=1, dividers=8)
