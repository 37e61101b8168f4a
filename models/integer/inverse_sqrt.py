"""Integer inverse square root of a positive integer as a 16-bit mantissa and an exponent."""

from __future__ import annotations

import torch
from torch import Tensor

from .reciprocal import bit_length

__all__ = ["RADICAND", "inverse_sqrt"]

RADICAND = (1 << 46) - 1


def inverse_sqrt(value: Tensor) -> tuple[Tensor, Tensor]:
    """``1 / sqrt(value)`` as (r, half) with ``1 / sqrt(value) ~ r / 2**(23 + half)``.

    ``value``: int64, at least 1, below 2**62. It is scaled by ``4**-half`` (truncated) to a
    mantissa m of 15 or 16 bits, half = (bit_length - 15) // 2, and r is the largest integer with
    ``r*r*m < 2**46``; r has 16 bits, top bit set.

    >>> [part.tolist() for part in inverse_sqrt(torch.tensor([1, 4, 1 << 30]))]
    [[65535, 65535, 65535], [-7, -6, 8]]
    """
    half = torch.div(bit_length(value) - 15, 2, rounding_mode="floor")
    mantissa = torch.where(
        half >= 0, value >> (2 * half).clamp(min=0), value << (-2 * half).clamp(min=0)
    )
    quotient = RADICAND // mantissa.clamp(min=1)
    # The quotient is below 2**32, so the correctly rounded float64 root has the exact floor.
    return quotient.to(torch.float64).sqrt().floor().to(torch.int64), half
