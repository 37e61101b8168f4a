"""The attention of I-ViT: scores of 8 bits, `shiftmax` of 16, values weighted by it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .dyadic import Dyadic31, requantize31
from .shiftmax import shiftmax

__all__ = ["ShiftAttention", "attention"]


@dataclass(frozen=True)
class ShiftAttention:
    """Parameters of one attention. score: from a product of queries and keys to 8-bit scores; a:
    their step for the exponential, n: its octaves; apply: from weighted values to ``bits`` wide
    codes.
    """

    heads: int
    score: Dyadic31
    a: int
    n: int
    apply: Dyadic31
    bits: int


def attention(q: Tensor, k: Tensor, v: Tensor, codes: ShiftAttention) -> Tensor:
    """int64 [B, N, D] from int64 8-bit queries, keys and values [B, N, D], heads side by side."""
    parts = [x.reshape(*x.shape[:-1], codes.heads, -1).transpose(-3, -2) for x in (q, k, v)]
    # Exact in float64: sums stay below 2**53 by far.
    query, key, value = (part.to(torch.float64) for part in parts)
    products = (query @ key.transpose(-1, -2)).to(torch.int64)
    scores = requantize31(products, codes.score.multiplier, codes.score.shift, 8)
    weights = shiftmax(scores, codes.a, n=codes.n).to(torch.float64)
    mixed = (weights @ value).to(torch.int64)
    out = requantize31(mixed, codes.apply.multiplier, codes.apply.shift, codes.bits)
    return out.transpose(-3, -2).reshape(q.shape)
