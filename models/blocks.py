"""Blocks of language models in a graph: gated short convolutions, gated MLPs, caches and scans.

They are found where they are asked for; nothing is kept in the graph, and no operator changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from .graph import Graph, Operator
from .kind import whole

__all__ = ["Block", "blocks_of"]

_MOVES = frozenset({"View", "Select", "Pad", "Append"})
_ACTIVATIONS = frozenset({"Silu", "Gelu", "QuickGelu", "Relu", "Sigmoid"})


@dataclass(frozen=True)
class Block:
    """One block: ``kind`` is "gated short convolution", "gated MLP", "cache" or "scan".

    ``operators`` name its parts: of a convolution the product before, the depthwise convolution,
    and the product behind it; of an MLP the activation, the product of both branches, and the
    Linear behind it; of a cache the Append; of a scan the Scan. ``width`` is the number of
    channels, ``size`` the kernel, the hidden width, or the tokens that are kept or gone through.
    """

    kind: str
    path: str
    operators: tuple[str, ...]
    width: int
    size: int


def blocks_of(graph: Graph) -> list[Block]:
    """All blocks in the order of the graph."""
    found: list[Block] = []
    for op in graph.operators():
        if op.kind == "Conv2d":
            found.extend(_short_convolution(graph, op))
        elif op.kind in _ACTIVATIONS:
            found.extend(_gated_mlp(graph, op))
        elif op.kind == "Append":
            dim = whole(op.attributes, "dim")
            size = graph.operator(op.inputs[0]).output.shape[dim]
            width = prod(op.output.shape[1:]) // op.output.shape[dim]
            found.append(Block("cache", op.path, (op.name,), width, size))
        elif op.kind == "Scan":
            dim = whole(op.attributes, "dim")
            size = op.output.shape[dim]
            found.append(
                Block("scan", op.path, (op.name,), prod(op.output.shape[1:]) // size, size)
            )
    return found


def _short_convolution(graph: Graph, op: Operator) -> Iterator[Block]:
    """Product of two computed values, depthwise convolution of one row, product, Linear."""
    weight = graph.tensors[op.tensors["weight"]]
    if weight.shape[1] != 1 or weight.shape[2] != 1 or op.attributes["groups"] != len(weight):
        return
    before = _above(graph, op)
    behind = _below(graph, op)
    if before is None or behind is None or {before.kind, behind.kind} != {"Mul"}:
        return
    if not _computed(graph, before) or not _computed(graph, behind):
        return
    names = (before.name, op.name, behind.name)
    yield Block("gated short convolution", op.path, names, len(weight), weight.shape[3])


def _gated_mlp(graph: Graph, op: Operator) -> Iterator[Block]:
    """An activation of one Linear times another Linear, into a Linear."""
    product = _below(graph, op)
    if product is None or product.kind != "Mul":
        return
    others = [name for name in product.inputs if name != op.name]
    behind = _below(graph, product)
    gate = _source(graph, op.inputs[0])
    if behind is None or behind.kind != "Linear" or gate.kind != "Linear" or len(others) != 1:
        return
    if _source(graph, others[0]).kind != "Linear":
        return
    hidden = product.output.shape[-1]
    names = (op.name, product.name, behind.name)
    yield Block("gated MLP", op.path, names, behind.output.shape[-1], hidden)


def _computed(graph: Graph, product: Operator) -> bool:
    """Whether both factors depend on the input."""
    return all(graph.operator(name).kind != "Constant" for name in product.inputs)


def _source(graph: Graph, name: str) -> Operator:
    """What an operand is a view or part of."""
    op = graph.operator(name)
    while op.kind in ("View", "Select"):
        op = graph.operator(op.inputs[0])
    return op


def _above(graph: Graph, op: Operator) -> Operator | None:
    """What an operator reads, through moves; of an Append what is new."""
    op = graph.operator(op.inputs[0])
    while op.kind in _MOVES:
        op = graph.operator(op.inputs[-1])
    return op


def _below(graph: Graph, op: Operator) -> Operator | None:
    """The only reader, through views and parts."""
    readers = graph.consumers(op.name)
    while len(readers) == 1 and readers[0].kind in ("View", "Select"):
        readers = graph.consumers(readers[0].name)
    return readers[0] if len(readers) == 1 else None
