import pytest
import torch

from vitruvius.hwgen.units.softmax import Softmax, cycles
from vitruvius.models.integer.reciprocal import reciprocal
from vitruvius.models.integer.softmax import exponential_table, softmax_weights

TABLE_END = exponential_table().index(0)


def example_row(rng, length, index):
    """Corners first: equal, most negative, maximum first and last, table's end, saturating."""
    corners = [
        [5] * length,
        [-32768] * length,
        [32767] * length,
        [400] + [0] * (length - 1),
        [0] * (length - 1) + [400],
        [TABLE_END if lane % 2 else 0 for lane in range(length)],
        [TABLE_END - 1 if lane % 3 else 0 for lane in range(length)],
        [32767 if lane == length // 2 else -32768 for lane in range(length)],
        [255 if lane % 2 else 0 for lane in range(length)],
        [256 if lane % 2 else 0 for lane in range(length)],
    ]
    if index < len(corners):
        return corners[index]
    middle = rng.randint(-20000, 20000)
    spread = rng.choice([3, 100, 300, 12000])
    return [middle + rng.randint(-spread, spread) for _ in range(length)]


SHAPES = [
    {"slots": 4, "lanes": 4, "max_tiles": 6, "tiles": 5, "last_count": 3, "rows": 60},
    {"slots": 3, "lanes": 5, "max_tiles": 4, "tiles": 4, "last_count": 5, "rows": 50},
    {"slots": 1, "lanes": 1, "max_tiles": 1, "tiles": 1, "last_count": 1, "rows": 20},
    {"slots": 8, "lanes": 2, "max_tiles": 9, "tiles": 1, "last_count": 2, "rows": 40},
    {"slots": 5, "lanes": 8, "max_tiles": 3, "tiles": 3, "last_count": 1, "rows": 40},
]


@pytest.mark.parametrize("busyness", [1.0, 0.4])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape['slots']}x{shape['lanes']}")
def test_equals_the_golden_in_the_stated_cycles(play, rng, arrivals, shape, busyness):
    tiles, lanes, rows = shape["tiles"], shape["lanes"], shape["rows"]
    length = (tiles - 1) * lanes + shape["last_count"]
    scenario = arrivals(
        rng,
        [example_row(rng, length, index) for index in range(rows)],
        slots=shape["slots"],
        lanes=lanes,
        score_bits=16,
        busyness=busyness,
    )
    unit = Softmax(slots=scenario.slots, lanes=lanes, max_tiles=shape["max_tiles"], max_row=rows)
    completions = cycles(scenario.arrivals, tiles)
    length = len(scenario.inputs["valid"])
    outputs = ("weights_valid", "weights_row", "weights_tile", "weights",
               "scale_valid", "scale_row", "mantissa", "length", "busy")  # fmt: skip
    record = play(
        unit,
        {
            **scenario.inputs,
            "valid": [*scenario.inputs["valid"], 0],
            "tiles": [tiles],
            "last_count": [scenario.last_count],
        },
        dict.fromkeys(outputs, 0),
        extra=completions[-1] + 3 - length,
    )
    total_cycles = len(record["busy"])

    expected_tiles = {}
    expected_scales = {}
    expected_busy = [0] * total_cycles
    for job, row in enumerate(scenario.order):
        weights, total = softmax_weights(torch.tensor(scenario.rows[row]))
        padded = weights.tolist() + [0] * (lanes - scenario.last_count)
        for tile in range(tiles):
            word = sum(
                w << (8 * i) for i, w in enumerate(padded[tile * lanes : (tile + 1) * lanes])
            )
            cycle = completions[job] - Softmax.SCALE - (tiles - 1) + tile
            expected_tiles[cycle] = (row, tile, word)
        mantissa, bits = reciprocal(total)
        expected_scales[completions[job]] = (row, int(mantissa), int(bits))
        for cycle in range(scenario.arrivals[job] + 1, completions[job] + 1):
            expected_busy[cycle] = 1

    seen_tiles = {
        cycle: tuple(record[name][cycle] for name in outputs[1:4])
        for cycle in range(total_cycles)
        if record["weights_valid"][cycle]
    }
    seen_scales = {
        cycle: tuple(record[name][cycle] for name in outputs[5:8])
        for cycle in range(total_cycles)
        if record["scale_valid"][cycle]
    }
    assert seen_tiles == expected_tiles
    assert seen_scales == expected_scales
    assert record["busy"] == expected_busy


def test_a_row_alone_takes_start_and_scale():
    assert cycles([100], tiles=1) == [100 + Softmax.START + Softmax.SCALE]


@pytest.mark.parametrize("name", ["slots", "lanes", "max_tiles", "max_row"])
def test_bad_extents_are_named(name):
    extents = {"slots": 2, "lanes": 2, "max_tiles": 2, "max_row": 2, name: 0}
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        Softmax(**extents)
