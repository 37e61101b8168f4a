"""Softmax with a running row maximum, a table exponential and one reciprocal per row.

Scores are 16-bit codes with 5 fraction bits (nats). The weights of a row are ``EXP[max -
score]``, 8 bits unsigned; their integer sum and the weighted sum of the values are accumulated
side by side and divided once, when the row leaves. Integer sums do not depend on the order in
which the keys arrive, so the result is the same on every machine.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .reciprocal import MANTISSA_BITS, reciprocal
from .requantize import Dyadic

__all__ = [
    "SCORE_BITS",
    "SCORE_FRACTION",
    "WEIGHT_BITS",
    "exponential_table",
    "row_scale",
    "softmax_weights",
]

SCORE_BITS = 16
SCORE_FRACTION = 5
WEIGHT_BITS = 8


def exponential_table() -> list[int]:
    """256 entries ``round(255 * exp(-d / 32))``: the last ones are zero, so any larger d gives
    zero too.
    """
    return [round(255 * math.exp(-d / (1 << SCORE_FRACTION))) for d in range(256)]


_TABLE = torch.tensor(exponential_table(), dtype=torch.int64)


def softmax_weights(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Unnormalised weights and their sum: ([..., N] 0 to 255, [...] 255 to 255*N), both int64.

    ``scores``: int64 [..., N] holding 16-bit codes with 5 fraction bits.

    >>> [part.tolist() for part in softmax_weights(torch.tensor([0, 32, -1000]))]
    [[94, 255, 0], 349]
    """
    distance = scores.amax(-1, keepdim=True) - scores
    weights = _TABLE[distance.clamp(max=255)]
    return weights, weights.sum(-1)


def row_scale(total: Tensor, scale: Dyadic) -> tuple[Tensor, Tensor]:
    """The requantizer setting of one row, ``scale / total``: (multiplier, shift), both int64.

    ``total``: the row's sum of weights; ``scale``: ratio of the value scale to the output scale,
    with its top multiplier bit set. The product of the two 16-bit mantissas is truncated to its
    upper 16 bits.
    """
    r, length = reciprocal(total)
    return (r * scale.multiplier) >> MANTISSA_BITS, length + (scale.shift - 1)
