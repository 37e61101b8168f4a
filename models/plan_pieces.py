"""What the fast steps of all schemes share: work in pieces that fit a cache, and the narrowing of
floats that hold integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["PIECE", "Step", "narrow", "pieces"]

PIECE = 1 << 16
"""Elements handled at a time after an accumulator: 512 KiB of float64."""

Step: TypeAlias = Callable[[Sequence[Tensor]], Tensor]
"""The codes of an operator from those of its inputs, all in floats [B, tokens, features]."""


def pieces(source: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of views of both along the first axis, about `PIECE` elements each."""
    row = source[0].numel() if source.dim() > 1 and len(source) else 1
    size = max(1, PIECE // max(1, row))
    return zip(torch.split(source, size), torch.split(target, size), strict=True)


def narrow(value: Tensor, bits: int) -> Tensor:
    """Rounds to even and saturates to ``bits`` signed, in place.

    >>> narrow(torch.tensor([0.5, 1.5, -2.5, 300.0]), 8).tolist()
    [0.0, 2.0, -2.0, 127.0]
    """
    return value.round_().clamp_(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
