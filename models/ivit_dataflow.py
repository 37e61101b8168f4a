"""Every tensor of a model of scheme `ivit`, those inside its operators too, with type and scale.

Widths of sums are those of the bounds that are proven of them, their types those of the registers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .integer_model import IntegerModel
from .integer_operator import IntegerOperator

__all__ = ["FlowTensor", "dataflow"]

_SCORE_BITS = 8
_WEIGHT_BITS = 16
_NORMAL_BITS = 32


@dataclass(frozen=True)
class FlowTensor:
    """number: its place in the flow, from 0. register: bits of its integer type; bits: how many of
    them it can need, whatever the image, its sign among them. scale: the rule, in which ``S4`` is
    the scale of tensor 4 and ``S_w[c]`` that of a row of weights. operator: the one (or those,
    which read the same and have one scale) that it is in, and ``producer`` what makes it there.
    """

    number: int
    name: str
    register: int
    bits: int
    scale: str
    producer: str
    shape: tuple[int, ...]
    operator: str


def dataflow(model: IntegerModel, source: str, operators: Sequence[str]) -> list[FlowTensor]:
    """The tensors of ``operators``, by name in order of execution, behind that of ``source``."""
    return list(_Flow(model, source).tensors(operators))


class _Flow:
    def __init__(self, model: IntegerModel, source: str) -> None:
        self._model = model
        self._bounds = {(row.operator, row.what): row for row in model.accumulator_bounds()}
        self._source = model.operator(source)
        self._count = 0
        self._of: dict[str, int] = {}

    def tensors(self, names: Sequence[str]) -> Iterator[FlowTensor]:
        made = self._inner(
            (self._source,), "input", self._source.bits, "per tensor", "what is before"
        )
        yield self._numbered(made, (self._source,))
        for group in _together([self._model.operator(name) for name in names]):
            for tensor in (*self._inside(group), self._result(group)):
                yield self._numbered(tensor, group)

    def _numbered(self, tensor: FlowTensor, group: Sequence[IntegerOperator]) -> FlowTensor:
        numbered = replace(tensor, number=self._count)
        self._of.update(dict.fromkeys((operator.name for operator in group), self._count))
        self._count += 1
        return numbered

    def _result(self, group: Sequence[IntegerOperator]) -> FlowTensor:
        first = group[0]
        producer = "requantized"
        if "multiplier" in first.tensors:
            producer += ", a multiplier for each channel"
        if first.kind == "Add31":
            left, right = (self._of.get(name, -1) for name in first.inputs)
            producer = f"{left} and {right}, each requantized, then added"
        scale = "per tensor" if len(group) == 1 else f"per tensor, one for all {len(group)}"
        return self._inner(group, "result", first.bits, scale, producer)

    def _inside(self, group: Sequence[IntegerOperator]) -> Iterator[FlowTensor]:
        first = group[0]
        tokens, features = first.output[0], sum(item.output[1] for item in group)
        inside = [self._of.get(name, -1) for name in first.inputs]
        if first.kind == "Linear31":
            width = self._model.operator(first.inputs[0]).output[1]
            yield self._sum(
                group,
                "accumulator",
                "an accumulator",
                f"S{inside[0]} S_w[c]",
                f"product {tokens} x {width} x {features}",
            )
        elif first.kind == "ILayerNorm":
            rule = f"gamma[c] sqrt({features}) / 2^30"
            yield self._inner(group, "normalised", _NORMAL_BITS, rule, "I-LayerNorm")
        elif first.kind == "ShiftGelu":
            what, rule = "a code times a sigmoid", f"S{inside[0]} / 128"
            yield self._sum(group, "product", what, rule, "ShiftGELU")
        elif first.kind == "ShiftAttention":
            yield from self._attention(first, inside)

    def _attention(self, operator: IntegerOperator, inside: Sequence[int]) -> Iterator[FlowTensor]:
        heads, (tokens, features) = int(operator.attributes["heads"]), operator.output
        keys, width = self._model.operator(operator.inputs[1]).output[0], features // heads
        square, group = (heads, tokens, keys), (operator,)
        yield self._sum(
            group,
            "scores' accumulator",
            "a score accumulator",
            f"S{inside[0]} S{inside[1]} / {math.sqrt(width):g}",
            f"{heads} products {tokens} x {width} x {keys}",
            square,
        )
        yield self._inner(group, "scores", _SCORE_BITS, "per tensor", "requantized", square)
        rule = f"2^-{_WEIGHT_BITS - 1}"
        yield self._inner(group, "weights", _WEIGHT_BITS, rule, "Shiftmax", square)
        yield self._sum(
            group,
            "values' accumulator",
            "an accumulator of weighted values",
            f"2^-{_WEIGHT_BITS - 1} S{inside[2]}",
            f"{heads} products {tokens} x {keys} x {width}",
            (heads, tokens, width),
        )

    def _sum(
        self,
        group: Sequence[IntegerOperator],
        name: str,
        what: str,
        scale: str,
        producer: str,
        shape: tuple[int, ...] = (),
    ) -> FlowTensor:
        rows = [self._bounds[operator.name, what] for operator in group]
        bits = 1 + max(row.bound for row in rows).bit_length()
        register = 1 + max(row.limit for row in rows).bit_length()
        made = self._inner(group, name, register, scale, producer, shape)
        return replace(made, bits=bits)

    def _inner(
        self,
        group: Sequence[IntegerOperator],
        name: str,
        bits: int,
        scale: str,
        producer: str,
        shape: tuple[int, ...] = (),
    ) -> FlowTensor:
        names = ", ".join(operator.name for operator in group)
        whole = (group[0].output[0], sum(operator.output[1] for operator in group))
        return FlowTensor(0, name, bits, bits, scale, producer, shape or whole, names)


def _together(operators: Sequence[IntegerOperator]) -> list[list[IntegerOperator]]:
    """Products of one operand at one scale, side by side, belong together."""
    groups: list[list[IntegerOperator]] = []
    for operator in operators:
        last = groups[-1][-1] if groups else None
        if (
            last is not None
            and operator.kind == "Linear31" == last.kind
            and (
                (last.inputs, last.scale, last.bits)
                == (operator.inputs, operator.scale, operator.bits)
            )
        ):
            groups[-1].append(operator)
        else:
            groups.append([operator])
    return groups
