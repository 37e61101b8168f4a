"""Narrowing an integer: explicit rounding and explicit saturation, nothing wraps."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["round_shift", "saturate"]


def round_shift(value: Tensor, shift: Tensor | int) -> Tensor:
    """``value / 2**shift`` rounded to nearest, ties to even, as int64.

    ``value``: int64, any shape; ``shift``: int or int64 broadcastable to it, 0 to 62.
    For two's complement numbers this is ``(v + 2**(s-1) - 1 + bit0(v >> s)) >> s``.

    >>> round_shift(torch.tensor([1, 3, 5, -1, -3, -5]), 1).tolist()
    [0, 2, 2, 0, -2, -2]
    """
    shift = torch.as_tensor(shift, dtype=torch.int64)
    floor = value >> shift
    half = torch.where(shift > 0, (torch.ones_like(shift) << (shift - 1).clamp(min=0)) - 1, 0)
    odd = torch.where(shift > 0, floor & 1, 0)
    return (value + half + odd) >> shift


def saturate(value: Tensor, bits: int, *, signed: bool = True) -> Tensor:
    """Clamp to the range of a ``bits`` wide integer.

    >>> saturate(torch.tensor([-300, 5, 300]), 8).tolist()
    [-128, 5, 127]
    """
    if signed:
        return value.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return value.clamp(0, (1 << bits) - 1)
