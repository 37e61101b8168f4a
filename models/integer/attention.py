"""Multi-head attention on int8 codes, in exact integers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .matmul import matmul_reference
from .requantize import Dyadic, requantize
from .rounding import saturate
from .softmax import SCORE_BITS, row_scale, softmax_weights

__all__ = ["AttentionCodes", "attention"]


@dataclass(frozen=True)
class AttentionCodes:
    """score: codes of q times codes of k to scores in 5 fraction bits; apply: value scale to
    output scale. bits: width of the result. bias: int64 score codes, [heads or 1, N, M], added
    with saturation before the softmax (a mask or a position bias), or None.
    """

    heads: int
    score: Dyadic
    apply: Dyadic
    bits: int = 8
    bias: Tensor | None = None


def attention(q: Tensor, k: Tensor, v: Tensor, codes: AttentionCodes) -> Tensor:
    """Codes of ``codes.bits`` (int64 storage) of the heads side by side.

    ``q``: [B, N, H*d], ``k``, ``v``: [B, M, H*d], int64 holding int8. Returns [B, N, H*d].
    """
    batch, tokens, features = q.shape
    split = (batch, -1, codes.heads, features // codes.heads)
    q, k, v = (x.reshape(split).transpose(1, 2) for x in (q, k, v))
    scores = requantize(
        matmul_reference(q, k.transpose(-1, -2)),
        codes.score.multiplier,
        codes.score.shift,
        SCORE_BITS,
    )
    if codes.bias is not None:
        scores = saturate(scores + codes.bias, SCORE_BITS)
    weights, total = softmax_weights(scores)
    multiplier, shift = row_scale(total, codes.apply)
    mixed = matmul_reference(weights, v)
    out = requantize(mixed, multiplier.unsqueeze(-1), shift.unsqueeze(-1), codes.bits)
    return out.transpose(1, 2).reshape(batch, tokens, features)
