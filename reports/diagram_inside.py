"""The inside of one block for a picture of its model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import networkx as nx

from .diagram import (
    SEEN_THROUGH,
    Diagram,
    Node,
    Part,
    colour,
    cost,
    edges_between,
    products,
    reads,
    size,
)

if TYPE_CHECKING:
    from ..models.graph import Graph, Operator
    from ..models.regions import AttentionRegion, MixtureRegion

__all__ = ["inside"]

_MOST_NODES = 30
_Piece = tuple[str, Node, "tuple[Operator, ...]"]


def inside(graph: Graph, part: Part, title: str) -> Diagram:
    """The operators of one block with attention and experts as one node each; its modules where
    that would be too many.
    """
    pieces = _pieces(graph, part)
    if len(pieces) > _MOST_NODES:
        pieces = _by_child(part)
    owners = {op.name: key for key, _, members in pieces for op in members}
    own = {op.name for op in part.operators}
    sources: dict[str, Node] = {}
    for op in part.operators:
        for origin in (found for name in reads(op) for found in _origins(graph, name, own)):
            if origin.name not in sources:
                label = f"in from {origin.name}" if sources else "in"
                key = f"in{len(sources)}"
                sources[origin.name] = Node(key, label, "", "in and out", shape=size(origin.output))
    owners |= {name: node.key for name, node in sources.items()}
    edges = [edge for edge in edges_between(graph, owners) if not edge[1].startswith("in")]
    leaving = [op for op in part.operators if _leaves(graph, op.name, own)]
    ends = dict.fromkeys((owners[op.name], "out") for op in leaving)
    nodes = [*sources.values(), *(node for _, node, _ in pieces)]
    nodes.append(Node("out", "out", "", "in and out"))
    total = part.macs or 1
    shares = {key: sum(op.macs for op in members) / total for key, _, members in pieces}
    nodes = [replace(node, share=shares.get(node.key, 0.0)) for node in nodes]
    order = nx.DiGraph([*edges, *ends])
    order.add_nodes_from(node.key for node in nodes)
    place = {node.key: number for number, node in enumerate(nodes)}
    sorted_keys = nx.lexicographical_topological_sort(order, key=place.__getitem__)
    return Diagram(title, tuple(nodes[place[key]] for key in sorted_keys), (*edges, *ends))


def _pieces(graph: Graph, part: Part) -> list[_Piece]:
    """One piece for each operator, but for those of a mixture or an attention, which are one."""
    own = {op.name: op for op in part.operators}
    digraph = graph.digraph
    merged: dict[str, Node] = {}
    for number, mixture in enumerate(graph.mixtures):
        if mixture.combine in own:
            names = _mixture(digraph, mixture) & own.keys()
            macs = sum(own[name].macs for name in names)
            detail = f"top {mixture.k}, {products(macs)}"
            output = size(own[mixture.combine].output)
            title = f"{len(mixture.experts)} experts"
            node = Node(f"m{number}", title, detail, "experts", shape=output)
            merged |= dict.fromkeys(names, node)
    for number, region in enumerate(graph.regions):
        names = _between(digraph, {region.scores}, {region.apply}) & own.keys()
        names |= {region.scores, region.apply} & own.keys()
        if region.apply in own and _closed(digraph, names):
            output = size(own[region.apply].output)
            node = Node(f"a{number}", "attention", _attention(region), "attention", shape=output)
            merged |= dict.fromkeys(names, node)
    pieces: dict[str, tuple[Node, list[Operator]]] = {}
    for op in part.operators:
        title = op.name.removeprefix(f"{part.path}.") if part.path else op.name
        alone = Node(
            f"o{op.name}", title, cost((op,), op.macs), colour((op,)), shape=size(op.output)
        )
        node = merged.get(op.name, alone)
        pieces.setdefault(node.key, (node, []))[1].append(op)
    return [(key, node, tuple(members)) for key, (node, members) in pieces.items()]


def _attention(region: AttentionRegion) -> str:
    heads = "1 head" if region.heads == 1 else f"{region.heads} heads"
    keys = "" if region.keys == region.tokens else f" to {region.keys}"
    windows = f", {region.windows} windows" if region.windows > 1 else ""
    return f"{heads}, {region.tokens}{keys} x {region.head_dim}{windows}"


def _by_child(part: Part) -> list[_Piece]:
    """One piece for each run of operators of one module inside the block."""
    depth = len(part.path.split(".")) if part.path else 0
    runs: list[tuple[str, list[Operator]]] = []
    for op in part.operators:
        words = op.path.split(".")
        child = ".".join(words[: depth + 1]) if len(words) > depth else op.name
        if not runs or runs[-1][0] != child:
            runs.append((child, []))
        runs[-1][1].append(op)
    pieces: list[_Piece] = []
    for child, members in runs:
        node = Node(
            f"c{len(pieces)}",
            child.removeprefix(f"{part.path}."),
            cost(members, sum(op.macs for op in members)),
            colour(members),
            shape=size(members[-1].output),
        )
        pieces.append((node.key, node, tuple(members)))
    return pieces


def _mixture(digraph: nx.DiGraph, mixture: MixtureRegion) -> set[str]:
    """Operators of the experts, and what weights and sums their outputs."""
    firsts = {mixture.route, *(expert[0] for expert in mixture.experts)}
    names = _between(digraph, firsts, {mixture.combine})
    return (names | firsts | {mixture.combine}) - {mixture.route}


def _between(digraph: nx.DiGraph, first: set[str], last: set[str]) -> set[str]:
    """Operators on the ways from ``first`` to ``last``."""
    return _reached(digraph.successors, first) & _reached(digraph.predecessors, last)


def _closed(digraph: nx.DiGraph, names: set[str]) -> bool:
    """Whether no way leads out of ``names`` and back in: then they can be one node."""
    outside = {reader for name in names for reader in digraph.successors(name)} - names
    return not (outside | _reached(digraph.successors, outside)) & names


def _reached(step: Callable[[str], Iterable[str]], starts: set[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        for name in step(waiting.pop()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _origins(graph: Graph, name: str, own: set[str]) -> list[Operator]:
    """What ``name`` is outside of the block, seen through views; nothing for a constant."""
    op = graph.operator(name)
    if name in own or op.kind == "Constant":
        return []
    if op.kind in SEEN_THROUGH:
        return [origin for source in reads(op) for origin in _origins(graph, source, own)]
    return [op]


def _leaves(graph: Graph, name: str, own: set[str]) -> bool:
    """Whether an operator outside of the block reads ``name``, perhaps through views."""
    for reader in graph.consumers(name):
        if name not in reads(reader):
            continue
        if reader.kind in SEEN_THROUGH:
            if _leaves(graph, reader.name, own):
                return True
        elif reader.name not in own:
            return True
    return False
