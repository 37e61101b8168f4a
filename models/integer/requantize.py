"""Dyadic requantization: multiply by an integer, shift right with ties to even, saturate.

The multiplier has 16 bits (`MULTIPLIER_BITS`), so a 32-bit accumulator times it fits 48 bits and a
DSP48E2 pair. Its relative error is at most 2**-16, far below half a step of an 8-bit result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .rounding import round_shift, saturate

__all__ = ["MULTIPLIER_BITS", "SHIFT_BITS", "Dyadic", "dyadic", "dyadic_tensor", "requantize"]

MULTIPLIER_BITS = 16
SHIFT_BITS = 6


@dataclass(frozen=True)
class Dyadic:
    """The ratio ``multiplier / 2**shift``: multiplier 16 bits unsigned, shift 0 to 63."""

    multiplier: int
    shift: int


def dyadic(ratio: float) -> Dyadic:
    """The nearest 16-bit dyadic number to ``ratio`` (0 <= ratio < 2**15).

    >>> dyadic(0.5)
    Dyadic(multiplier=32768, shift=16)
    """
    if not (math.isfinite(ratio) and 0 <= ratio < 2.0 ** (MULTIPLIER_BITS - 1)):
        raise ValueError(f"dyadic ratio: expected 0 <= ratio < 2**15, got {ratio!r}")
    mantissa, exponent = math.frexp(ratio)
    multiplier = round(math.ldexp(mantissa, MULTIPLIER_BITS))
    shift = MULTIPLIER_BITS - exponent
    if multiplier == 1 << MULTIPLIER_BITS:
        multiplier, shift = multiplier >> 1, shift - 1
    if multiplier == 0 or shift >= 1 << SHIFT_BITS:
        return Dyadic(0, 0)
    return Dyadic(multiplier, shift)


def dyadic_tensor(ratios: Tensor) -> tuple[Tensor, Tensor]:
    """`dyadic` of each element of a 1-D tensor: (multipliers, shifts), both int64."""
    pairs = [dyadic(float(ratio)) for ratio in ratios.tolist()]
    return (
        torch.tensor([pair.multiplier for pair in pairs], dtype=torch.int64),
        torch.tensor([pair.shift for pair in pairs], dtype=torch.int64),
    )


def requantize(
    accumulator: Tensor, multiplier: Tensor | int, shift: Tensor | int, bits: int
) -> Tensor:
    """``saturate(round_half_even(accumulator * multiplier / 2**shift))`` to ``bits`` signed bits.

    ``accumulator``: int64 holding 32-bit values; ``multiplier`` and ``shift`` broadcast to it.

    >>> requantize(torch.tensor([3, -3, 10_000]), 32768, 16, 8).tolist()
    [2, -2, 127]
    """
    return saturate(round_shift(accumulator * multiplier, shift), bits)
