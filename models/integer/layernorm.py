"""LayerNorm of 16-bit codes: exact one-pass statistics, integer inverse square root, affine to 8
bits.

With S = sum(x) and Q = sum(x*x), ``V = D*Q - S*S`` is exactly D**2 times the variance, and
``(x - mean) / std = (D*x - S) / sqrt(V)``: no rounding happens before the inverse square root.
RMSNorm is the same with S taken as zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .inverse_sqrt import inverse_sqrt
from .rounding import round_shift, saturate

__all__ = ["MAX_WIDTH", "NORMAL_FRACTION", "LayerNormCodes", "layernorm", "normalise"]

NORMAL_FRACTION = 10
"""Fraction bits of the normalised value, 16 bits: |z| <= sqrt(D - 1) < 32 for D up to 1024."""
MAX_WIDTH = 1024


@dataclass(frozen=True)
class LayerNormCodes:
    """Integer affine of one layer: ``y = (z * gain + offset) >> shift`` with z in 10 fraction bits.

    ``gain``: int64 [D], 16-bit signed values; ``offset``: int64 [D], 32-bit signed values;
    ``shift``: 0 to 31;
    ``epsilon``: integer added to V, at least 1;
    ``bits``: width of the result; ``centred``: whether the mean is taken out (LayerNorm) or not
    (RMSNorm).
    """

    gain: Tensor
    offset: Tensor
    shift: int
    epsilon: int
    bits: int = 8
    centred: bool = True


def normalise(x: Tensor, epsilon: int, *, centred: bool = True) -> Tensor:
    """z = (x - mean) / std in 16 bits with 10 fraction bits; x: int64 [..., D] of 16-bit codes, D
    <= 1024. Not ``centred``: x over its root mean square.
    """
    width = x.shape[-1]
    total = x.sum(-1, keepdim=True) * int(centred)
    squares = (x * x).sum(-1, keepdim=True)
    r, half = inverse_sqrt(width * squares - total * total + epsilon)
    return saturate(round_shift((width * x - total) * r, half + (23 - NORMAL_FRACTION)), 16)


def layernorm(x: Tensor, codes: LayerNormCodes) -> Tensor:
    """Codes of ``codes.bits`` (int64 storage) of the layer norm over the last axis of 16-bit codes
    ``x`` [..., D].
    """
    z = normalise(x, codes.epsilon, centred=codes.centred)
    affine = round_shift(z * codes.gain + codes.offset, torch.tensor(codes.shift))
    return saturate(affine, codes.bits)
