"""Passes Graph to Graph that bring every way of writing attention to one form, and find its
regions.

None changes the graph it is given. ``raise_attention`` runs them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod

from .graph import AttentionRegion, Graph, Operator

__all__ = [
    "absorb_transposes",
    "find_regions",
    "fold_scales",
    "raise_attention",
    "remove_dead",
]


def raise_attention(graph: Graph) -> Graph:
    """Transposes and scales into the products, dead operators out, regions found."""
    return find_regions(remove_dead(fold_scales(absorb_transposes(graph))))


def absorb_transposes(graph: Graph) -> Graph:
    """A MatMul whose second operand is a swap of the last two axes reads the unswapped one with
    ``transpose_b``.

    Scores (a product that reaches a softmax) always read keys as [..., N, d], so there any
    permutation is written as another one plus ``transpose_b``.
    """
    edited = _Edit(graph)
    for op in graph.operators():
        if op.kind != "MatMul" or op.attributes["transpose_b"]:
            continue
        view = graph.operator(op.inputs[1])
        if view.kind != "View" or view.attributes["op"] != "permute":
            continue
        dims = _ints(view, "dims")
        swapped = (*dims[:-2], dims[-1], dims[-2])
        turned = {**op.attributes, "transpose_b": True}
        if swapped == tuple(range(len(dims))):
            edited.put(replace(op, inputs=(op.inputs[0], view.inputs[0]), attributes=turned))
        elif _reaches_softmax(graph, op) and len(graph.consumers(view.name)) == 1:
            shape = view.output.shape
            output = replace(view.output, shape=(*shape[:-2], shape[-1], shape[-2]))
            edited.put(
                replace(view, attributes={**view.attributes, "dims": swapped}, output=output)
            )
            edited.put(replace(op, attributes=turned))
    return edited.graph()


def fold_scales(graph: Graph) -> Graph:
    """A Mul by one number on the way into or right after a MatMul becomes the MatMul's ``scale``.

    On the way in it may lie behind Views and Selects; every operator between must have one reader.
    """
    for _ in range(len(graph.operators())):
        folded = _fold_one(graph)
        if folded is graph:
            break
        graph = folded
    return graph


def remove_dead(graph: Graph) -> Graph:
    """Drops operators (other than inputs) that lead to no output, and tensors nobody names."""
    alive: set[str] = set()
    for op in reversed(graph.operators()):
        if op.kind in ("Output", "Input") or op.name in alive:
            alive.update((op.name, *op.inputs))
    kept = [op for op in graph.operators() if op.name in alive]
    return _rebuilt(graph, kept)


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
            products = [name for name in source.inputs if graph.operator(name).kind == "MatMul"]
            if len(products) != 1:
                continue
            source, bias = graph.operator(products[0]), source.name
        readers = graph.consumers(softmax.name)
        if source.kind != "MatMul" or len(readers) != 1 or readers[0].kind != "MatMul":
            continue
        if readers[0].inputs[0] != softmax.name or not source.attributes["transpose_b"]:
            continue
        shape = source.output.shape
        regions.append(
            AttentionRegion(
                scores=source.name,
                softmax=softmax.name,
                apply=readers[0].name,
                heads=prod(shape[:-2]),
                tokens=shape[-2],
                head_dim=graph.operator(source.inputs[0]).output.shape[-1],
                scale=float(_number(source.attributes["scale"])),
                keys=shape[-1],
                bias=bias,
            )
        )
    return _rebuilt(graph, graph.operators(), regions)


class _Edit:
    """A set of replacements for operators of one graph, applied all at once."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._new: dict[str, Operator] = {}

    def put(self, operator: Operator) -> None:
        """Replaces the operator of the same name."""
        self._new[operator.name] = operator

    def graph(self, *, renamed: Mapping[str, str] | None = None) -> Graph:
        """The edited graph; readers of ``renamed`` keys read the values instead."""
        operators = [self._new.get(op.name, op) for op in self._graph.operators()]
        if renamed:
            operators = [
                replace(op, inputs=tuple(renamed.get(name, name) for name in op.inputs))
                for op in operators
            ]
        return _rebuilt(self._graph, operators) if self._new or renamed else self._graph


def _fold_one(graph: Graph) -> Graph:
    for op in graph.operators():
        if op.kind != "MatMul":
            continue
        readers = graph.consumers(op.name)
        if len(readers) == 1 and (factor := _factor(graph, readers[0], op.name)) is not None:
            return _folded(graph, op, readers[0], op.name, factor)
        for name in op.inputs:
            source = graph.operator(name)
            while source.kind in ("View", "Select") and len(graph.consumers(source.name)) == 1:
                source = graph.operator(source.inputs[0])
            if source.kind != "Mul" or len(graph.consumers(source.name)) != 1:
                continue
            for operand in source.inputs:
                factor = _factor(graph, source, operand)
                if factor is not None:
                    return _folded(graph, op, source, operand, factor)
    return graph


def _folded(graph: Graph, product: Operator, mul: Operator, operand: str, factor: float) -> Graph:
    """The graph with ``mul``'s factor in ``product``'s scale, and ``mul``'s readers reading
    ``operand``.
    """
    edited = _Edit(graph)
    scale = float(_number(product.attributes["scale"])) * factor
    edited.put(replace(product, attributes={**product.attributes, "scale": scale}))
    return remove_dead(edited.graph(renamed={mul.name: operand}))


def _factor(graph: Graph, mul: Operator, operand: str) -> float | None:
    """The number that ``mul`` multiplies ``operand`` by, if it is one."""
    if mul.kind != "Mul" or operand not in mul.inputs:
        return None
    other = graph.operator(mul.inputs[1] if mul.inputs[0] == operand else mul.inputs[0])
    if other.kind != "Constant" or prod(other.output.shape) != 1:
        return None
    if graph.operator(operand).output != mul.output:
        return None
    if "number" in other.attributes:
        return float(_number(other.attributes["number"]))
    return float(graph.tensors[other.tensors["value"]])


def _reaches_softmax(graph: Graph, op: Operator) -> bool:
    """Whether the product's only way on is through scaling and masking to a softmax."""
    readers = graph.consumers(op.name)
    while len(readers) == 1 and readers[0].kind in ("Mul", "Add", "View"):
        readers = graph.consumers(readers[0].name)
    return len(readers) == 1 and readers[0].kind == "Softmax"


def _ints(op: Operator, name: str) -> tuple[int, ...]:
    value = op.attributes[name]
    if not isinstance(value, tuple):
        raise TypeError(f"{op.name}: attribute {name} expected a tuple, got {value!r}")
    return tuple(int(_number(item)) for item in value)


def _number(value: object) -> int | float:
    if not isinstance(value, (int, float)):
        raise TypeError(f"expected a number, got {value!r}")
    return value


def _rebuilt(
    graph: Graph, operators: Iterable[Operator], regions: Iterable[AttentionRegion] | None = None
) -> Graph:
    """The same graph with other operators, and only the tensors they name."""
    operators = list(operators)
    used = {key for op in operators for key in op.tensors.values()}
    names = {op.name for op in operators}
    return Graph(
        graph.name,
        operators,
        {key: tensor for key, tensor in graph.tensors.items() if key in used},
        regions=graph.regions if regions is None else regions,
        mixtures=graph.mixtures,
        unmapped=[item for item in graph.unmapped if item.name in names],
    )
