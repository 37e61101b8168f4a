"""Integer reciprocal of a positive integer as a 16-bit mantissa and an exponent."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["MANTISSA_BITS", "NUMERATOR", "bit_length", "reciprocal"]

MANTISSA_BITS = 16
NUMERATOR = (1 << (2 * MANTISSA_BITS - 1)) - 1


def bit_length(value: Tensor) -> Tensor:
    """Number of bits of each non-negative int64 below 2**62; 0 for 0.

    >>> bit_length(torch.tensor([0, 1, 255, 256])).tolist()
    [0, 1, 8, 9]
    """
    length = torch.zeros_like(value)
    for step in (32, 16, 8, 4, 2, 1):
        above = (value >> (length + step - 1)) > 0
        length = torch.where(above, length + step, length)
    return length


def reciprocal(value: Tensor) -> tuple[Tensor, Tensor]:
    """``1 / value`` as (r, length) with ``1 / value ~ r / 2**(15 + length)``.

    ``value``: int64, at least 1. ``length`` is its bit length; the value is normalised
    (truncated) to a 16-bit mantissa m with its top bit set, and ``r = (2**31 - 1) // m`` has 16
    bits, top bit set.

    >>> [part.tolist() for part in reciprocal(torch.tensor([1, 3, 1 << 20]))]
    [[65535, 43690, 65535], [1, 2, 21]]
    """
    length = bit_length(value)
    mantissa = torch.where(
        length > MANTISSA_BITS,
        value >> (length - MANTISSA_BITS).clamp(min=0),
        value << (MANTISSA_BITS - length).clamp(min=0),
    )
    return NUMERATOR // mantissa.clamp(min=1), length
