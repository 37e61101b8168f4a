"""The nouns of a picture: nodes, diagrams, and the parts of a graph that a node stands for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .quantities import quantity
from .table import shape

if TYPE_CHECKING:
    from ..models.graph import Graph, Operator, TensorSpec

__all__ = [
    "COLOURS",
    "SEEN_THROUGH",
    "Diagram",
    "Node",
    "Part",
    "colour",
    "cost",
    "edges_between",
    "owners_of",
    "products",
    "reads",
    "size",
]

# operators that name values which others made: a picture shows what they come from
SEEN_THROUGH = frozenset({"View", "Select", "RepeatBatch"})

_KINDS: dict[str, tuple[str, ...]] = {
    "product": ("Linear", "Conv2d", "MatMul"),
    "norm": ("LayerNorm", "RmsNorm", "BatchNorm", "GroupNorm", "Normalize"),
    "activation": (
        *("Gelu", "QuickGelu", "Relu", "Silu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid"),
        *("Softmax", "Exp", "LeakyRelu", "Clamp"),
    ),
    "routing": ("TopK", "Gate", "Gather", "Scatter"),
    "movement": ("Concat", "Pad", "Roll", "Interpolate"),
    "host": ("Host",),
    "in and out": ("Input", "Output"),
}
_CLASS = {kind: name for name, kinds in _KINDS.items() for kind in kinds}
COLOURS: dict[str, str] = {
    "product": "#2b6cb0",
    "attention": "#c2502e",
    "experts": "#7c4bb0",
    "norm": "#2f855a",
    "activation": "#b7791f",
    "arithmetic": "#718096",
    "routing": "#a3447f",
    "movement": "#2c8a93",
    "module": "#2d3748",
    "host": "#c53030",
    "in and out": "#a0aec0",
}


@dataclass(frozen=True)
class Node:
    """One box: what it is, what it costs, and how often it occurs.

    ``colour`` is a key of ``COLOURS``; ``share`` the part of the diagram's multiply-accumulates,
    all ``times`` together; ``panel`` the letter of the diagram of its inside, or ""; ``shape`` what
    it gives to its readers.
    """

    key: str
    title: str
    detail: str
    colour: str
    share: float = 0.0
    times: int = 1
    panel: str = ""
    shape: str = ""


@dataclass(frozen=True)
class Diagram:
    """Nodes in topological order and the edges between them."""

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Part:
    """Operators that one node stands for, with the path they share."""

    key: str
    path: str
    operators: tuple[Operator, ...]

    @property
    def macs(self) -> int:
        return sum(op.macs for op in self.operators)


def owners_of(parts: Iterable[Part]) -> dict[str, str]:
    """The key of the part that each operator belongs to."""
    return {op.name: part.key for part in parts for op in part.operators}


def edges_between(graph: Graph, owners: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Edges between the owners of operators; views and selections are seen through."""
    reached: dict[str, tuple[str, ...]] = {}
    edges: dict[tuple[str, str], None] = {}
    for op in graph.operators():
        sources = tuple(dict.fromkeys(source for name in reads(op) for source in reached[name]))
        owner = owners.get(op.name)
        if owner is None:
            # a Constant comes from nowhere; what is not drawn is seen through
            reached[op.name] = sources if op.kind in SEEN_THROUGH else ()
            continue
        edges.update(dict.fromkeys((source, owner) for source in sources if source != owner))
        reached[op.name] = (owner,)
    return tuple(edges)


def reads(op: Operator) -> tuple[str, ...]:
    """The operators whose values ``op`` reads: a RepeatBatch asks its second for a length only."""
    return op.inputs[:1] if op.kind == "RepeatBatch" else op.inputs


def size(output: TensorSpec) -> str:
    """The shape of one image's tensor, without its batch axis."""
    sizes = output.shape
    return shape(sizes[1:] if len(sizes) > 1 and sizes[0] == 1 else sizes)


def products(macs: int) -> str:
    """Multiply-accumulates as people read them."""
    return f"{quantity(macs, '').strip()} MACs"


def cost(operators: Sequence[Operator], macs: int) -> str:
    """The kind or the number of some operators, and their multiply-accumulates."""
    kinds = list(dict.fromkeys(op.kind for op in operators))
    what = kinds[0] if len(kinds) == 1 else f"{len(operators)} operators"
    return f"{what}, {products(macs)}" if macs else what


def colour(operators: Sequence[Operator]) -> str:
    """The one class of all operators, or "module" where they are of several."""
    classes = {_CLASS.get(op.kind, "arithmetic") for op in operators}
    return classes.pop() if len(classes) == 1 else "module"
