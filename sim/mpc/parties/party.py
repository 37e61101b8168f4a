"""One of two parties that hold additive shares of numbers modulo 2^64, and what both can do with
them: locally, or in rounds of messages.

A share is an int64 tensor; shares of a value add up to its fixed-point number. Products are
Beaver's, with masks that a dealer prepared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ....errors import VitruviusError
from . import ring
from .correlated import Masks, Request, Window, product
from .link import Link
from .stream import RandomStream

__all__ = ["Party"]

_HALF = 16
"""Bits of a public factor: enough for a relative error of 2^-17."""


class Party:
    """Party ``rank`` (0 or 1) with ``fraction_bits`` behind the point.

    ``common`` is the stream that both parties have, ``own`` one that nobody else has.
    ``corrections`` are the last shares that party 0 got from the dealer, in the order in which they
    are needed. ``rounds`` counts the rounds so far, ``dealt`` the words
    that the dealer had to send party 0 for them.
    """

    def __init__(
        self,
        rank: int,
        link: Link | None,
        *,
        common: RandomStream | None,
        own: RandomStream | None,
        masks: Masks | None,
        fraction_bits: int,
    ) -> None:
        self.rank = rank
        self.fraction_bits = fraction_bits
        self.rounds = 0
        self.dealt = 0
        self.corrections: Iterator[Tensor] | None = None
        self._link = link
        self._common = common
        self._own = own
        self._masks = masks
        self._opened: dict[str, Tensor] = {}

    # -- without messages ----------------------------------------------------------------------

    def public(self, value: float | Tensor) -> Tensor:
        """The share of a value that both know: all of it at party 0."""
        words = ring.encode(torch.as_tensor(value), self.fraction_bits)
        return words if self.rank == 0 else torch.zeros_like(words)

    def public_whole(self, value: int) -> int:
        """The share of a whole number that is no fixed-point one."""
        return value if self.rank == 0 else 0

    def shared(self, values: Tensor | None, owner: int, shape: Sequence[int]) -> Tensor:
        """A share of what the party ``owner`` knows, ``values`` (floats of ``shape``, None at the
        other party): blinded by words that both can make, so nothing is sent.
        """
        blind = self._words(shape)
        if self.rank != owner:
            return blind
        assert values is not None
        return ring.encode(values, self.fraction_bits) - blind

    def truncated(self, share: Tensor, bits: int | None = None) -> Tensor:
        """The value over 2^bits, ``fraction_bits`` if not told: each share over it, rounded to
        zero.
        """
        return ring.truncate(share, self.fraction_bits if bits is None else bits)

    def scaled(self, share: Tensor, factor: float) -> Tensor:
        """The value times a public number."""
        mantissa, exponent = math.frexp(factor)
        if float(factor).is_integer() and abs(factor) < 1 << _HALF:
            return share * int(factor)
        if mantissa == 0.5:
            return self.truncated(share, 1 - exponent)
        bits = _HALF - exponent
        if bits < 0:
            raise VitruviusError(f"expected a public factor below 2^{_HALF}, got {factor:g}")
        return self.truncated(share * round(factor * 2.0**bits), bits)

    def divided(self, share: Tensor, divisor: int) -> Tensor:
        """The value over a whole number, each share rounded to zero."""
        return torch.div(share, divisor, rounding_mode="trunc")

    # -- one round each ------------------------------------------------------------------------

    def open(self, *shares: Tensor) -> list[Tensor]:
        """The words behind shares, for both: one round for all of them."""
        return [a + b for a, b in zip(shares, self._exchange(shares), strict=True)]

    def multiply(self, x: Tensor, y: Tensor, *, truncate: bool = True) -> Tensor:
        """Product with broadcasting; ``truncate`` where both are fixed-point numbers."""
        output = np.broadcast_shapes(x.shape, y.shape)
        request = Request(kind="multiply", shapes=(tuple(x.shape), tuple(y.shape)), output=output)
        return self._product(request, x, y, truncate)

    def square(self, x: Tensor) -> Tensor:
        """The square of fixed-point numbers."""
        shape = tuple(x.shape)
        mask, squared = self._prepared(Request(kind="square", shapes=(shape,), output=shape))
        (seen,) = self.open(x - mask)
        found = squared + 2 * seen * mask
        return self.truncated(found + seen * seen if self.rank == 0 else found)

    def multiply_and_square(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x y and y^2 of fixed-point numbers of one shape, in one round."""
        shape = tuple(x.shape)
        a, b, c = self._prepared(Request(kind="multiply", shapes=(shape, shape), output=shape))
        mask, squared = self._prepared(Request(kind="square", shapes=(shape,), output=shape))
        left, right, seen = self.open(x - a, y - b, y - mask)
        found = c + left * (b + right if self.rank == 0 else b) + a * right
        own = squared + 2 * seen * mask + (seen * seen if self.rank == 0 else 0)
        return self.truncated(found), self.truncated(own)

    def matmul(self, x: Tensor, y: Tensor, *, weight: str = "") -> Tensor:
        """[..., M, K] by [..., K, N]. ``weight`` names a ``y`` whose masked value was opened."""
        lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        output = (*lead, x.shape[-2], y.shape[-1])
        request = Request(
            kind="matmul", shapes=(tuple(x.shape), tuple(y.shape)), output=output, kept=weight
        )
        return self._product(request, x, y, True)

    def convolve(self, x: Tensor, y: Tensor, window: Window, *, weight: str = "") -> Tensor:
        """[B, C, H, W] by [O, C / groups, kh, kw], as `ring.convolve`."""
        shape = product(
            Request(kind="convolve", shapes=(), output=(), window=window),
            x.to("meta"),
            y.to("meta"),
        ).shape
        request = Request(
            kind="convolve",
            shapes=(tuple(x.shape), tuple(y.shape)),
            output=tuple(shape),
            window=window,
            kept=weight,
        )
        return self._product(request, x, y, True)

    def keep_weights(self, weights: Sequence[tuple[str, Tensor]]) -> None:
        """Opens the difference of every weight and its mask once, for all products to come."""
        if not weights:
            return
        blinded = [share - self._kept(name, share) for name, share in weights]
        for (name, _), seen in zip(weights, self.open(*blinded), strict=True):
            self._opened[name] = seen

    def both(self, x: Tensor, y: Tensor) -> Tensor:
        """AND of two words whose shares are combined by exclusive or."""
        output = np.broadcast_shapes(x.shape, y.shape)
        a, b, c = self._prepared(
            Request(kind="and", shapes=(tuple(x.shape), tuple(y.shape)), output=output)
        )
        mine = (x ^ a, y ^ b)
        left, right = (p ^ q for p, q in zip(mine, self._exchange(mine), strict=True))
        found = c ^ (left & b) ^ (a & right)
        return found ^ (left & right) if self.rank == 0 else found

    def arithmetic(self, bit: Tensor) -> Tensor:
        """Shares that add up to a bit (not a fixed-point number) from shares of it that are
        combined by exclusive or, in the lowest bit of a word.
        """
        shape = tuple(bit.shape)
        binary, words = self._prepared(Request(kind="bit", shapes=(shape,), output=shape))
        mine = (bit & 1) ^ binary
        seen = mine ^ self._exchange((mine,))[0]
        found = words * (1 - 2 * seen)
        return found + seen if self.rank == 0 else found

    # -- shares of bits ------------------------------------------------------------------------

    def binary(self, x: Tensor, owner: int) -> Tensor:
        """A share, combined by exclusive or, of the word ``x`` that the party ``owner`` knows."""
        blind = self._words(tuple(x.shape))
        return x ^ blind if self.rank == owner else blind

    def random_bits(self, shape: Sequence[int]) -> Tensor:
        """Shares of bits that neither party knows."""
        return self._own_bits(tuple(shape))

    # -- below ---------------------------------------------------------------------------------

    def _product(self, request: Request, x: Tensor, y: Tensor, truncate: bool) -> Tensor:
        a, b, c = self._prepared(request)
        if request.kept:
            (left,) = self.open(x - a)
            right = self._opened[request.kept]
        else:
            left, right = self.open(x - a, y - b)
        other = b + right if self.rank == 0 else b
        found = c + product(request, left, other) + product(request, a, right)
        return self.truncated(found) if truncate else found

    def _exchange(self, parts: Sequence[Tensor]) -> list[Tensor]:
        self.rounds += 1
        assert self._link is not None
        return self._link.exchange(parts)

    def _prepared(self, request: Request) -> tuple[Tensor, ...]:
        assert self._masks is not None
        self.dealt += request.elements
        drawn = self._masks.draw(request)
        if self.rank == 1:
            return drawn
        assert self.corrections is not None
        return (*drawn, next(self.corrections).reshape(request.output))

    def _kept(self, name: str, share: Tensor) -> Tensor:
        assert self._masks is not None
        return self._masks.keep(name, tuple(share.shape))

    def _words(self, shape: Sequence[int]) -> Tensor:
        assert self._common is not None
        return self._common.words(shape)

    def _own_bits(self, shape: Sequence[int]) -> Tensor:
        assert self._own is not None
        return self._own.bits(shape)
