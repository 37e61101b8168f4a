"""Edge-MoE's single-pass softmax (arXiv 2305.18691): running maximum and rescaled running sum, in
integers.

It needs no second look at the scores before the sum is known, but each new maximum costs a
multiplication that rounds, so unlike `softmax` the result depends on the order of the keys. Kept
for the comparison.
"""

from __future__ import annotations

import math

from .softmax import SCORE_FRACTION

__all__ = ["EXP_FRACTION", "TABLE_SIZE", "online_exponential_table", "online_softmax"]

EXP_FRACTION = 15
TABLE_SIZE = 512


def online_exponential_table() -> list[int]:
    """512 entries ``round(2**15 * exp(-d / 32))``; d of 512 and more counts as zero."""
    return [
        round((1 << EXP_FRACTION) * math.exp(-d / (1 << SCORE_FRACTION))) for d in range(TABLE_SIZE)
    ]


_TABLE = online_exponential_table()


def _exp(distance: int) -> int:
    return _TABLE[distance] if distance < TABLE_SIZE else 0


def online_softmax(scores: list[int]) -> tuple[int, int]:
    """(maximum, sum) after one pass over a row of 16-bit score codes with 5 fraction bits, in the
    given order.

    The sum has 15 fraction bits. On a strictly larger score the old sum is rescaled (floor) and
    one is added.

    >>> online_softmax([0, 32, -1000])
    (32, 44823)
    """
    maximum, total = 0, 0
    for index, score in enumerate(scores):
        if index == 0:
            maximum, total = score, 1 << EXP_FRACTION
        elif score > maximum:
            total = ((total * _exp(score - maximum)) >> EXP_FRACTION) + (1 << EXP_FRACTION)
            maximum = score
        else:
            total += _exp(maximum - score)
    return maximum, total
