"""What a rewrite rule is: a function ``(call, raiser) -> Value``, registered for ATen operators.

``Call`` gives a rule the arguments by their schema names; the ``Raiser`` makes operators for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
from torch.fx import Node

from .graph import TensorSpec

if TYPE_CHECKING:
    from .raising import Raiser

__all__ = [
    "RULES",
    "SEVERAL_AXES",
    "Call",
    "NoRuleError",
    "Pieces",
    "Ref",
    "Rule",
    "Value",
    "Weight",
    "rule",
    "symbolic",
]


@dataclass(frozen=True)
class Ref:
    """The output of the operator called ``name``."""

    name: str


@dataclass(frozen=True)
class Weight:
    """A tensor known at trace time; ``parameter`` when it came from trained parameters."""

    key: str
    parameter: bool


@dataclass(frozen=True)
class Pieces:
    """Several results of one call, each made when it is first read."""

    makers: tuple[Callable[[], Value], ...]


Value: TypeAlias = "Ref | Weight | Pieces | None"
Rule: TypeAlias = "Callable[[Call, Raiser], Value]"

RULES: dict[str, Rule] = {}
SEVERAL_AXES = "with the batch in several axes"


class NoRuleError(Exception):
    """A rule cannot express this call; the text says why."""


def rule(*targets: str) -> Callable[[Rule], Rule]:
    """Registers a function for ATen operators such as ``"aten.linear.default"``."""

    def register(function: Rule) -> Rule:
        for target in targets:
            RULES[target] = function
        return function

    return register


class Call:
    """One call of an ATen operator: arguments by schema name, with the defaults filled in.

    A symbolic size counts with batch 1 in ``whole`` and ``wholes``; ``shape`` has -1 on the batch
    axis.
    """

    def __init__(self, node: Node, raiser: Raiser) -> None:
        self.node = node
        self.target = str(node.target)
        self._raiser = raiser
        schema = cast("torch._ops.OpOverload", node.target)._schema
        self._arguments: dict[str, object] = {}
        for place, argument in enumerate(schema.arguments):
            if place < len(node.args):
                value: object = node.args[place]
            elif argument.name in node.kwargs:
                value = node.kwargs[argument.name]
            else:
                value = argument.default_value if argument.has_default_value() else None
            self._arguments[argument.name] = value

    def arguments(self) -> Mapping[str, object]:
        """Every argument as the exported graph has it: nodes, numbers, lists, None."""
        return self._arguments

    def given(self, name: str) -> bool:
        """Whether the argument exists and is not None."""
        return self._arguments.get(name) is not None

    def value(self, name: str) -> Value:
        """What a tensor argument (or None) was raised to."""
        argument = self._arguments.get(name)
        return self._raiser.values[argument] if isinstance(argument, Node) else None

    def operand(self, name: str) -> Ref:
        """A tensor or number argument as an operator's output; constants become Constants."""
        argument = self._arguments[name]
        if isinstance(argument, Node):
            return self._raiser.as_operand(self._raiser.values[argument])
        if isinstance(argument, (int, float)):
            exact = isinstance(argument, int) and self._whole_result()
            return self._raiser.scalar(argument if exact else float(argument))
        raise NoRuleError(f"argument {name} is {argument!r}, expected a tensor or a number")

    def operands(self, name: str) -> list[Ref]:
        """A list of tensors."""
        nodes = cast("Sequence[Node]", self._arguments[name])
        return [self._raiser.as_operand(self._raiser.values[node]) for node in nodes]

    def values(self, name: str) -> list[Value]:
        """What the tensors of a list, any of which may be None, were raised to."""
        nodes = cast("Sequence[Node | None]", self._arguments[name])
        return [None if node is None else self._raiser.values[node] for node in nodes]

    def weight(self, name: str) -> Weight | None:
        """A tensor argument known at trace time; None when absent. Raises ``NoRuleError`` when
        computed.
        """
        value = self.value(name)
        if value is None or isinstance(value, Weight):
            return value
        raise NoRuleError(f"argument {name} is computed from the input, expected a parameter")

    def whole(self, name: str) -> int:
        return self._raiser.concrete(self._arguments[name])

    def wholes(self, name: str) -> tuple[int, ...]:
        argument = self._arguments[name]
        items = argument if isinstance(argument, (list, tuple)) else [argument]
        return tuple(self._raiser.concrete(item) for item in items)

    def number(self, name: str) -> float:
        argument = self._arguments[name]
        if not isinstance(argument, (int, float)):
            raise NoRuleError(f"argument {name} is {argument!r}, expected a number")
        return float(argument)

    def numbers(self, name: str) -> tuple[float, ...]:
        return tuple(float(item) for item in cast("Sequence[float]", self._arguments[name]))

    def flag(self, name: str) -> bool:
        return bool(self._arguments.get(name))

    def text(self, name: str) -> str:
        return str(self._arguments[name])

    def picked(self) -> set[int]:
        """Which of several results are read."""
        return {cast(int, user.args[1]) for user in self.node.users if user.users}

    def shape(self, name: str = "") -> tuple[int, ...]:
        """The shape of the call's result, or of an argument, with -1 on the batch axis."""
        value = cast(Node, self._arguments[name] if name else self.node).meta["val"]
        shape = tuple(-1 if symbolic(size) else int(size) for size in value.shape)
        if shape.count(-1) > 1:
            raise NoRuleError(
                f"its {name or 'result'} has shape {tuple(value.shape)}, {SEVERAL_AXES}"
            )
        return shape

    def _whole_result(self) -> bool:
        """Whether the call's result has a whole-number element type."""
        value = self.node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return False
        return not (value.is_floating_point() or value.dtype == torch.bool)

    def spec(self) -> TensorSpec:
        """Shape and element type of the call's result for one image."""
        return self._raiser.spec(self.node.meta["val"])


def symbolic(size: object) -> bool:
    """Whether a size depends on the batch; the exporter also writes known numbers as symbols."""
    return isinstance(size, torch.SymInt) and bool(size.node.expr.free_symbols)
