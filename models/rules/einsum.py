"""The rule for ``einsum``: permutations around one product for each pair of operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import cast

from torch.fx import Node

from ..kind import Attribute
from ..raising import Raiser
from ..rewrite import Call, NoRuleError, Ref, Value, Weight, rule, symbolic
from .linear import linear_with, product, reshaped
from .reductions import reduced

__all__ = ["einsum"]


@rule("aten.einsum.default")
def einsum(call: Call, raiser: Raiser) -> Value:
    """Any equation without repeated letters in one operand: contracted from left to right."""
    nodes = cast("Sequence[Node]", call.arguments()["tensors"])
    ranks = [len(node.meta["val"].shape) for node in nodes]
    letters, wanted = _parsed(call.text("equation"), ranks)
    sizes = _Sizes(raiser)
    operands: list[_Operand] = []
    for node, axes in zip(nodes, letters, strict=True):
        sizes.learn(axes, node.meta["val"].shape)
        operands.append(_Operand(raiser.values[node], axes))
    while len(operands) > 1:
        first, second, *rest = operands
        kept = wanted.union(*(other.axes for other in rest)) if rest else wanted
        operands = [_contracted(raiser, sizes, first, second, kept), *rest]
    return _permuted(raiser, _summed(raiser, operands[0], wanted), wanted.order)


class _Letters(frozenset[str]):
    """The letters of a result, and their order."""

    order: str

    def __new__(cls, order: str) -> _Letters:
        made = super().__new__(cls, order)
        made.order = order
        return made


@dataclass(frozen=True)
class _Operand:
    """A tensor and one letter for each of its axes."""

    value: Value
    axes: str


class _Sizes:
    """The length of each letter's axis for one image, and which letter carries the batch."""

    def __init__(self, raiser: Raiser) -> None:
        self._raiser = raiser
        self._sizes: dict[str, int] = {}
        self._batch = ""

    def learn(self, axes: str, shape: Sequence[object]) -> None:
        for letter, size in zip(axes, shape, strict=True):
            length = self._raiser.concrete(size)
            if self._sizes.setdefault(letter, length) != length:
                raise NoRuleError("an einsum that repeats an axis of length 1 has no rule")
            if symbolic(size):
                if self._batch not in ("", letter):
                    raise NoRuleError("an einsum with the batch in several axes has no rule")
                self._batch = letter

    def merged(self, *groups: str) -> tuple[int, ...]:
        """A shape with one axis for each group of letters, -1 where the batch is."""
        return tuple(
            -1 if self._batch and self._batch in group else prod(self._sizes[c] for c in group)
            for group in groups
        )


def _contracted(
    raiser: Raiser, sizes: _Sizes, first: _Operand, second: _Operand, kept: frozenset[str]
) -> _Operand:
    """The product of two operands: letters that are not ``kept`` are summed over."""
    if isinstance(first.value, Weight) and not isinstance(second.value, Weight):
        first, second = second, first
    a = _summed(raiser, first, kept.union(second.axes))
    b = _summed(raiser, second, kept.union(a.axes))
    batch = [c for c in _ordered(kept, a.axes) if c in b.axes]
    summed = "".join(c for c in a.axes if c in b.axes and c not in kept)
    rows = "".join(c for c in a.axes if c not in b.axes)
    columns = "".join(c for c in b.axes if c not in a.axes)
    if isinstance(b.value, Weight) and not batch and summed:
        return _projected(raiser, sizes, a, b, rows, summed, columns)
    if rows and columns and _before(kept, columns[-1], rows[-1]):
        a, b, rows, columns = b, a, columns, rows
    if not summed:
        return _outer(raiser, sizes, a, b, "".join(batch), rows, columns)
    row, column = rows[-1:], columns[-1:]
    lead = _in_order(kept, [*batch, *rows[:-1], *columns[:-1]])
    turned = b.axes[-1] in summed
    left = [*_groups(lead, a.axes), row, summed]
    right = [*_groups(lead, b.axes), *((column, summed) if turned else (summed, column))]
    out = product(
        raiser,
        _shaped(raiser, sizes, a, left),
        _shaped(raiser, sizes, b, right),
        transpose_b=turned,
    )
    axes = "".join(lead) + row + column
    return _Operand(reshaped(raiser, out, sizes.merged(*axes)), axes)


