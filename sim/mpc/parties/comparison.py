"""Signs, equality and maxima of shared numbers, by binary addition of the two shares."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .party import Party
from .ring import sign_bit

__all__ = ["equal", "largest", "negative", "relu", "select"]

_STAGES = (1, 2, 4, 8, 16, 32)
_UNIFORM_BITS = 16


def negative(party: Party, x: Tensor) -> Tensor:
    """1 where ``x`` is below 0, else 0: a whole number, not a fixed-point one.

    The shares are shared bit by bit and added by a parallel prefix adder (Kogge and Stone 1973) in
    seven rounds; the highest bit is turned into a word in the eighth.
    """
    left, right = party.binary(x, 0), party.binary(x, 1)
    carried = party.both(left, right)
    alone = left ^ right
    spread = alone
    for stage in _STAGES:
        twice = torch.stack([spread, spread])
        taken = party.both(twice, torch.stack([carried << stage, spread << stage]))
        carried, spread = carried ^ taken[0], taken[1]
    total = alone ^ (carried << 1)
    return party.arithmetic(sign_bit(total))


def equal(party: Party, x: Tensor, y: Tensor) -> Tensor:
    """1 where ``x`` equals ``y``, else 0: the shares of the difference are each other's negative,
    and a tree of ANDs says whether all 64 bits agree.
    """
    difference = x - y
    same = ~difference if party.rank == 0 else -difference
    for stage in reversed(_STAGES):
        same = party.both(same, same >> stage)
    return party.arithmetic(same & 1)


def select(party: Party, bit: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``x`` where the secret bit is 1, ``y`` where it is 0: two products, one after another."""
    kept = party.multiply(x, bit, truncate=False)
    return kept + party.multiply(y, _not(party, bit), truncate=False)


def relu(party: Party, x: Tensor) -> Tensor:
    """The larger of ``x`` and 0."""
    return party.multiply(x, _not(party, negative(party, x)), truncate=False)


def largest(party: Party, x: Tensor, way: str) -> Tensor:
    """The maximum over the last axis, [..., n] to [..., 1].

    way: ``tree`` of max(u, v) = relu(u - v) + v; ``pairs``: all against all at once; ``reduction``
    as CrypTen has it: floor(ln n) halvings, then all against all, then the index of the maximum,
    which nobody asked for.
    """
    if x.shape[-1] == 1:
        return x
    if way == "tree":
        return _by_tree(party, x)
    if way == "pairs":
        return _chosen(party, x, _sampled(party, _winners(party, x)))
    rest = x
    for _ in range(math.floor(math.log(x.shape[-1]))):
        rest = _halved(party, rest)
    top = _chosen(party, rest, _sampled(party, _winners(party, rest)))
    _sampled(party, equal(party, x, top.expand(x.shape)))
    return top


def _by_tree(party: Party, x: Tensor) -> Tensor:
    while (length := x.shape[-1]) > 1:
        half = length // 2
        left, right = x[..., :half], x[..., half : 2 * half]
        found = relu(party, left - right) + right
        x = torch.cat([found, x[..., 2 * half :]], -1)
    return x


def _halved(party: Party, x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    left, right = x[..., :half], x[..., half : 2 * half]
    found = select(party, negative(party, left - right), right, left)
    return torch.cat([found, x[..., 2 * half :]], -1)


def _winners(party: Party, x: Tensor) -> Tensor:
    """1 where an element of the last axis is not below any other: the product of its comparisons
    with all others, as a tree.
    """
    length = x.shape[-1]
    if length == 1:
        ones = torch.ones_like(x)
        return ones if party.rank == 0 else torch.zeros_like(x)
    others = torch.stack([x.roll(-place, -1) for place in range(1, length)])
    wins = _not(party, negative(party, x - others))
    while (count := wins.shape[0]) > 1:
        half = count // 2
        found = party.multiply(wins[:half], wins[half : 2 * half], truncate=False)
        wins = torch.cat([found, wins[2 * half :]])
    return wins[0]


def _sampled(party: Party, wins: Tensor) -> Tensor:
    """One of the ones along the last axis, drawn evenly where there are several: the first whose
    count passes a secret uniform share of their number.
    """
    counts = wins.cumsum(-1)
    total = counts[..., -1:]
    drawn = party.arithmetic(party.random_bits((_UNIFORM_BITS, *total.shape)))
    weights = torch.tensor([1 << place for place in range(_UNIFORM_BITS)], device=drawn.device)
    uniform = (drawn * weights.reshape(-1, *[1] * total.dim())).sum(0)
    bound = party.multiply(uniform, total, truncate=False)
    passed = negative(party, bound - (counts << _UNIFORM_BITS))
    before = torch.cat([torch.zeros_like(passed[..., :1]), passed[..., :-1]], -1)
    return passed - before


def _chosen(party: Party, x: Tensor, one_hot: Tensor) -> Tensor:
    return party.multiply(x, one_hot, truncate=False).sum(-1, keepdim=True)


def _not(party: Party, bit: Tensor) -> Tensor:
    return (1 if party.rank == 0 else 0) - bit
