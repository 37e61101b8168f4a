"""Multi-head attention on int8 codes, in exact integers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .matmul import matmul
from .requantize import Dyadic, requantize
from .softmax import SCORE_BITS, row_scale, softmax_weights

__all__ = ["AttentionCodes", "attention"]


@dataclass(frozen=True)
class AttentionCodes:
    """score: codes of q times codes of k to scores in 5 fraction bits; apply: value scale to
    output scale.
    """

    heads: int
    score: Dyadic
    apply: Dyadic


def attention(q: Tensor, k: Tensor, v: Tensor, codes: AttentionCodes) -> Tensor:
    """int8 codes (int64 storage) of the heads side by side.

    ``q``: [B, N, H*d], ``k``, ``v``: [B, M, H*d], int64 holding int8. Returns [B, N, H*d].
    """
    batch, tokens, features = q.shape
    split = (batch, -1, codes.heads, features // codes.heads)
    q, k, v = (x.reshape(split).transpose(1, 2) for x in (q, k, v))
    scores = requantize(
        matmul(q, k.transpose(-1, -2)), codes.score.multiplier, codes.score.shift, SCORE_BITS
    )
    weights, total = softmax_weights(scores)
    multiplier, shift = row_scale(total, codes.apply)
    mixed = matmul(weights, v)
    out = requantize(mixed, multiplier.unsqueeze(-1), shift.unsqueeze(-1), 8)
    return out.transpose(1, 2).reshape(batch, tokens, features)
