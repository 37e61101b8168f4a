"""Balanced trees over the lanes of a chunk: depth log2 of the number of terms."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Mux, Signal, Value

__all__ = ["highest", "summed"]


def summed(terms: Sequence[Value]) -> Value:
    """Sum of at least one term, as wide as it needs to be."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return summed(terms[:middle]) + summed(terms[middle:])


def highest(m: Module, terms: Sequence[Value], *, name: str) -> Value:
    """Maximum of at least one signed term of one shape; its nodes are signals called ``name``."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    left = highest(m, terms[:middle], name=f"{name}_l")
    right = highest(m, terms[middle:], name=f"{name}_r")
    node = Signal(terms[0].shape(), name=name)
    m.d.comb += node.eq(Mux(left > right, left, right))
    return node
