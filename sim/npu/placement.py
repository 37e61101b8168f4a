"""Where every tensor of a graph lies on an NPU, how wide it is, and which operators run as one.

A tensor stays in the activation buffer from the operator that writes it to the last one that reads
it, if the tensors that stay at the same time leave room; otherwise it goes to DRAM and comes back.
Tensors are placed in the order in which they are written, so that the answer does not depend on
chance. Views and selections are addresses of another tensor and take no room. An attention is done
head by head: of scores and softmax outputs, one head's take room, or two where heads overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

from ...models.graph import Graph, Operator
from .gemm import Place
from .target import NpuTarget
from .vector import elementwise

__all__ = ["ADDRESSING", "MOVES", "PRODUCTS", "ROWS", "Placement", "place"]

PRODUCTS = frozenset({"Conv2d", "ConvTranspose2d", "Linear", "MatMul"})
ADDRESSING = frozenset({"View", "Select", "RepeatBatch"})
"""The next operator's DMA reads the same bytes in another order."""
MOVES = frozenset({"Concat", "Pad", "Roll", "Flip", "Index", "Unfold", "Resize"})
"""Copied by the DMA from one tensor to another (a Resize only to the nearest neighbour)."""
ROWS = frozenset({"Append", "Embedding"})
"""Copied by the DMA too: new rows behind what is kept, rows of a table by token numbers."""
_GIVEN = frozenset({"Input", "Constant"})


@dataclass
class Placement:
    """What is known of the tensors of a graph.

    base: the operator that wrote the bytes that an operator's output names. behind: the elementwise
    operators that work on a product's tiles, in order, by product. bits: of an element, by base.
    where: by base. peak_bytes: most bytes in the activation buffer at a time.
    """

    base: dict[str, str] = field(default_factory=dict)
    behind: dict[str, tuple[str, ...]] = field(default_factory=dict)
    bits: dict[str, int] = field(default_factory=dict)
    where: dict[str, Place] = field(default_factory=dict)
    peak_bytes: int = 0

    @property
    def inside(self) -> dict[str, str]:
        """The product in whose tiles an operator works."""
        return {name: product for product, names in self.behind.items() for name in names}

    def last(self, name: str) -> str:
        """The operator whose output leaves the tiles of a product."""
        return (self.behind.get(name) or (name,))[-1]


def place(graph: Graph, target: NpuTarget, host: Iterable[str]) -> Placement:
    """The placement of ``graph`` on ``target``; ``host``: operators that the NPU does not run,
    whose operands and results go through DRAM.
    """
    found = Placement()
    operators = graph.operators()
    number = {op.name: position for position, op in enumerate(operators)}
    for op in operators:
        free = op.kind in ADDRESSING or op.kind == "Output"
        found.base[op.name] = found.base[op.inputs[0]] if free else op.name
    if target.vector.fused:
        taken: set[str] = set()
        for op in operators:
            if op.kind in PRODUCTS:
                found.behind[op.name] = _behind(op, graph, target, number, taken)
                taken.update(found.behind[op.name])
    found.bits = _bits(graph, target)
    _reside(graph, target, found, number, frozenset(host))
    return found


def _behind(
    product: Operator,
    graph: Graph,
    target: NpuTarget,
    number: Mapping[str, int],
    taken: set[str],
) -> tuple[str, ...]:
    """Elementwise operators of the same shape that follow a product one by one, whose other
    operands are there before it.
    """
    chain: list[str] = []
    now = product
    while True:
        readers = graph.consumers(now.name)
        if len(readers) != 1 or readers[0].inputs.count(now.name) != 1:
            return tuple(chain)
        after = readers[0]
        others = [graph.operator(name) for name in after.inputs if name != now.name]
        ready = all(o.kind in _GIVEN or number[o.name] < number[product.name] for o in others)
        if (
            after.name in taken
            or after.output.shape != product.output.shape
            or elementwise(after, target, behind_product=True) is None
            or not ready
        ):
            return tuple(chain)
        chain.append(after.name)
        now = after


def _bits(graph: Graph, target: NpuTarget) -> dict[str, int]:
    """Bits of every operator's output: softmax outputs, the residual stream (sums outside of an
    attention, and what goes into nothing but such sums), activations; indices and flags as they
    are.
    """
    widths = target.widths
    scores = {region.bias for region in graph.regions}
    found: dict[str, int] = {}
    into_sums: dict[str, bool] = {}
    for op in reversed(graph.operators()):
        readers = graph.consumers(op.name)
        into_sums[op.name] = bool(readers) and all(
            (reader.kind == "Add" and reader.name not in scores)
            or (reader.kind in ADDRESSING | MOVES and into_sums[reader.name])
            for reader in readers
        )
    for op in graph.operators():
        if op.output.dtype == "bool":
            found[op.name] = 8
        elif not op.output.dtype.startswith(("float", "bfloat")):
            found[op.name] = 32
        elif op.kind == "Softmax":
            found[op.name] = widths.probability
        elif op.kind in ADDRESSING | MOVES | {"Output"}:
            found[op.name] = max(found[name] for name in op.inputs)
        elif (op.kind == "Add" and op.name not in scores) or (
            into_sums[op.name] and op.kind != "Input"
        ):
            found[op.name] = widths.residual
        else:
            found[op.name] = widths.activation
    return found


def _reside(
    graph: Graph,
    target: NpuTarget,
    found: Placement,
    number: Mapping[str, int],
    host: frozenset[str],
) -> None:
    inside = found.inside
    # Read and written when the product in whose tiles they work is done.
    when = {name: number[inside.get(name, name)] for name in number}
    until: dict[str, int] = {}
    forced = set(graph.outputs)
    for op in graph.operators():
        for source in op.inputs:
            base = found.base[source]
            until[base] = max(until.get(base, 0), when[op.name])
            if op.kind == "Output" or op.name in host:
                forced.add(base)
        if op.kind == "Append":
            forced.add(op.name)
    one = {}
    for region in graph.regions:
        for name in (region.scores, region.bias, region.softmax):
            one[name] = (region.kv_heads or region.heads) * region.windows
    together = 2 if target.vector.overlap_heads else 1
    capacity = target.buffers.activation_kib * 1024
    used = [0] * len(number)
    for op in graph.operators():
        base = op.name
        if found.base[base] != base or base not in until:
            continue
        found.where[base] = "dram"
        if op.kind in _GIVEN or base in forced or base in host:
            continue
        if found.last(inside.get(base, base)) != base:
            continue  # an element at a time, in the vector unit
        attentions = one.get(base, 1)
        size = -(-prod(op.output.shape) * found.bits[base] // (8 * attentions))
        size *= min(together, attentions)
        span = range(when[base], until[base] + 1)
        if size + max(used[step] for step in span) <= capacity:
            found.where[base] = "chip"
            for step in span:
                used[step] += size
    found.peak_bytes = max(used, default=0)
