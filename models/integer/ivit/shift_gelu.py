"""ShiftGELU: ``x * sigmoid(1.702 x)`` with `shift_exp` and an integer division for each element.

Two modes. The *faithful* one is the published code's: both exponentials are taken relative to the
row's maximum. That has two faults, which the *safe* one does not have. A reciprocal of 31 bits
leaves few significant bits of the quotient, so large results come out up to half too small; and
where the row's maximum exceeds 9.4, both exponentials are at the end of their range, and strongly
negative x gives x/2 in the place of 0. In the safe mode an element is compared with 0 only, which
is the same sigmoid, needs no pass for the maximum, and divides with 48 bits.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .shift_exp import reciprocal_step, shift_exp

__all__ = ["LARGEST_STEP", "OCTAVES", "SLOPE", "Mode", "gelu_step", "shift_gelu", "shift_sigmoid"]

Mode = Literal["faithful", "safe"]
OCTAVES = 23
SLOPE = 1.702
_TOP = (1 << 31) - 1
LARGEST_STEP = _TOP // (2 << OCTAVES)
"""The largest ``a`` with which the sum of both exponentials cannot saturate, 127."""
_WIDE = (1 << 48) - 1


def gelu_step(scale: float) -> int:
    """``a`` of the sigmoid's argument, for codes with step ``scale``.

    >>> gelu_step(0.03)
    20
    """
    return reciprocal_step(SLOPE * scale)


def shift_sigmoid(codes: Tensor, a: int, mode: Mode = "faithful", *, n: int = OCTAVES) -> Tensor:
    """The sigmoid of rows of codes: int64 [..., N], 0 to 128, in units of 1/128.

    codes: int64 [..., N], 8 bits; ``a`` as `gelu_step` gives it.

    >>> row = torch.tensor([-128, -60, -20, -5, 0, 5, 20, 60, 100, 127])
    >>> shift_sigmoid(row, 20).tolist()
    [0, 6, 36, 58, 63, 73, 94, 121, 126, 120]
    >>> shift_sigmoid(row, 20, "safe").tolist()
    [0, 6, 36, 57, 63, 70, 91, 121, 127, 127]
    """
    largest = codes.amax(-1, keepdim=True) if mode == "faithful" else codes.clamp(min=0)
    own, other = shift_exp(codes - largest, a, n), shift_exp(-largest, a, n)
    total = (own + other).clamp(max=_TOP)
    if mode == "faithful":
        return (own * torch.div(_TOP, total, rounding_mode="floor")) >> 24
    return (own * torch.div(_WIDE, total, rounding_mode="floor")) >> 41


def shift_gelu(codes: Tensor, a: int, mode: Mode = "faithful", *, n: int = OCTAVES) -> Tensor:
    """int64 [..., N], 16 bits, at 1/128 of the codes' own scale.

    >>> row = torch.tensor([-128, -60, -20, -5, 0, 5, 20, 60, 100, 127])
    >>> shift_gelu(row, 20).tolist()
    [0, -360, -720, -290, 0, 365, 1880, 7260, 12600, 15240]
    """
    return codes * shift_sigmoid(codes, a, mode, n=n)
