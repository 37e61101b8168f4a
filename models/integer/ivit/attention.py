"""The attention of I-ViT: scores of 8 bits, `shiftmax` of 16, values weighted by it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..matmul import matmul_reference
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
    query, key, value = (
        x.reshape(*x.shape[:-1], codes.heads, -1).transpose(-3, -2) for x in (q, k, v)
    )
    products = matmul_reference(query, key.transpose(-1, -2))
    scores = requantize31(products, codes.score.multiplier, codes.score.shift, 8)
    mixed = matmul_reference(shiftmax(scores, codes.a, n=codes.n), value)
    out = requantize31(mixed, codes.apply.multiplier, codes.apply.shift, codes.bits)
    return out.transpose(-3, -2).reshape(q.shape)
