"""Dyadic requantization of I-ViT: a 31-bit multiplier, a shift, and a stated rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..rounding import round_shift, saturate

__all__ = ["MAX_SHIFT", "Dyadic31", "Rounding", "add_requantized", "dyadic31", "requantize31"]

Rounding = Literal["half-even", "half-up", "half-away"]
"""Where a tie goes: to the even neighbour (PyTorch), up (a rounding adder), away from zero
(NVDLA).
"""

MAX_SHIFT = 63
"""Shifts beyond 62 give zero whatever the code, so this one stands for all of them."""

_BITS = 31


@dataclass(frozen=True)
class Dyadic31:
    """The ratio ``multiplier / 2**shift``: magnitude of the multiplier in [2**30, 2**31), or 0."""

    multiplier: int
    shift: int


def dyadic31(ratio: float) -> Dyadic31:
    """The nearest such number to ``ratio``, ties away from zero; negative ratios are allowed.

    Raises ValueError for a ratio that is not finite, or whose magnitude is 2**30 or more.

    >>> dyadic31(0.0123), dyadic31(-0.02)
    (Dyadic31(multiplier=1690499128, shift=37), Dyadic31(multiplier=-1374389535, shift=36))
    """
    if not (math.isfinite(ratio) and abs(ratio) < 2.0 ** (_BITS - 1)):
        raise ValueError(f"dyadic ratio: expected a magnitude below 2**30, got {ratio!r}")
    mantissa, exponent = math.frexp(abs(ratio))
    multiplier = math.floor(math.ldexp(mantissa, _BITS) + 0.5)
    shift = _BITS - exponent
    if multiplier == 1 << _BITS:
        multiplier, shift = multiplier >> 1, shift - 1
    if multiplier == 0 or shift > MAX_SHIFT:
        return Dyadic31(0, 1)
    return Dyadic31(multiplier if ratio > 0 else -multiplier, shift)


def requantize31(
    codes: Tensor,
    multiplier: Tensor | int,
    shift: Tensor | int,
    bits: int,
    rounding: Rounding = "half-even",
) -> Tensor:
    """``saturate(round(codes * multiplier / 2**shift))`` to ``bits`` signed bits.

    codes: int64 holding 32-bit values; multiplier and shift (1 to 63) broadcast to it. The product
    has 63 bits and is exact, unlike the float64 product of the published code.

    >>> requantize31(torch.tensor([1000, 12345, -12345]), 1690499128, 37, 8).tolist()
    [12, 127, -128]
    """
    product = codes * multiplier
    shift = torch.as_tensor(shift, dtype=torch.int64)
    near = shift.clamp(max=MAX_SHIFT - 1)
    if rounding == "half-even":
        rounded = round_shift(product, near)
    else:
        half = torch.ones_like(near) << (near - 1)
        size = product.abs() if rounding == "half-away" else product
        rounded = (size + half) >> near
        if rounding == "half-away":
            rounded = rounded * product.sign()
    # A product is below 2**62, so behind 63 places it is less than half a step.
    return saturate(torch.where(shift < MAX_SHIFT, rounded, 0), bits)


def add_requantized(
    left: Tensor, left_factor: Dyadic31, right: Tensor, right_factor: Dyadic31, bits: int = 16
) -> Tensor:
    """The residual addition of I-ViT: each branch is requantized, saturated to 32 bits and rounded
    on its own, then they are added and saturated. One rounding of the wide sum would differ.

    >>> half = dyadic31(0.5)
    >>> add_requantized(torch.tensor([1, 3]), half, torch.tensor([1, 3]), half).tolist()
    [0, 4]
    """
    parts = [
        requantize31(codes, factor.multiplier, factor.shift, 32)
        for codes, factor in ((left, left_factor), (right, right_factor))
    ]
    return saturate(parts[0] + parts[1], bits)
