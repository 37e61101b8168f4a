"""Shiftmax: softmax with `shift_exp` and one integer division for each row."""

from __future__ import annotations

import torch
from torch import Tensor

from .shift_exp import shift_exp

__all__ = ["OCTAVES", "WIDEST_STEP", "largest_step", "octaves_reached", "shiftmax"]

OCTAVES = 15
"""How many octaves below the row's maximum a score may lie until its weight stays what it is."""
WIDEST_STEP = 511
"""The largest ``a`` that a lowered model has; the hardware keeps it in 9 bits."""
_TOP = (1 << 31) - 1
_FARTHEST = 255 + 128 - 16
"""``d + d/2 - d/16`` of the largest difference of two 8-bit scores."""


def largest_step(keys: int, n: int = OCTAVES) -> int:
    """The largest ``a`` with which a row's sum over ``keys`` keys cannot saturate.

    >>> largest_step(197)
    332
    """
    return _TOP // (keys << n)


def octaves_reached(a: int) -> int:
    """How many octaves differences of 8-bit scores with step 1/``a`` can reach, `OCTAVES` at most.

    Fewer change no exponential but its unit, and leave the reciprocal of the row's sum more bits:
    with 15 octaves the sum of n equal scores is ``n * a * 2**15``, so over 197 keys with a step of
    1/128 the reciprocal is 2, in the place of 2.6.

    >>> octaves_reached(20), octaves_reached(93)
    (15, 4)
    """
    return min(OCTAVES, -(-_FARTHEST // a))


def shiftmax(scores: Tensor, a: int, *, bits: int = 16, n: int = OCTAVES) -> Tensor:
    """Probabilities of rows of score codes: int64 [..., N] in units of ``2**-(bits-1)``.

    scores: int64 [..., N], 8-bit codes of step 1/``a``. The row's sum saturates at 2**31 - 1, and
    ``(2**31 - 1) // sum`` is its reciprocal. No result exceeds ``2**(bits-1) - 1``, so nothing is
    saturated. 16 bits in ViT and DeiT, 8 in Swin.

    >>> shiftmax(torch.tensor([20, 15, 0, -7, -128, 127, 100, 90]), 34).tolist()
    [769, 661, 423, 353, 9, 16745, 7756, 6033]
    """
    weights = shift_exp(scores - scores.amax(-1, keepdim=True), a, n)
    total = weights.sum(-1, keepdim=True).clamp(max=_TOP)
    return (weights * torch.div(_TOP, total, rounding_mode="floor")) >> (32 - bits)
