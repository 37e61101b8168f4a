import pytest
import torch

from vitruvius.hwgen.units.ivit.layernorm import (
    RowSpread,
    spread_layout,
    sums_layout,
)
from vitruvius.models.integer.ivit.layernorm import integer_root, mean_half_even

TOP = (1 << 31) - 1


def test_mean_and_reciprocal_equal_the_golden_in_the_stated_cycles(
    play_streams, rng, norm_row_examples, pack
):
    """Fails for a mean that rounds otherwise at a tie, a root or a quotient that is one off."""
    widths = (1, 2, 4, 63, 192, 1024)
    rows = [row for width in widths for row in norm_row_examples(rng, width)]
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


def test_a_bad_width_is_named():
    with pytest.raises(ValueError, match="max_width: expected 1 to 1024, got 1025"):
        RowSpread(max_width=1025)
