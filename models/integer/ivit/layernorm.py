"""I-LayerNorm: mean, exact sum of squares, integer square root and one reciprocal for each row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..rounding import saturate

__all__ = [
    "Affine",
    "Root",
    "affine",
    "half_even_quotient",
    "integer_root",
    "layernorm",
    "mean_half_even",
]

Root = Literal["exact", "newton"]
"""``exact`` rounds the square root down; ``newton`` is the published code's: ten steps from 2**16,
which have not converged for roots of up to 185.
"""

_TOP = (1 << 31) - 1
_FRACTION = 30
_STEPS = 10


@dataclass(frozen=True)
class Affine:
    """The affine part of a row: bias int64 [C], 32-bit codes; alive: int64 [C], 0 where gamma is
    zero and only the bias is left. scale: float64 [C], of each channel's results; it may be
    negative.
    """

    bias: Tensor
    alive: Tensor
    scale: Tensor


def affine(gamma: Tensor, beta: Tensor) -> Affine:
    """What becomes of the float parameters [C].

    ``bias = floor((beta / gamma) / (sqrt(C) / 2**30))``, saturated to 32 bits, where the published
    code wraps from ``|beta / gamma| = 2 sqrt(C)`` on. A channel without gamma gets the scale with
    which its bias is 2**30.
    """
    width = len(gamma)
    gamma, beta = gamma.to(torch.float64), beta.to(torch.float64)
    step = math.sqrt(width) / (1 << _FRACTION)
    alive = gamma != 0
    ratio = torch.where(alive, beta / torch.where(alive, gamma, 1.0) / step, 0.0)
    bias = torch.floor(ratio).clamp(-(2.0**31), 2.0**31 - 1).to(torch.int64)
    bias = torch.where(alive, bias, torch.where(beta != 0, 1 << _FRACTION, 0))
    scale = torch.where(alive, gamma * step, torch.where(beta != 0, beta / (1 << _FRACTION), 1.0))
    return Affine(bias, alive.to(torch.int64), scale)


def mean_half_even(codes: Tensor) -> Tensor:
    """The mean of the last axis, rounded to nearest, ties to even: int64 [..., 1].

    >>> mean_half_even(torch.tensor([[1, 2], [2, 3], [-1, -2]])).flatten().tolist()
    [2, 2, -2]
    """
    return half_even_quotient(codes.sum(-1, keepdim=True), codes.shape[-1])


def half_even_quotient(total: Tensor, width: int) -> Tensor:
    """``total / width`` of int64 values, rounded to nearest, ties to even.

    >>> half_even_quotient(torch.tensor([3, 5, -3]), 2).tolist()
    [2, 2, -2]
    """
    floor = torch.div(total, width, rounding_mode="floor")
    twice = 2 * (total - floor * width)
    up = (twice > width) | ((twice == width) & (floor % 2 == 1))
    return floor + up.to(torch.int64)


def integer_root(value: Tensor, root: Root = "exact") -> Tensor:
    """The square root of int64 values below 2**52, rounded down, at least 1; or what ten steps of
    Newton's method from 2**16 give.

    >>> integer_root(torch.tensor([0, 99, 100, 10_000])).tolist()
    [1, 9, 10, 100]
    >>> integer_root(torch.tensor([0, 100, 10_000]), "newton").tolist()
    [64, 64, 108]
    """
    if root == "exact":
        found = value.to(torch.float64).sqrt().to(torch.int64)
        found = found - (found * found > value).to(torch.int64)
        found = found + ((found + 1) * (found + 1) <= value).to(torch.int64)
        return found.clamp(min=1)
    guess = torch.full_like(value, 1 << 16)
    for _ in range(_STEPS):
        guess = (guess + torch.div(value, guess, rounding_mode="floor")) >> 1
    return guess


def layernorm(codes: Tensor, parameters: Affine, root: Root = "exact") -> Tensor:
    """int64 [..., C], 32 bits, at the scale of each channel.

    codes: int64 [..., C], 16 bits, of any scale. ``epsilon`` is not there: a row of equal codes
    gives the biases. The sum of squares needs 32 + log2(C) bits.
    """
    centred = codes - mean_half_even(codes)
    spread = integer_root(centred.square().sum(-1, keepdim=True), root)
    normal = (centred * torch.div(_TOP, spread, rounding_mode="floor")) >> 1
    return saturate(normal * parameters.alive + parameters.bias, 32)
