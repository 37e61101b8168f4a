"""What a model takes of an NPU's external memory, and whether that is more than it may take.

Weights with their scales lie there all the time, and so do keys, values and states that are kept
between tokens. An activation lies there from the operator that writes it to the last one that
reads it, whether or not a copy is on the chip; what is worked on tile by tile inside another
operator never does. Scores and softmax outputs of an attention are those of all heads, or of one,
as the target says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from ...models.graph import Graph
from .placement import ADDRESSING, Placement
from .target import NpuTarget

__all__ = ["MemoryUse", "memory_use", "weight_bytes"]

_NAMED = 4


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of a model in external memory.

    weight_bytes: all weights. kv_bytes: keys and values kept from earlier tokens or, where there
    are none, for later ones; state_bytes: other states kept. activation_bytes: most that is alive
    at once, at the operator ``at``. limit_bytes: what the target allows, None where nothing is
    known. scores: of an attention in memory at once. largest: what takes most at the peak.
    """

    weight_bytes: int
    kv_bytes: int
    state_bytes: int
    activation_bytes: int
    at: str
    limit_bytes: int | None
    scores: str
    largest: tuple[tuple[str, int], ...]

    @property
    def peak_bytes(self) -> int:
        """Weights, what is kept, and the most of activations."""
        return self.weight_bytes + self.kv_bytes + self.state_bytes + self.activation_bytes

    @property
    def fits(self) -> bool:
        """Whether the peak is within the limit, if there is one."""
        return self.limit_bytes is None or self.peak_bytes <= self.limit_bytes


def weight_bytes(graph: Graph, target: NpuTarget) -> int:
    """Bytes of all weights: matrices and kernels with their scales, everything else (biases, norms,
    positions) with the accumulator's width; a tensor that two operators share counts once.
    """
    widths, total = target.widths, 0
    seen: set[str] = set()
    for op in graph.operators():
        for role, key in sorted(op.tensors.items()):
            if key in seen:
                continue
            seen.add(key)
            shape = tuple(graph.tensors[key].shape)
            if role == "weight" and len(shape) > 1:
                total += widths.weight_bytes(shape[0], prod(shape[1:]))
            elif op.params:
                total += -(-prod(shape) * widths.accumulator // 8)
    return total


def memory_use(graph: Graph, target: NpuTarget, placement: Placement) -> MemoryUse:
    """What ``graph`` takes on ``target``, whose tensors lie as ``placement`` says."""
    whole = target.memory is None or target.memory.scores == "all heads"
    inside, operators = placement.inside, graph.operators()
    number = {op.name: place for place, op in enumerate(operators)}
    kept = _kept(graph, placement)
    until: dict[str, int] = {}
    for op in operators:
        for source in op.inputs:
            until[placement.base[source]] = number[inside.get(op.name, op.name)]
    size: dict[str, int] = {}
    heads = {
        name: (region.kv_heads or region.heads) * region.windows
        for region in graph.regions
        for name in (region.scores, region.bias, region.softmax)
    }
    kv_bytes = state_bytes = 0
    appended = {op.inputs[0] for op in operators if op.kind == "Append"}
    for op in operators:
        if placement.base[op.name] != op.name or op.name not in until:
            continue
        if op.kind == "Constant" or op.name in appended:
            continue
        values = op.output.shape
        if op.kind == "Append":
            values = graph.operator(op.inputs[0]).output.shape
        found = -(-prod(values) * placement.bits[op.name] // 8)
        if op.name in kept:
            kv_bytes += found
        elif op.kind == "Append":
            state_bytes += found
        elif op.kind in ADDRESSING or placement.last(inside.get(op.name, op.name)) != op.name:
            continue
        else:
            size[op.name] = found if whole else -(-found // heads.get(op.name, 1))
    begins = {name: number[inside.get(name, name)] for name in size}
    changes = [0] * (len(operators) + 1)
    for name, found in size.items():
        changes[begins[name]] += found
        changes[until[name] + 1] -= found
    alive = peak = place = 0
    for step, change in enumerate(changes):
        alive += change
        if alive > peak:
            peak, place = alive, step
    parts: dict[str, int] = {
        name: found for name, found in size.items() if begins[name] <= place <= until[name]
    }
    weights = weight_bytes(graph, target)
    parts |= {"weights": weights, "keys and values": kv_bytes, "states": state_bytes}
    return MemoryUse(
        weight_bytes=weights,
        kv_bytes=kv_bytes,
        state_bytes=state_bytes,
        activation_bytes=peak,
        at=operators[place].name if operators else "",
        limit_bytes=None if target.memory is None else target.memory.limit_mib << 20,
        scores="all heads" if whole else "one head",
        largest=_largest(parts),
    )


def _kept(graph: Graph, placement: Placement) -> set[str]:
    """The tensors that attentions read as keys or values and that the caller gets or gave."""
    read = {
        placement.base[graph.operator(name).inputs[1]]
        for region in graph.regions
        for name in (region.scores, region.apply)
    }
    given = {placement.base[graph.operator(name).inputs[0]] for name in graph.outputs}
    return {name for name in read if name in given or graph.operator(name).kind == "Append"}


def _largest(parts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    found = sorted(((name, size) for name, size in parts.items() if size), key=lambda i: -i[1])
    return tuple(found[:_NAMED])