def _groups(lead: list[str], axes: str) -> list[str]:
    """The leading axes of one operand: those of the other have length 1, or none in front."""
    groups = [c if c in axes else "" for c in lead]
    while groups and not groups[0]:
        groups.pop(0)
    return groups


def _projected(
    raiser: Raiser, sizes: _Sizes, a: _Operand, b: _Operand, rows: str, summed: str, columns: str
) -> _Operand:
    """A product with a tensor known at trace time that shares no other axis: a Linear."""
    held = cast(Weight, b.value)
    table = raiser.tensor(held).permute([b.axes.index(c) for c in columns + summed])
    table = table.reshape(prod(sizes.merged(columns)), prod(sizes.merged(summed)))
    weight = raiser.hold(f"{held.key}.folded", table, parameter=held.parameter)
    operand = _shaped(raiser, sizes, a, [*rows, summed])
    out = linear_with(raiser, operand, weight)
    return _Operand(reshaped(raiser, out, sizes.merged(*rows, *columns)), rows + columns)


def _outer(
    raiser: Raiser, sizes: _Sizes, a: _Operand, b: _Operand, batch: str, rows: str, columns: str
) -> _Operand:
    """Nothing is summed over: element by element, repeated along the axes of the other."""
    left = _shaped(raiser, sizes, a, [*batch, *rows, *("" for _ in columns)])
    right = _shaped(raiser, sizes, b, [*batch, *("" for _ in rows), *columns])
    return _Operand(raiser.add("Mul", [left, right]), batch + rows + columns)


def _shaped(raiser: Raiser, sizes: _Sizes, operand: _Operand, groups: list[str]) -> Ref:
    """The operand with one axis for each group of letters, of length 1 for an empty group."""
    order = "".join(groups)
    ref = _permuted(raiser, operand, order)
    if [group for group in groups if len(group) != 1]:
        return reshaped(raiser, ref, sizes.merged(*groups))
    return ref


def _permuted(raiser: Raiser, operand: _Operand, order: str) -> Ref:
    ref = raiser.as_operand(operand.value)
    dims = tuple(operand.axes.index(c) for c in order)
    if dims == tuple(range(len(dims))):
        return ref
    attributes: dict[str, Attribute] = {"op": "permute", "dims": dims}
    return raiser.add("View", [ref], attributes=attributes, label="permute")


def _summed(raiser: Raiser, operand: _Operand, kept: frozenset[str]) -> _Operand:
    """Sums over the axes that nobody else reads."""
    dims = tuple(place for place, c in enumerate(operand.axes) if c not in kept)
    if not dims:
        return operand
    out = reduced(raiser, "Sum", raiser.as_operand(operand.value), dims, False)
    return _Operand(out, "".join(c for c in operand.axes if c in kept))


def _ordered(kept: frozenset[str], axes: str) -> str:
    """The kept letters of ``axes``, in the result's order where there is one."""
    order = kept.order if isinstance(kept, _Letters) else axes
    return "".join(c for c in order if c in axes and c in kept)


def _in_order(kept: frozenset[str], letters: list[str]) -> list[str]:
    """Letters in the result's order where there is one."""
    return sorted(letters, key=kept.order.index) if isinstance(kept, _Letters) else letters


def _before(kept: frozenset[str], one: str, other: str) -> bool:
    return isinstance(kept, _Letters) and kept.order.index(one) < kept.order.index(other)


def _parsed(equation: str, ranks: Sequence[int]) -> tuple[list[str], _Letters]:
    """The letters of each operand and of the result; "..." becomes capital Greek letters."""
    equation = equation.replace(" ", "")
    given, arrow, result = equation.partition("->")
    terms = given.split(",")
    free = max(rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True))
    dots = "ΑΒΓΔΕΖΗΘ"[: max(free, 0)]
    letters = []
    for term, rank in zip(terms, ranks, strict=True):
        count = rank - len(term.replace("...", ""))
        letters.append(term.replace("...", dots[len(dots) - count :]))
        if len(set(letters[-1])) != len(letters[-1]):
            raise NoRuleError(f"an einsum that takes a diagonal ({equation}) has no rule")
    if arrow:
        return letters, _Letters(result.replace("...", dots))
    every = "".join(letters)
    once = sorted(c for c in set(every) - set(dots) if every.count(c) == 1)
    return letters, _Letters(dots + "".join(once))
