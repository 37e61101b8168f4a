"""What a float tensor has become on the way to the integer model, before its code format is
chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from .graph import AttentionRegion, Operator

__all__ = [
    "Assembly",
    "Codes",
    "Constant",
    "Image",
    "Pending",
    "Scores",
    "Stream",
    "Value",
]


@dataclass(frozen=True)
class Pending:
    """A product whose code format is not chosen yet. index: int64, the graph tensor's shape, into
    [tokens, features].
    """

    producer: Operator
    tokens: int
    features: int
    index: Tensor


@dataclass(frozen=True)
class Codes:
    """int8 codes of an emitted operator, rearranged by index as in `Pending`."""

    operator: str
    tokens: int
    features: int
    scale: float
    index: Tensor


@dataclass(frozen=True)
class Stream:
    """The int16 residual stream after an emitted Embed or Add."""

    operator: str


@dataclass(frozen=True)
class Assembly:
    """A patch embedding placed behind constant tokens, plus constants: not emitted until the
    stream begins.
    """

    patches: Pending
    constant: Tensor
    first_token: int


@dataclass(frozen=True)
class Constant:
    """A float tensor known before any image."""

    value: Tensor


@dataclass(frozen=True)
class Image:
    """The input, not quantized yet."""

    operator: Operator


@dataclass(frozen=True)
class Scores:
    """Inside an attention region: what its parts have collected."""

    region: AttentionRegion


Value: TypeAlias = Pending | Codes | Stream | Assembly | Constant | Image | Scores
