"""Correlated randomness: the triples that a dealer gives to two parties ahead of a computation
(Beaver, CRYPTO 1991).

Both parties stretch their shares from seeds that the dealer gave them; only the last share of party
0, which must make the product come out, is sent. So a dealer's traffic is one word for each element
of a product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from ....errors import VitruviusError
from . import ring
from .stream import RandomStream

__all__ = [
    "Masks",
    "Order",
    "Request",
    "Window",
    "correction",
    "parse_order",
    "product",
]

_MOST_ELEMENTS = 1 << 31


class Window(BaseModel):
    """How a convolution slides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


class Request(BaseModel):
    """One piece of correlated randomness, known by shapes only.

    kind: ``multiply``, ``and``, ``matmul`` or ``convolve`` of two masks of ``shapes``; ``square``
    of one; ``bit``: a random bit both as a word and as one bit. output: shape of the product. kept:
    the name of a second mask that is used again, empty for a fresh one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(pattern="^(multiply|and|matmul|convolve|square|bit)$")
    shapes: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    window: Window | None = None
    kept: str = ""

    @property
    def elements(self) -> int:
        """Words that the dealer sends to party 0."""
        return math.prod(self.output)


def product(request: Request, x: Tensor, y: Tensor) -> Tensor:
    """What the request multiplies, modulo 2^64 (or bit by bit)."""
    if request.kind == "and":
        return x & y
    if request.kind == "matmul":
        return torch.matmul(x, y)
    if request.kind == "convolve":
        assert request.window is not None
        w = request.window
        return ring.convolve(
            x, y, stride=w.stride, padding=w.padding, dilation=w.dilation, groups=w.groups
        )
    return x * y


@dataclass
class Masks:
    """The masks of one party, drawn from its seed in the order of the requests.

    ``rank`` 0 has all but the last share of each request from the seed, ``rank`` 1 all.
    """

    stream: RandomStream
    rank: int

    def __post_init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def draw(self, request: Request) -> tuple[Tensor, ...]:
        """Shares of the operands, and at rank 1 that of the product."""
        if request.kind == "bit":
            drawn = [self.stream.bits(request.shapes[0])]
        else:
            drawn = [self.stream.words(request.shapes[0])]
        if len(request.shapes) > 1:
            drawn.append(self._second(request))
        if self.rank == 1:
            drawn.append(self.stream.words(request.output))
        return tuple(drawn)

    def keep(self, name: str, shape: Sequence[int]) -> Tensor:
        """The mask called ``name``, the same every time."""
        if name not in self._kept:
            self._kept[name] = self.stream.words(shape)
        return self._kept[name]

    def _second(self, request: Request) -> Tensor:
        shape = request.shapes[1]
        return self.keep(request.kept, shape) if request.kept else self.stream.words(shape)


def correction(request: Request, first: Masks, second: Masks) -> Tensor:
    """The last share of party 0: what makes both shares of the product add up to it."""
    mine, theirs = first.draw(request), second.draw(request)
    if request.kind == "bit":
        return (mine[0] ^ theirs[0]) - theirs[1]
    if request.kind == "and":
        return ((mine[0] ^ theirs[0]) & (mine[1] ^ theirs[1])) ^ theirs[2]
    if request.kind == "square":
        whole = mine[0] + theirs[0]
        return whole * whole - theirs[1]
    return product(request, mine[0] + theirs[0], mine[1] + theirs[1]) - theirs[2]


class Order(BaseModel):
    """What a computation needs of a dealer: ``kept`` masks of weights by name, with their shapes,
    for all runs, then ``requests`` in order for each of ``runs`` runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: tuple[Request, ...]
    kept: tuple[tuple[str, tuple[int, ...]], ...] = ()
    runs: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        shapes = [shape for item in self.requests for shape in (*item.shapes, item.output)]
        for shape in [*shapes, *(shape for _, shape in self.kept)]:
            if min(shape, default=1) < 1 or math.prod(shape) > _MOST_ELEMENTS:
                raise ValueError(f"impossible shape {list(shape)}")
        return self

    @property
    def elements(self) -> int:
        """Words that party 0 gets from the dealer in one run."""
        return sum(item.elements for item in self.requests)


def parse_order(text: bytes) -> Order:
    """An order as JSON; what is malformed or too large is refused."""
    try:
        return Order.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise VitruviusError(f"expected an order of masks from party 0: {problem}") from None
