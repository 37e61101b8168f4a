"""ShiftExp: a power of two with a straight line between octaves in the place of an exponential.

``exp(x) = 2**(x log2 e)``, with ``log2 e`` taken as 1.4375 (1 + 1/2 - 1/16) and ``2**t`` on (-1, 0]
as ``1 + t/2``: at most 6.15 % too large. The codes' step is replaced by the next smaller ``1/a``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["reciprocal_step", "shift_exp"]

_MOST_PLACES = 40


def reciprocal_step(scale: float, *, nearest: bool = False) -> int:
    """``a``: 1 / ``scale`` in float32, rounded up as I-ViT does, or to the ``nearest`` integer,
    which halves the mean error of a row of probabilities.

    Raises ValueError for a scale that is not positive and finite.

    >>> reciprocal_step(0.05), reciprocal_step(0.03)
    (20, 34)
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale: expected a positive number, got {scale!r}")
    inverse = float(1 / torch.tensor(scale, dtype=torch.float32))
    return max(1, round(inverse) if nearest else math.ceil(inverse))


def shift_exp(codes: Tensor, a: int, n: int) -> Tensor:
    """int64 codes of ``exp(codes / a)``, in units of ``1 / (a * 2**n)``.

    codes: int64, any shape. The argument is cut at ``-n`` octaves: codes of at most 0 give results
    between ``a`` and ``a * 2**n``. Codes above 0, which ShiftGELU has for a row that is negative
    throughout, give more; beyond 2**31 - 1, where its sum saturates, how much more is not kept.

    >>> shift_exp(torch.tensor([0, -1, -34, -255]), 34, 15).tolist()
    [1114112, 1097728, 442368, 656]
    """
    octaves = (codes + (codes >> 1) - (codes >> 4)).clamp(min=-n * a)
    whole = torch.div(-octaves, a, rounding_mode="floor")
    line = 2 * a + octaves + a * whole  # twice 1 + t/2, in units of 1/a
    places = (n - whole - 1).clamp(max=_MOST_PLACES)
    return torch.where(places >= 0, line << places.clamp(min=0), line >> (-places).clamp(min=0))
