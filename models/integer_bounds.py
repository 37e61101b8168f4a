"""How far every accumulator of an integer operator can go, proven from its codes, and its limit.

The limits are the widths of the hardware: 32 bits for products and sums of codes, 48 bits for an
accumulator times a multiplier (a DSP48E2's), and those of the LayerNorm unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from .integer.gate import GATE_FRACTION
from .integer.layernorm import MAX_WIDTH
from .integer_operator import ACTIVATIONS, IntegerOperator
from .integer_reference import role
from .ivit_operators import KINDS as IVIT
from .ivit_operators import bounds

__all__ = ["AccumulatorBound", "accumulator_bounds"]

_INT32 = (1 << 31) - 1
_INT48 = (1 << 47) - 1
_WEIGHT = 255
"""Largest softmax weight."""
_EPSILON_BITS = 52
"""Bits of a LayerNorm's epsilon in the hardware."""


class AccumulatorBound(NamedTuple):
    """``what`` of ``operator`` cannot exceed ``bound`` in magnitude; its register holds up to
    ``limit``.
    """

    operator: str
    what: str
    bound: int
    limit: int


def accumulator_bounds(
    operator: IntegerOperator,
    inputs: Sequence[IntegerOperator],
    tensors: Mapping[str, Tensor],
) -> list[AccumulatorBound]:
    """Bounds of one operator, given the operators it reads; empty if it accumulates nothing."""
    reach = [1 << (source.bits - 1) for source in inputs]
    return [
        AccumulatorBound(operator.name, *row) for row in _rows(operator, inputs, reach, tensors)
    ]


def _rows(
    operator: IntegerOperator,
    inputs: Sequence[IntegerOperator],
    reach: Sequence[int],
    tensors: Mapping[str, Tensor],
) -> list[tuple[str, int, int]]:
    kind = operator.kind
    if kind in IVIT:
        return bounds(operator, inputs, tensors)
    if kind == "Linear":
        weight = role(operator, tensors, "weight").abs().sum(1) * reach[0]
        total = weight + role(operator, tensors, "bias").abs()
        scaled = total * role(operator, tensors, "multiplier")
        return [
            ("an accumulator", int(total.max()), _INT32),
            ("a scaled accumulator", int(scaled.max()), _INT48),
        ]
    if kind in ACTIVATIONS:
        factor = operator.dyadic("output").multiplier
        return [("a scaled result", reach[0] * factor, _INT48)]
    if kind in ("LayerNorm", "RmsNorm"):
        return _norm(operator, reach[0], tensors)
    if kind == "Attention":
        heads = int(operator.attributes["heads"])
        keys, head_dim = inputs[1].output[0], operator.output[1] // heads
        scores, mixed = head_dim * reach[0] * reach[1], keys * _WEIGHT * reach[2]
        return [
            ("a score accumulator", scores, _INT32),
            ("a scaled score", scores * operator.dyadic("score").multiplier, _INT48),
            ("a sum of weights", keys * _WEIGHT, _INT32),
            ("an accumulator of weighted values", mixed, _INT32),
            ("a scaled row", mixed * ((1 << 16) - 1), _INT48),
        ]
    if kind == "Embed":
        constant = int(role(operator, tensors, "constant").abs().max())
        return [("a sum", constant + reach[0], _INT32)]
    if kind == "Add":
        return [("a sum", sum(reach), _INT32)]
    if kind == "Mean":
        tokens = int(operator.attributes["count"]) * reach[0]
        factor = operator.dyadic("output").multiplier
        return [("a sum of tokens", tokens, _INT32), ("a scaled sum", tokens * factor, _INT48)]
    if kind == "Requantize":
        return [("a scaled code", reach[0] * operator.dyadic("output").multiplier, _INT48)]
    if kind == "Gate":
        experts = operator.output[1]
        return [
            ("a sum of weights", experts * _WEIGHT, _INT32),
            ("a weight times a reciprocal", _WEIGHT * ((1 << 16) - 1), _INT32),
        ]
    if kind == "Mixture":
        share = max(reach[2:], default=0) * ((1 << GATE_FRACTION) - 1)
        return [
            ("an output times a gate weight", share, _INT32),
            ("a sum", reach[0] + max(reach[2:], default=0), _INT32),
        ]
    return []


def _norm(
    operator: IntegerOperator, reach: int, tensors: Mapping[str, Tensor]
) -> list[tuple[str, int, int]]:
    """The parts of the LayerNorm unit; widths as in `hwgen.units.norm_scale` and `layernorm`."""
    width = operator.output[1]
    squares = width * reach * reach
    largest = width * squares + int(operator.attributes["epsilon"])
    gain = role(operator, tensors, "gain").abs()
    affine = (gain << 15) + role(operator, tensors, "offset").abs()
    total_bits = 16 + (MAX_WIDTH - 1).bit_length()
    return [
        ("a sum", width * reach, 1 << (total_bits - 1)),
        ("a sum of squares", squares, MAX_WIDTH << 30),
        ("a variance", largest, (1 << (_EPSILON_BITS + 1)) - 1),
        ("a centred value times a root", 2 * width * reach * ((1 << 16) - 1), _INT48),
        ("a scaled result", int(affine.max()), (1 << 33) - 1),
    ]
