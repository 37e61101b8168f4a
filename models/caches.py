"""The pass that tells what is kept from call to call from what is computed anew.

A graph keeps nothing itself: keys and values of earlier tokens, or the last vectors of a
convolution, come in as inputs and go out longer by what is new.
"""

from __future__ import annotations

from dataclasses import replace

from .editing import Edit
from .graph import Graph, Operator

__all__ = ["cached_inputs", "raise_caches"]


def raise_caches(graph: Graph) -> Graph:
    """A concatenation of an input of the graph, which nothing else reads, and something computed,
    along an axis other than the batch, becomes an Append: what was there stays where it is.
    """
    edit = Edit(graph)
    for op in edit.operators():
        if op.kind != "Concat" or len(op.inputs) != 2 or not op.attributes["dim"]:
            continue
        first, second = edit.sources(op)
        alone = first.kind == "Input" and edit.only_reader(first.name) is not None
        if alone and second.kind not in ("Input", "Constant"):
            edit.put(replace(op, kind="Append"))
    return edit.graph()


def cached_inputs(graph: Graph) -> list[Operator]:
    """The inputs of the graph that something is appended to."""
    return [graph.operator(op.inputs[0]) for op in graph.operators() if op.kind == "Append"]
