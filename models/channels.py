"""Where the channels of a tensor come from and go to: what must be known to scale them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from .graph import AttentionRegion, Graph, Operator, evaluate

__all__ = ["Place", "parts", "places"]

_MOVES = ("View", "Select")
_NORMS = ("LayerNorm", "RmsNorm")


@dataclass(frozen=True)
class Place:
    """A tensor whose channels can be scaled without changing what the graph computes.

    name: the operator that writes it. writers: (tensor key, its entries along the first axis, one
    for each channel) to divide. readers: (weight key, operator that the product reads, its columns,
    one for each channel) to multiply.
    """

    name: str
    writers: tuple[tuple[str, Tensor], ...]
    readers: tuple[tuple[str, str, Tensor], ...]


def places(graph: Graph) -> Iterator[Place]:
    """Every such tensor of ``graph``: norms read only by Linears, and attentions' outputs, which
    scale with the rows of the value projection.

    Skipped are those whose parameters another operator shares, or that anything else reads.
    """
    uses = Counter(key for item in graph.operators() for key in item.tensors.values())
    uses.update(key for task in graph.tasks for key in task.values())
    for operator in graph.operators():
        if operator.kind in _NORMS and "weight" in operator.tensors:
            place = _norm(graph, operator)
        else:
            region = next((item for item in graph.regions if item.apply == operator.name), None)
            place = _attention(graph, region) if region is not None else None
        if place is None:
            continue
        keys = [key for key, _ in place.writers] + [key for key, _, _ in place.readers]
        if all(uses[key] == 1 for key in keys) and len(set(keys)) == len(keys):
            yield place


def parts(graph: Graph) -> dict[str, list[Tensor]]:
    """Of the weights that project queries, keys or values: the rows of each of the three, by key.

    Several of them may lie in one weight, or each in its own.
    """
    found: dict[str, list[Tensor]] = {}
    for region in graph.regions:
        scores, apply = graph.operator(region.scores), graph.operator(region.apply)
        for source in (*scores.inputs[:2], apply.inputs[1]):
            traced = _origin(graph, source)
            if traced is not None:
                projection, index = traced
                features = (index % projection.output.shape[-1]).flatten().tolist()
                rows = torch.tensor(sorted(set(features)))
                found.setdefault(projection.tensors["weight"], []).append(rows)
    return found


def _norm(graph: Graph, norm: Operator) -> Place | None:
    width = norm.output.shape[-1]
    channel = torch.arange(prod(norm.output.shape)).reshape(norm.output.shape) % width
    readers = _readers(graph, norm.name, channel)
    if readers is None:
        return None
    every = torch.arange(width)
    if any(graph.tensors[key].shape != (width,) for key in norm.tensors.values()):
        return None
    return Place(norm.name, tuple((key, every) for key in norm.tensors.values()), readers)


def _attention(graph: Graph, region: AttentionRegion) -> Place | None:
    source = graph.operator(region.apply).inputs[1]
    traced = _origin(graph, source)
    if traced is None:
        return None
    projection, index = traced
    features = projection.output.shape[-1]
    shape = index.shape
    if len(shape) < 3 or len(graph.consumers(source)) != 1:
        return None
    # [heads, keys, head_dim]: every key must hold the same features of the projection.
    rows = (index % features).reshape(-1, *shape[-2:])
    if not torch.equal(rows, rows[:, :1].expand_as(rows)) or rows.shape[0] != region.heads:
        return None
    channels = rows[:, 0].flatten()
    if len(set(channels.tolist())) != len(channels):
        return None
    output = graph.operator(region.apply).output.shape
    place = torch.arange(len(channels)).reshape(region.heads, 1, -1)
    if prod(output[:-2]) != region.heads:
        return None
    channel = place.expand(region.heads, *output[-2:]).reshape(output)
    readers = _readers(graph, region.apply, channel)
    if readers is None:
        return None
    keys = (projection.tensors[role] for role in ("weight", "bias") if role in projection.tensors)
    return Place(region.apply, tuple((key, channels) for key in keys), readers)


def _origin(graph: Graph, name: str) -> tuple[Operator, Tensor] | None:
    """The Linear that ``name`` is a rearrangement of, and for each element its index there."""
    chain: list[Operator] = []
    operator = graph.operator(name)
    while operator.kind in _MOVES:
        chain.append(operator)
        operator = graph.operator(operator.inputs[0])
    if operator.kind != "Linear":
        return None
    index = torch.arange(prod(operator.output.shape)).reshape(operator.output.shape)
    for move in reversed(chain):
        index = evaluate(move, [index], graph)
    return operator, index


def _readers(
    graph: Graph, name: str, channel: Tensor
) -> tuple[tuple[str, str, Tensor], ...] | None:
    """The Linears that read ``name``, rearranged or not; None if anything else does.

    ``channel`` numbers the channel of each element of ``name``.
    """
    found: list[tuple[str, str, Tensor]] = []
    for reader in graph.consumers(name):
        if reader.kind in _MOVES:
            behind = _readers(graph, reader.name, evaluate(reader, [channel], graph))
            if behind is None:
                return None
            found.extend(behind)
            continue
        table = channel.reshape(-1, channel.shape[-1])
        if reader.kind != "Linear" or not torch.equal(table, table[:1].expand_as(table)):
            return None
        order = torch.argsort(table[0])
        if not torch.equal(table[0][order], torch.arange(len(order))):
            return None
        key = reader.tensors["weight"]
        keys = [key, *(task[key] for task in graph.tasks if key in task)]
        found.extend((key, name, order) for key in keys)
    return tuple(found) or None
