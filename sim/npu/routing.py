"""A mixture of experts as hardware runs it: every expert on the tokens of its queue only.

A graph is traced with every expert on every token and weights of zero for those that were not
chosen. On an NPU the gate's choice becomes a queue for each expert, the DMA reads the rows of a
queue, and the expert's weighted outputs are added to their rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import networkx as nx

from ...models.graph import Graph, MixtureRegion, Operator, TensorSpec

__all__ = ["even_queues", "routed"]


def even_queues(region: MixtureRegion) -> list[int]:
    """Tokens of each expert if they spread evenly, one more in the first ones: what is assumed of
    an image that nobody has looked at.
    """
    rows, experts = region.tokens * region.k, len(region.experts)
    return [rows // experts + (index < rows % experts) for index in range(experts)]


def routed(graph: Graph) -> Graph:
    """``graph`` with the experts' operators, and the products and sums behind them, on as many rows
    as their queues hold; the last sum gives all rows.
    """
    rows: dict[str, tuple[int, int]] = {}
    for region in graph.mixtures:
        queues = even_queues(region)
        for name, expert in _experts(graph, region).items():
            rows[name] = region.tokens, queues[expert]
    if not rows:
        return graph
    return Graph(
        graph.name,
        [_shortened(op, *rows[op.name]) if op.name in rows else op for op in graph.operators()],
        graph.tensors,
        regions=graph.regions,
        mixtures=graph.mixtures,
        unmapped=graph.unmapped,
        batched=graph.batched,
    )


def _experts(graph: Graph, region: MixtureRegion) -> Mapping[str, int]:
    """The expert that each operator up to ``combine`` works for; a sum, for the later one."""
    found = {name: e for e, expert in enumerate(region.experts) for name in expert}
    before = nx.ancestors(graph.digraph, region.combine)
    for op in graph.operators():
        read = [found[name] for name in op.inputs if name in found]
        if read and op.name not in found and op.name in before:
            found[op.name] = max(read)
    return found


def _shortened(op: Operator, tokens: int, rows: int) -> Operator:
    shape = op.output.shape
    if prod(shape[:-1]) != tokens:
        return op
    short = (*(1 for _ in shape[:-2]), rows, shape[-1])
    spec = TensorSpec(short, op.output.dtype)
    return replace(op, output=spec, macs=op.macs * rows // tokens)
