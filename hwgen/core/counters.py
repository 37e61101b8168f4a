"""The counters by which engines wait for each other, and the comparison that does it."""

from __future__ import annotations

from enum import IntEnum

from amaranth.hdl import Value

__all__ = ["COUNTER_BITS", "Counter", "modular", "reached"]

COUNTER_BITS = 24


class Counter(IntEnum):
    """What an instruction can wait for. Each counter only grows, modulo 2**COUNTER_BITS."""

    NONE = 0
    """Nothing to wait for."""
    DRAINED = 1
    """Rows of products that stand complete in their destination."""
    WEIGHED = 2
    """Rows of scores whose softmax weights and reciprocal sum are stored."""
    NORMALISED = 3
    """Rows that stand normalised."""
    FETCHED = 4
    """Transfers from memory that are complete, those of the boot left out."""
    ISSUED = 5
    """Products of which every word has been read, or that had no rows."""
    ROUTED = 6
    """Tokens that stand in the queues of their experts."""


def reached(count: Value, threshold: Value) -> Value:
    """Whether ``count`` has come to ``threshold``: less than half the range lies between them."""
    return ~(count - threshold)[COUNTER_BITS - 1]


def modular(threshold: int) -> int:
    """A threshold as an instruction holds it; one of an earlier image is negative.

    >>> hex(modular(-1))
    '0xffffff'
    """
    return threshold % (1 << COUNTER_BITS)
