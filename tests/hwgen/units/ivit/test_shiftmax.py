import pytest
import torch

from vitruvius.hwgen.units.ivit.shiftmax import Shiftmax, cycles
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


def shiftmax_unit(**changed):
    return Shiftmax(**{"slots": 2, "lanes": 4, "max_tiles": 48, "max_row": 32, **changed})


def check(play, rng, arrivals, unit, rows, *, step, octaves=15, narrow=0, busyness=1.0):
    """Every output of every cycle equals the golden's results in the stated cycles."""
    lanes = unit.lanes
    scenario = arrivals(rng, rows, slots=unit.slots, lanes=lanes, score_bits=8, busyness=busyness)
    tiles = scenario.tiles
    completions = cycles(scenario.arrivals, tiles)
    length = len(scenario.inputs["valid"])
    outputs = (
        "weights_valid", "weights_row", "weights_tile", "weights", "row_complete", "busy",
    )  # fmt: skip
    record = play(
        unit,
        {
            **scenario.inputs,
            "valid": [*scenario.inputs["valid"], 0],
            "tiles": [tiles],
            "last_count": [scenario.last_count],
            "step": [step],
            "octaves": [octaves],
            "narrow": [narrow],
        },
        dict.fromkeys(outputs, 0),
        extra=completions[-1] + 4 - length,
    )
    count = len(record["busy"])
    golden = shiftmax(torch.tensor(rows), step, bits=8 if narrow else 16, n=octaves).tolist()
    expected, busy = {}, [0] * count
    for row, arrival, completion in zip(
        scenario.order, scenario.arrivals, completions, strict=True
    ):
        padded = golden[row] + [0] * (lanes - scenario.last_count)
        for tile in range(tiles):
            chunk = padded[tile * lanes : (tile + 1) * lanes]
            word = sum(result << (15 * lane) for lane, result in enumerate(chunk))
            last = int(tile == tiles - 1)
            expected[completion - tiles + 1 + tile] = (row, tile, word, last)
        for cycle in range(arrival + 1, completion + 1):
            busy[cycle] = 1
    seen = {
        cycle: tuple(record[name][cycle] for name in outputs[1:5])
        for cycle in range(count)
        if record["weights_valid"][cycle]
    }
    assert seen == expected
    assert record["busy"] == busy
    return golden


# Slots, lanes, most chunks, row length. The second has as many words of exponentials as it
# needs, not one more; the third has rows of one key, one a cycle in the divider.
SHAPES = [(3, 4, 48, 93), (2, 2, 8, 16), (4, 1, 1, 1), (1, 3, 8, 22)]


@pytest.mark.parametrize(
    ("shape", "busyness"),
    [*((shape, 1.0) for shape in SHAPES), (SHAPES[0], 0.4), (SHAPES[1], 0.6)],
)
def test_equals_the_golden_in_the_stated_cycles(play, rng, arrivals, shape, busyness):
    """Fails for a wrong result, one a cycle off, or rows that mix."""
    slots, lanes, tiles, length = shape
    rows = [example_row(rng, length, index) for index in range(24)]
    step = rng.choice([1, 9, 34, 511, rng.randint(1, 511)])
    unit = shiftmax_unit(slots=slots, lanes=lanes, max_tiles=tiles)
    check(play, rng, arrivals, unit, rows, step=step, narrow=rng.randrange(2), busyness=busyness)


@pytest.mark.parametrize(("step", "saturates"), [(341, False), (511, True)])
def test_a_sum_at_saturation_equals_the_golden(play, rng, arrivals, step, saturates):
    """192 equal scores: the sum passes 2**31 - 1 from 342 on; a sum that wraps would be small."""
    assert (step > largest_step(192)) == saturates
    rows = [[7] * 192, [7] * 191 + [6], [-128] * 191 + [127]]
    golden = check(play, rng, arrivals, shiftmax_unit(), rows, step=step)
    assert golden[0][0] == (step << 15) >> 16  # the reciprocal is 1


@pytest.mark.parametrize(
    ("narrow", "expected"),
    [
        (0, [769, 661, 423, 353, 9, 16745, 7756, 6033]),
        (1, [3, 2, 1, 1, 0, 65, 30, 23]),
    ],
)
def test_the_published_row(play, rng, arrivals, narrow, expected):
    row = [20, 15, 0, -7, -128, 127, 100, 90]
    golden = check(play, rng, arrivals, shiftmax_unit(), [row], step=34, narrow=narrow)
    assert golden == [expected]


@pytest.mark.parametrize("name", ["slots", "lanes", "max_tiles", "max_row"])
def test_bad_extents_are_named(name):
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        shiftmax_unit(**{name: 0})


@pytest.mark.parametrize(
    ("step", "octaves"), [(93, 4), (511, 1), (367, 1), (27, 14), (20, 15), (64, 3), (1, 9)]
)
def test_fewer_octaves_equal_the_golden(play, rng, arrivals, step, octaves):
    """Fails for exponentials in other units, or below the step where the cut is reached (the last
    two), or a quotient that lacks its upper bits.
    """
    rows = [example_row(rng, 33, index) for index in range(16)]
    check(play, rng, arrivals, shiftmax_unit(), rows, step=step, octaves=octaves)
