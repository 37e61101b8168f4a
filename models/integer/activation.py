"""Activations as ``relu(x) - delta(|x|)``: one datapath, a table of delta each.

x * s(x) with ``s(-x) = 1 - s(x)`` has the even ``delta(a) = a * s(-a)``: GELU (exact and by tanh),
QuickGELU and SiLU are of this form, and ReLU is with delta zero. A table ends where delta stays
below half a step of its last bit, 2**-15.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .gelu import DELTA_FRACTION, STEP_FRACTION, delta_table, rectified

__all__ = ["activation", "activation_table"]

_GATES: dict[str, Callable[[float], float]] = {
    "GeluTanh": lambda a: _logistic(-2 * math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)),
    "QuickGelu": lambda a: _logistic(-1.702 * a),
    "Silu": lambda a: _logistic(-a),
    "Relu": lambda a: 0.0,
}
"""``s(-a)`` for a >= 0; GELU's tanh approximation (1 + tanh u) / 2 is the logistic of 2u."""


def _logistic(value: float) -> float:
    return math.exp(value) / (1 + math.exp(value))


def activation_table(kind: str) -> list[int]:
    """``round(delta(i / 32) * 2**14)`` up to the first entry from which delta stays below 2**-15.

    ``kind``: one of `models.integer_operator.ACTIVATIONS`; KeyError for another.

    >>> [len(activation_table(kind)) for kind in ("Gelu", "GeluTanh", "QuickGelu", "Silu", "Relu")]
    [177, 135, 234, 416, 2]
    """
    if kind == "Gelu":
        return delta_table()
    gate = _GATES[kind]
    entries = [
        round(i / (1 << STEP_FRACTION) * gate(i / (1 << STEP_FRACTION)) * (1 << DELTA_FRACTION))
        for i in range(32 << STEP_FRACTION)
    ]
    last = max((i for i, entry in enumerate(entries) if entry), default=0)
    return entries[: last + 2]


def activation(kind: str, x: Tensor) -> Tensor:
    """The activation of 16-bit codes with 10 fraction bits (int64), same format out.

    >>> activation("Silu", torch.tensor([-1024, 0, 1024])).tolist()
    [-275, 0, 749]
    """
    return rectified(x, torch.tensor(activation_table(kind), dtype=torch.int64))
