"""The dataflow graph of one model: typed operators, tensor specs on the edges, and attention
regions.

A graph is built once and not changed afterwards; passes return a new one. ``check`` holds the
invariants, one named rule each. What a kind of operator computes is in ``evaluate.py``; shapes here
are those of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx
import torch
from torch import Tensor

from ..errors import VitruviusError, nearest
from .evaluate import KINDS, Attribute, evaluate_kind
from .regions import AttentionRegion, MixtureRegion, attention_violations, mixture_violations

__all__ = [
    "AttentionRegion",
    "Attribute",
    "Graph",
    "MixtureRegion",
    "Operator",
    "TensorSpec",
    "Unmapped",
    "check",
    "evaluate",
    "execute",
    "execute_all",
    "violations",
]


@dataclass(frozen=True)
class TensorSpec:
    """Shape (batch 1) and element type (``"float32"`` or another of torch's names) of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    def meta(self) -> Tensor:
        """A tensor of this spec without storage."""
        return torch.empty(self.shape, dtype=getattr(torch, self.dtype), device="meta")


@dataclass(frozen=True)
class Operator:
    """One operator: what it is, where it came from, and what it reads.

    ``name`` is unique in its graph; ``path`` the module path ("" for the root); ``source`` the
    user's line, ``"file.py:12"`` or ""; ``inputs`` operator names in argument order; ``tensors``
    maps a role ("weight", "bias", "value") to a key of ``Graph.tensors``; ``macs`` and ``params``
    are counts for one image.
    """

    name: str
    kind: str
    path: str
    source: str
    inputs: tuple[str, ...]
    output: TensorSpec
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    macs: int = 0
    params: int = 0


@dataclass(frozen=True)
class Unmapped:
    """An operator that has no rule and stays on the host, and why."""

    name: str
    target: str
    path: str
    source: str
    reason: str


class Graph:
    """Operators and the tensors they hold.

    Parameters
    ----------
    name: what the model is called in reports.
    operators: in any order; ``operators()`` gives them in topological order, ties by this order.
    tensors: constants by key, float32 unless the model says otherwise.
    regions, mixtures, unmapped: see the classes.
    tasks: of a model for several tasks, what each task after the first has in the place of its
        gates' weights: tensor key -> tensor key (see `models.tasks`).
    batched: whether the operators take batches of any length; if not, ``execute`` takes a longer
        batch piece by piece.

    Raises ``VitruviusError`` when a name occurs twice, an input is unknown, or there is a cycle.
    """

    def __init__(
        self,
        name: str,
        operators: Iterable[Operator],
        tensors: Mapping[str, Tensor],
        *,
        regions: Iterable[AttentionRegion] = (),
        mixtures: Iterable[MixtureRegion] = (),
        unmapped: Iterable[Unmapped] = (),
        tasks: Iterable[Mapping[str, str]] = (),
        batched: bool = True,
    ) -> None:
        self.name = name
        self.tensors: dict[str, Tensor] = dict(tensors)
        self.regions: tuple[AttentionRegion, ...] = tuple(regions)
        self.mixtures: tuple[MixtureRegion, ...] = tuple(mixtures)
        self.unmapped: tuple[Unmapped, ...] = tuple(unmapped)
        self.tasks: tuple[Mapping[str, str], ...] = tuple(tasks)
        self.batched = batched
        given = list(operators)
        self._operators = {operator.name: operator for operator in given}
        if len(self._operators) != len(given):
            names = [operator.name for operator in given]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise VitruviusError(f"graph {name}: operator names occur twice: {', '.join(twice)}")
        self._digraph = nx.DiGraph()
        self._digraph.add_nodes_from(self._operators)
        for operator in given:
            for source in operator.inputs:
                if source not in self._operators:
                    raise VitruviusError(
                        f"graph {name}: operator {operator.name} reads unknown operator {source}"
                    )
                self._digraph.add_edge(source, operator.name, spec=self._operators[source].output)
        position = {operator.name: place for place, operator in enumerate(given)}
        try:
            self._order = tuple(
                nx.lexicographical_topological_sort(self._digraph, key=position.get)
            )
        except nx.NetworkXUnfeasible as error:
            raise VitruviusError(f"graph {name}: operators read each other in a cycle") from error
        self._place = {name: place for place, name in enumerate(self._order)}
        self.inputs: tuple[str, ...] = tuple(o.name for o in given if o.kind == "Input")
        self.outputs: tuple[str, ...] = tuple(o.name for o in given if o.kind == "Output")

    def operators(self) -> list[Operator]:
        """All operators, each after those it reads; the same order every time."""
        return [self._operators[name] for name in self._order]

    def operator(self, name: str) -> Operator:
        """The operator called ``name``; raises ``VitruviusError`` with the nearest names when there
        is none.
        """
        if name not in self._operators:
            raise VitruviusError(
                f"graph {self.name} has no operator '{name}', {nearest(name, self._operators)}"
            )
        return self._operators[name]

    def consumers(self, name: str) -> list[Operator]:
        """The operators that read ``name``, in topological order."""
        readers = self._digraph.successors(self.operator(name).name)
        return [self._operators[reader] for reader in sorted(readers, key=self._place.__getitem__)]

    @property
    def digraph(self) -> nx.DiGraph:
        """A copy of the underlying graph: nodes are operator names, edges carry ``spec``."""
        return self._digraph.copy()

    def __repr__(self) -> str:
        return f"Graph({self.name!r}, {len(self._order)} operators, {len(self.regions)} regions)"


def evaluate(operator: Operator, operands: Sequence[Tensor], graph: Graph) -> Tensor:
    """The output of one operator on ``operands``, which may be batched, meta or (where nothing is
    multiplied) int64.

    Raises ``VitruviusError`` naming the operator and its source line when the operands do not fit.
    """
    tensors = {role: graph.tensors[key] for role, key in operator.tensors.items()}
    if operands and operands[0].is_meta:
        tensors = {role: tensor.to("meta") for role, tensor in tensors.items()}
    try:
        return evaluate_kind(operator.kind, operands, tensors, operator.attributes)
    except (RuntimeError, IndexError, ValueError) as error:
        got = ", ".join(str(list(operand.shape)) for operand in operands)
        place = f" ({operator.source})" if operator.source else ""
        reason = str(error).splitlines()[0]
        raise VitruviusError(
            f"operator {operator.name}{place} of kind {operator.kind} cannot take operands {got}: "
            f"{reason}"
        ) from error


def execute(
    graph: Graph, *inputs: Tensor, observe: Callable[[Operator, Tensor], None] | None = None
) -> Tensor:
    """Runs the graph node by node in float and returns its only output.

    ``inputs`` are in the order of ``graph.inputs``; the batch axis (the first) may be longer than 1
    if the model was traced so. ``observe`` sees every operator's output in topological order, that
    of the whole batch also where it is run in pieces (then these follow each other on axis 0).

    Raises ``VitruviusError`` when the inputs do not fit or the graph has more than one output.
    """
    if len(graph.outputs) != 1:
        raise VitruviusError(
            f"graph {graph.name} has {len(graph.outputs)} outputs, expected exactly one"
        )
    return execute_all(graph, *inputs, observe=observe)[0]


def execute_all(
    graph: Graph, *inputs: Tensor, observe: Callable[[Operator, Tensor], None] | None = None
) -> tuple[Tensor, ...]:
    """Like ``execute`` for any number of outputs, in the order of ``graph.outputs``."""
    if len(inputs) != len(graph.inputs):
        raise VitruviusError(
            f"graph {graph.name} expected {len(graph.inputs)} inputs ({', '.join(graph.inputs)}), "
            f"got {len(inputs)}"
        )
    values: dict[str, tuple[Tensor, ...]] = {}
    for name, tensor in zip(graph.inputs, inputs, strict=True):
        spec = graph.operator(name).output
        if tuple(tensor.shape[1:]) != spec.shape[1:] or tensor.dim() != len(spec.shape):
            raise VitruviusError(
                f"graph {graph.name}: input {name} expected shape {list(spec.shape)} "
                f"(the first axis is the batch), got {list(tensor.shape)}"
            )
        pieces = 1 if graph.batched else _pieces(graph, inputs)
        values[name] = tensor.chunk(pieces) if pieces > 1 else (tensor,)
    operators = graph.operators()
    last_use = {source: operator.name for operator in operators for source in operator.inputs}
    with torch.no_grad():
        for operator in operators:
            if operator.kind != "Input":
                values[operator.name] = _evaluated(operator, values, graph)
            if observe is not None:
                observe(operator, _whole(values[operator.name]))
            for source in set(operator.inputs):
                if last_use[source] == operator.name:
                    del values[source]
    return tuple(_whole(values[name]) for name in graph.outputs)


def _evaluated(
    operator: Operator, values: Mapping[str, tuple[Tensor, ...]], graph: Graph
) -> tuple[Tensor, ...]:
    """The operator on every piece of the batch; once where it reads constants only."""
    operands = [values[name] for name in operator.inputs]
    pieces = max((len(parts) for parts in operands), default=1)
    return tuple(
        evaluate(operator, [parts[n % len(parts)] for parts in operands], graph)
        for n in range(pieces)
    )


def _whole(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _pieces(graph: Graph, inputs: Sequence[Tensor]) -> int:
    """How many batches of the length that the graph was traced with make up ``inputs``; 1 when they
    do not divide.
    """
    counts = set()
    for name, tensor in zip(graph.inputs, inputs, strict=True):
        one = graph.operator(name).output.shape[0] if tensor.dim() else 0
        counts.add(tensor.shape[0] // one if one and tensor.shape[0] % one == 0 else 1)
    return counts.pop() if len(counts) == 1 else 1


def check(graph: Graph) -> None:
    """Raises ``VitruviusError`` listing every broken invariant of ``graph``."""
    if broken := violations(graph):
        raise VitruviusError(
            f"graph {graph.name} breaks {len(broken)} invariants: " + "; ".join(broken)
        )


def violations(graph: Graph) -> list[str]:
    """Every broken invariant as ``"rule: operator: text"``; empty for a sound graph."""
    found: list[str] = []
    for name, rule in _RULES.items():
        found.extend(f"{name}: {text}" for text in rule(graph))
    return found


def _vocabulary(graph: Graph) -> Iterator[str]:
    """Kinds, operand counts, tensor roles and attributes are those of the table."""
    for op in graph.operators():
        kind = KINDS.get(op.kind)
        if kind is None:
            yield f"{op.name}: kind {op.kind} is not one of {', '.join(sorted(KINDS))}"
            continue
        if kind.operands is not None and len(op.inputs) != kind.operands:
            yield f"{op.name}: {op.kind} expected {kind.operands} operands, got {len(op.inputs)}"
        if missing := sorted(kind.roles - op.tensors.keys()):
            yield f"{op.name}: {op.kind} lacks tensors {', '.join(missing)}"
        if unknown := sorted(op.tensors.keys() - kind.roles - kind.optional):
            yield f"{op.name}: {op.kind} has unexpected tensors {', '.join(unknown)}"
        if missing := sorted(kind.attributes - op.attributes.keys()):
            yield f"{op.name}: {op.kind} lacks attributes {', '.join(missing)}"


def _tensors(graph: Graph) -> Iterator[str]:
    """Every tensor an operator or a task names exists, and every tensor is named."""
    used = {key for task in graph.tasks for key in task.values()}
    for key in sorted(used - graph.tensors.keys()):
        yield f"a task has {key}, which the graph does not hold"
    for op in graph.operators():
        for role, key in op.tensors.items():
            used.add(key)
            if key not in graph.tensors:
                yield f"{op.name}: {role} is {key}, which the graph does not hold"
    for key in sorted(graph.tensors.keys() - used):
        yield f"tensor {key} belongs to no operator"


def _plain_attributes(graph: Graph) -> Iterator[str]:
    """Attributes are plain values, so that they can be written as JSON."""

    def plain(value: Attribute) -> bool:
        if isinstance(value, tuple):
            return all(plain(item) for item in value)
        return isinstance(value, (int, float, str, bool))

    for op in graph.operators():
        for name, value in op.attributes.items():
            if not plain(value):
                yield f"{op.name}: attribute {name} is a {type(value).__name__}"


def _alive(graph: Graph) -> Iterator[str]:
    """Every operator but an Input contributes to an Output."""
    digraph = graph.digraph
    alive = set(graph.outputs).union(*(nx.ancestors(digraph, name) for name in graph.outputs))
    for op in graph.operators():
        if op.name not in alive and op.kind != "Input":
            yield f"{op.name}: leads to no output"


def _shapes(graph: Graph) -> Iterator[str]:
    """The recorded output is what the kind gives for the recorded inputs."""
    for op in graph.operators():
        if op.kind in ("Input", "Host") or op.kind not in KINDS:
            continue
        if any(key not in graph.tensors for key in op.tensors.values()):
            continue
        try:
            result = evaluate(op, [graph.operator(name).output.meta() for name in op.inputs], graph)
        except (VitruviusError, KeyError) as error:
            yield f"{op.name}: {error}"
            continue
        got = TensorSpec(tuple(result.shape), str(result.dtype).removeprefix("torch."))
        if got != op.output:
            yield (
                f"{op.name}: recorded {op.output.dtype} {op.output.shape}, "
                f"gives {got.dtype} {got.shape}"
            )


_RULES: dict[str, Callable[[Graph], Iterable[str]]] = {
    "vocabulary": _vocabulary,
    "tensors": _tensors,
    "plain attributes": _plain_attributes,
    "alive": _alive,
    "shapes": _shapes,
    "regions": attention_violations,
    "mixtures": mixture_violations,
}
