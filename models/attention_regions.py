"""Finds the attentions of a graph whose products, scales and masks have one form already."""

from __future__ import annotations

from math import prod

from .editing import rebuilt
from .graph import Graph, Operator
from .grouped_queries import shared_groups
from .kind import number
from .regions import AttentionRegion

__all__ = ["find_regions"]


def find_regions(graph: Graph) -> Graph:
    """MatMul, perhaps an Add of a mask or bias, Softmax over the last axis, MatMul: one region
    each.
    """
    regions = []
    for softmax in graph.operators():
        if softmax.kind != "Softmax" or softmax.attributes["dim"] != -1:
            continue
        source, bias = graph.operator(softmax.inputs[0]), ""
        if source.kind == "Add":
            if len(graph.consumers(source.name)) != 1:
                continue
            products = [name for name in source.inputs if _scores(graph, name)]
            if not products:
                continue
            source, bias = graph.operator(products[0]), source.name
        readers = graph.consumers(softmax.name)
        if not _scores(graph, source.name) or len(readers) != 1 or readers[0].kind != "MatMul":
            continue
        if readers[0].inputs[0] != softmax.name or source.output.shape != softmax.output.shape:
            continue
        shape = source.output.shape
        heads = _heads(graph, source)
        shared = {_shared(graph, product.inputs[1], heads) for product in (source, readers[0])}
        kv_heads = shared.pop() if len(shared) == 1 else 0
        regions.append(
            AttentionRegion(
                scores=source.name,
                softmax=softmax.name,
                apply=readers[0].name,
                heads=heads,
                tokens=shape[-2],
                head_dim=graph.operator(source.inputs[0]).output.shape[-1],
                scale=number(source.attributes, "scale"),
                keys=shape[-1],
                bias=bias,
                windows=prod(shape[:-2]) // heads,
                kv_heads=kv_heads,
            )
        )
    return rebuilt(graph, graph.operators(), regions=regions) if regions else graph


def _scores(graph: Graph, name: str) -> bool:
    """Whether the operator is a product of queries and keys, [..., N, d] both, read once."""
    op = graph.operator(name)
    if op.kind != "MatMul" or not op.attributes["transpose_b"]:
        return False
    return len(graph.consumers(name)) == 1


def _shared(graph: Graph, name: str, heads: int) -> int:
    """How many keys or values the heads share; 0 when each has its own."""
    shape = graph.operator(name).output.shape
    if len(shape) == 4 and shape[1] == 1 < heads:
        return 1
    return shared_groups(graph.operator, name)


def _heads(graph: Graph, scores: Operator) -> int:
    """How many of the leading axes' attentions are heads of one image or window.

    The axis before the tokens is the heads. Where the leading axes are one axis that carries the
    batch too, the view that made it of queries or keys tells: it split the features into heads, or
    merged an axis of heads.
    """
    lead = scores.output.shape[:-2]
    if not lead:
        return 1
    if len(lead) > 1:
        return lead[-1]
    for name in scores.inputs:
        heads = _split(graph, graph.operator(name))
        if heads > 1 and lead[0] % heads == 0:
            return heads
    return 1


def _split(graph: Graph, op: Operator) -> int:
    """The heads that the view above an operand made, or 1."""
    while op.kind in ("View", "Mul", "L2Normalize", "Add", "Select", "Concat"):
        source = graph.operator(op.inputs[0])
        before, after = source.output.shape, op.output.shape
        if op.kind == "View" and op.attributes["op"] == "reshape" and len(before) > 1:
            if len(before) > 3 and before[-2:] == after[-2:]:
                return before[-3]
            if before[-1] != after[-1]:
                return before[-1] // after[-1]
        op = source
    return 1
