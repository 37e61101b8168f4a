import pytest
import torch

from vitruvius.hwgen.units.ivit.layernorm import spread_layout, sums_layout
from vitruvius.hwgen.units.ivit.row_spreads import RowSpreads, cycles
from vitruvius.models.integer.ivit.layernorm import integer_root, mean_half_even

TOP = (1 << 31) - 1


def pack(layout, **fields):
    return sum((fields[name] & ((1 << field.width) - 1)) << field.offset for name, field in layout)


@pytest.mark.parametrize("copies", [1, 3, 4])
def test_rows_leave_in_order_in_the_stated_cycles(play_streams, rng, copies):
    """Fails for rows that overtake each other, or a unit that begins too early or too late."""
    offers, expected = [], []
    for width in (1, 5, 64, 192, 1024, 3, 7):
        row = [rng.randint(-32768, 32767) for _ in range(width)]
        x = torch.tensor(row)
        squares = sum(value * value for value in row)
        offers.append(pack(sums_layout(), total=sum(row), squares=squares, width=width))
        mean = mean_half_even(x)
        root = integer_root((x - mean).square().sum(-1, keepdim=True))
        expected.append(pack(spread_layout(), mean=int(mean), factor=TOP // int(root)))
    taken, given = play_streams(RowSpreads(copies=copies), offers, len(offers))
    assert [word for _, word in given] == expected
    begun = taken[0]
    stated = [begun + cycle for cycle in cycles([0] * len(offers), copies)]
    assert [cycle for cycle, _ in given] == stated


def test_no_copies_are_refused():
    with pytest.raises(ValueError, match="copies: expected at least 1, got 0"):
        RowSpreads(copies=0)
