"""What a word of the graph's vocabulary is: its operands, tensors, attributes, and a function.

The words themselves are in ``evaluate.py`` (products, norms of the transformer, moves),
``pointwise.py`` (element by element, and reductions) and ``normalisation.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from torch import Tensor

__all__ = ["Attribute", "Attributes", "Evaluation", "Kind", "named", "number", "whole", "wholes"]

Attribute: TypeAlias = "int | float | str | bool | tuple[Attribute, ...]"
Attributes: TypeAlias = Mapping[str, Attribute]
Evaluation: TypeAlias = Callable[[Sequence[Tensor], Mapping[str, Tensor], Attributes], Tensor]


@dataclass(frozen=True)
class Kind:
    """One word of the vocabulary: its operands, tensor roles, attributes, and what it computes.

    ``operands`` is the number of operands, or None for any number from one; ``roles`` are required
    tensors, ``optional`` may be present. ``evaluate`` takes (operands, tensors by role,
    attributes).
    """

    operands: int | None
    evaluate: Evaluation
    roles: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()


def named(*names: str) -> frozenset[str]:
    """Names of roles or attributes."""
    return frozenset(names)


def wholes(attributes: Attributes, name: str) -> list[int]:
    """An attribute that is several whole numbers."""
    return list(cast("tuple[int, ...]", attributes[name]))


def whole(attributes: Attributes, name: str) -> int:
    """An attribute that is one whole number."""
    return int(cast(int, attributes[name]))


def number(attributes: Attributes, name: str) -> float:
    """An attribute that is one number."""
    return float(cast(float, attributes[name]))
