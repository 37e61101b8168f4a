"""What a float tensor has become on the way to the integer model, before its code format is
chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from .graph import Operator
from .regions import AttentionRegion, MixtureRegion

__all__ = [
    "Assembly",
    "Codes",
    "Constant",
    "Image",
    "Inside",
    "Mixed",
    "Normed",
    "Pending",
    "Scores",
    "Stream",
    "Total",
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
    """The int16 residual stream after an emitted operator, rearranged by index as in `Pending`."""

    operator: str
    tokens: int
    features: int
    index: Tensor


@dataclass(frozen=True)
class Normed:
    """The norm ``operator`` of the emitted stream ``source``, not emitted until a reader says
    whether it wants codes or the stream; rearranged by index as in `Pending`.
    """

    operator: Operator
    source: str
    tokens: int
    features: int
    index: Tensor


@dataclass(frozen=True)
class Assembly:
    """Patch embeddings among constant tokens, plus constants: not emitted until the stream begins.

    index: the graph tensor's shape, into [tokens, features] of the patches, -1 where there is no
    patch; constant: the same shape, float, added everywhere.
    """

    patches: Pending
    index: Tensor
    constant: Tensor


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
    """Inside an attention region: what its parts have collected. ``bias`` is added to the
    scores.
    """

    region: AttentionRegion
    bias: Tensor | None = None


@dataclass(frozen=True)
class Inside:
    """A tensor inside a mixture of experts, which is emitted as a whole."""

    region: MixtureRegion


@dataclass(frozen=True)
class Mixed:
    """The weighted sum of experts: it waits for the residual stream that it is added to."""

    region: MixtureRegion
    gate: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Total:
    """``factor`` times the sum of two products (the two heads of a distilled model)."""

    left: Pending
    right: Pending
    factor: float


Value: TypeAlias = (
    Pending
    | Codes
    | Stream
    | Normed
    | Assembly
    | Constant
    | Image
    | Scores
    | Inside
    | Mixed
    | Total
)
