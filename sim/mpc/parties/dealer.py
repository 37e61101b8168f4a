"""The dealer: gives each party a seed for its masks, and party 0 what makes the products come out.

It learns the shapes of the computation and the masks, none of the values; it must not work together
with a party.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .correlated import Masks, Order, correction, parse_order
from .link import Kind, Link
from .stream import RandomStream, fresh_seed

__all__ = ["ask", "corrections", "deal"]

_TOGETHER = 1 << 20
"""Words of one message, about."""
_MOST_ORDER = 1 << 26


def deal(
    first: Link, second: Link, *, test_seed: int | None = None, done: Callable[[int], None] | None
) -> None:
    """Serves one computation: seeds, the order of party 0, then corrections for every run, each
    when party 0 asks for it. ``done`` is called after each run with its number from 1.
    """
    seeds = [fresh_seed(test_seed, f"masks of party {rank}") for rank in (0, 1)]
    first.send(Kind.SEED, seeds[0])
    second.send(Kind.SEED, seeds[1])
    order = parse_order(first.receive(Kind.ORDER, _MOST_ORDER))
    masks = [Masks(RandomStream(seed), rank) for rank, seed in enumerate(seeds)]
    for name, shape in order.kept:
        for own in masks:
            own.keep(name, shape)
    for run in range(1, order.runs + 1):
        first.receive(Kind.NEXT, 0)
        for batch in _batches(order):
            words = [correction(order.requests[place], *masks).reshape(-1) for place in batch]
            first.send_words(Kind.CORRECTIONS, torch.cat(words))
        if done is not None:
            done(run)


def ask(link: Link, order: Order) -> None:
    """Party 0's order to the dealer."""
    link.send(Kind.ORDER, json.dumps(order.model_dump(), separators=(",", ":")).encode())


def corrections(link: Link, order: Order, alive: Callable[[], None]) -> Iterator[Tensor]:
    """What the dealer sends for one run, received at once: flat words for each request. ``alive``
    is called after each message of it.
    """
    link.send(Kind.NEXT, b"")
    found: list[Tensor] = []
    for batch in _batches(order):
        sizes = [order.requests[place].elements for place in batch]
        words = link.receive_words(Kind.CORRECTIONS, sum(sizes))
        found += torch.split(words, sizes)
        alive()
    return iter(found)


def _batches(order: Order) -> Iterator[list[int]]:
    """Requests that share a message."""
    batch: list[int] = []
    size = 0
    for place, request in enumerate(order.requests):
        batch.append(place)
        size += request.elements
        if size >= _TOGETHER:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
