"""A working copy of a graph that passes change in place, with who reads what kept up to date.

A pass makes an ``Edit`` of the graph it is given, edits, and returns ``Edit.graph()``; the graph
that it was given stays as it is. An operator that loses its last reader is dropped at once.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod

from torch import Tensor

from .evaluate import Attribute, evaluate_kind, multiply_accumulates
from .graph import Graph, Operator, TensorSpec
from .regions import AttentionRegion

__all__ = ["Edit", "rebuilt"]


class Edit:
    """Operators and tensors of ``graph`` to be changed; every query takes the changes into account
    and is constant-time.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._operators = {op.name: op for op in graph.operators()}
        self._tensors = dict(graph.tensors)
        self._before: dict[str, list[str]] = {}
        self._readers: dict[str, dict[str, int]] = {name: {} for name in self._operators}
        self._taken = set(self._operators)  # a name that was dropped is not given again
        self._changed = False
        for op in self._operators.values():
            self._read(op)

    def __contains__(self, name: str) -> bool:
        return name in self._operators

    def operators(self) -> list[Operator]:
        """The operators of now, in the order of the original graph."""
        return list(self._operators.values())

    def operator(self, name: str) -> Operator:
        """The operator called ``name``."""
        return self._operators[name]

    def sources(self, op: Operator) -> list[Operator]:
        """The operators that ``op`` reads."""
        return [self._operators[name] for name in op.inputs]

    def readers(self, name: str) -> list[Operator]:
        """The operators that read ``name``."""
        return [self._operators[reader] for reader in self._readers[name]]

    def only_reader(self, name: str) -> Operator | None:
        """The one operator that reads ``name``, once; None when there are others."""
        readers = self._readers[name]
        if sum(readers.values()) != 1:
            return None
        return self._operators[next(iter(readers))]

    def constant(self, name: str) -> Tensor | None:
        """The value of a Constant."""
        op = self._operators[name]
        return self._tensors[op.tensors["value"]] if op.kind == "Constant" else None

    def number(self, name: str) -> float | None:
        """The value of a Constant that is one number, where it is known."""
        op = self._operators[name]
        if op.kind != "Constant" or prod(op.output.shape) != 1:
            return None
        held = op.attributes.get("number")
        if isinstance(held, (int, float)):
            return float(held)
        value = self._tensors[op.tensors["value"]]
        return None if value.is_meta else float(value)

    def tensor(self, op: Operator, role: str) -> Tensor | None:
        """The tensor that ``op`` holds in ``role``, or None."""
        return self._tensors[op.tensors[role]] if role in op.tensors else None

    def put(self, op: Operator) -> None:
        """Replaces the operator of the same name."""
        old = self._operators[op.name]
        self._operators[op.name] = op
        self._read(op)
        self._unread(old)
        self._changed = True

    def redirect(self, old: str, new: str) -> None:
        """Lets the readers of ``old`` read ``new``."""
        for reader in self.readers(old):
            names = tuple(new if name == old else name for name in reader.inputs)
            self.put(replace(reader, inputs=names))
        if old in self._operators:
            self._drop(old)

    def add(
        self,
        kind: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        like: Operator,
        label: str,
        tensors: Mapping[str, Tensor] | None = None,
        params: int = 0,
    ) -> str:
        """A new operator placed before ``like``, at its module path and source line; returns its
        name.
        """
        attributes, held = dict(attributes or {}), dict(tensors or {})
        specs = [self._operators[name].output for name in inputs]
        meta = {role: tensor.to("meta") for role, tensor in held.items()}
        result = evaluate_kind(kind, [spec.meta() for spec in specs], meta, attributes)
        output = TensorSpec(tuple(result.shape), str(result.dtype).removeprefix("torch."))
        name = _unique(f"{like.path}.{label}" if like.path else label, self._taken)
        self._taken.add(name)
        weight = tuple(held["weight"].shape) if "weight" in held else None
        self._operators[name] = Operator(
            name=name,
            kind=kind,
            path=like.path,
            source=like.source,
            inputs=tuple(inputs),
            output=output,
            attributes=attributes,
            tensors={role: self.hold(f"{name}.{role}", held[role]) for role in held},
            macs=multiply_accumulates(kind, [spec.shape for spec in specs], weight, output.shape),
            params=params,
        )
        self._readers[name] = {}
        self._before.setdefault(like.name, []).append(name)
        self._read(self._operators[name])
        self._changed = True
        return name

    def hold(self, key: str, tensor: Tensor) -> str:
        """Keeps a tensor under a new key near ``key``, which it returns."""
        key = _unique(key, self._tensors)
        self._tensors[key] = tensor.contiguous()
        return key

    def graph(self) -> Graph:
        """The edited graph, without what leads to no output; the given one if nothing changed."""
        if not self._changed:
            return self._graph
        order: list[str] = []

        def place(name: str) -> None:
            for earlier in self._before.get(name, ()):
                place(earlier)
            if name in self._operators:
                order.append(name)

        for op in self._graph.operators():
            place(op.name)
        return rebuilt(self._graph, [self._operators[name] for name in order], self._tensors)

    def _read(self, op: Operator) -> None:
        for name in op.inputs:
            readers = self._readers[name]
            readers[op.name] = readers.get(op.name, 0) + 1

    def _unread(self, op: Operator) -> None:
        for name in op.inputs:
            readers = self._readers[name]
            readers[op.name] -= 1
            if readers[op.name] == 0:
                del readers[op.name]
            self._drop(name)

    def _drop(self, name: str) -> None:
        """Takes an operator out if nobody reads it any more, and so on up."""
        waiting = [name]
        while waiting:
            name = waiting.pop()
            op = self._operators.get(name)
            if op is None or self._readers[name] or op.kind in ("Input", "Output"):
                continue
            del self._operators[name]
            self._changed = True
            for source in op.inputs:
                readers = self._readers[source]
                readers.pop(name, None)
                waiting.append(source)


def rebuilt(
    graph: Graph,
    operators: Iterable[Operator],
    tensors: Mapping[str, Tensor] | None = None,
    regions: Iterable[AttentionRegion] | None = None,
) -> Graph:
    """The same graph with other operators and regions, and only the tensors that they name."""
    operators = list(operators)
    used = {key for op in operators for key in op.tensors.values()}
    names = {op.name for op in operators}
    held = graph.tensors if tensors is None else tensors
    return Graph(
        graph.name,
        operators,
        {key: tensor for key, tensor in held.items() if key in used},
        regions=graph.regions if regions is None else regions,
        mixtures=graph.mixtures,
        batched=graph.batched,
        unmapped=[item for item in graph.unmapped if item.name in names],
    )


def _unique(name: str, taken: Container[str]) -> str:
    if name not in taken:
        return name
    count = 1
    while f"{name}_{count}" in taken:
        count += 1
    return f"{name}_{count}"
