"""The integer operators of scheme `ivit`: what each computes, and how far it can go.

A product, an embedding and an addition end in a 31-bit dyadic requantization; the others are the
operators of `models.integer.ivit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .integer.ivit.attention import ShiftAttention, attention
from .integer.ivit.dyadic import Dyadic31, add_requantized, requantize31
from .integer.ivit.layernorm import Affine, Root, layernorm
from .integer.ivit.shift_gelu import Mode, shift_gelu
from .integer.matmul import matmul_reference
from .integer.rounding import saturate
from .integer_operator import IntegerOperator

__all__ = ["KINDS", "MODES", "ROOTS", "bounds", "dyadic_of"]

_INT16 = (1 << 15) - 1
_INT32 = (1 << 31) - 1
_INT64 = (1 << 63) - 1
_BRANCHES = ("left", "right")
ROOTS: tuple[Root, ...] = ("exact", "newton")
MODES: tuple[Mode, ...] = ("safe", "faithful")


def dyadic_of(operator: IntegerOperator, role: str) -> Dyadic31:
    """The factor that the attributes ``<role>_multiplier`` and ``<role>_shift`` hold."""
    factor = operator.dyadic(role)
    return Dyadic31(factor.multiplier, factor.shift)


def _linear(
    operator: IntegerOperator, operands: Sequence[Tensor], tensors: Mapping[str, Tensor]
) -> Tensor:
    role = {name: tensors[key].to(torch.int64) for name, key in operator.tensors.items()}
    sums = matmul_reference(operands[0], role["weight"].t()) + role["bias"]
    return requantize31(sums, role["multiplier"], role["shift"], operator.bits)


def _gelu(
    operator: IntegerOperator, operands: Sequence[Tensor], tensors: Mapping[str, Tensor]
) -> Tensor:
    mode = MODES[int(operator.attributes["faithful"])]
    inside = shift_gelu(operands[0], int(operator.attributes["a"]), mode)
    factor = dyadic_of(operator, "output")
    return requantize31(inside, factor.multiplier, factor.shift, operator.bits)


def _norm(
    operator: IntegerOperator, operands: Sequence[Tensor], tensors: Mapping[str, Tensor]
) -> Tensor:
    role = {name: tensors[key].to(torch.int64) for name, key in operator.tensors.items()}
    parameters = Affine(role["bias"], role["alive"], torch.empty(0))
    normal = layernorm(operands[0], parameters, ROOTS[int(operator.attributes["newton"])])
    return requantize31(normal, role["multiplier"], role["shift"], operator.bits)


def _attention(
    operator: IntegerOperator, operands: Sequence[Tensor], tensors: Mapping[str, Tensor]
) -> Tensor:
    q, k, v = operands
    codes = ShiftAttention(
        heads=int(operator.attributes["heads"]),
        score=dyadic_of(operator, "score"),
        a=int(operator.attributes["a"]),
        n=int(operator.attributes["octaves"]),
        apply=dyadic_of(operator, "apply"),
        bits=operator.bits,
    )
    return attention(q, k, v, codes)


def _embed(
    operator: IntegerOperator, operands: Sequence[Tensor], tensors: Mapping[str, Tensor]
) -> Tensor:
    constant = tensors[operator.tensors["constant"]].to(torch.int64)
    factor = dyadic_of(operator, "patches")
    patches = requantize31(operands[0], factor.multiplier, factor.shift, 32)
    first = int(operator.attributes["first_token"])
    after = len(constant) - first - patches.shape[1]
    return saturate(constant + functional.pad(patches, (0, 0, first, after)), operator.bits)


def _add(
    operator: IntegerOperator, operands: Sequence[Tensor], tensors: Mapping[str, Tensor]
) -> Tensor:
    left, right = operands
    return add_requantized(
        left, dyadic_of(operator, "left"), right, dyadic_of(operator, "right"), operator.bits
    )


KINDS: Mapping[str, Callable[[IntegerOperator, Sequence[Tensor], Mapping[str, Tensor]], Tensor]] = {
    "Linear31": _linear,
    "ShiftGelu": _gelu,
    "ILayerNorm": _norm,
    "ShiftAttention": _attention,
    "Embed31": _embed,
    "Add31": _add,
}
"""int64 codes [B, tokens, features] of an operator from those of its inputs, by its kind."""


def bounds(
    operator: IntegerOperator, inputs: Sequence[IntegerOperator], tensors: Mapping[str, Tensor]
) -> list[tuple[str, int, int]]:
    """What the accumulators of an operator of `KINDS` can reach at most, and their limits."""
    reach = [1 << (source.bits - 1) for source in inputs]
    if operator.kind == "Linear31":
        weight = tensors[operator.tensors["weight"]].to(torch.int64).abs().sum(1) * reach[0]
        total = weight + tensors[operator.tensors["bias"]].to(torch.int64).abs()
        multiplier = tensors[operator.tensors["multiplier"]].to(torch.int64).abs()
        scaled = max(map(int.__mul__, total.tolist(), multiplier.tolist()))
        return [
            ("an accumulator", int(total.max()), _INT32),
            ("a scaled accumulator", scaled, _INT64),
        ]
    if operator.kind == "ShiftGelu":
        a = int(operator.attributes["a"])
        return [
            ("a sum of two exponentials", 2 * a << 23, _INT32),
            ("a code times a sigmoid", reach[0] << 7, _INT16),
        ]
    if operator.kind == "ILayerNorm":
        width = operator.output[1]
        bias = int(tensors[operator.tensors["bias"]].to(torch.int64).abs().max())
        return [
            ("a sum", width * reach[0], _INT32),
            ("a sum of squares", width * (2 * reach[0]) ** 2, (1 << 48) - 1),
            # No code is farther from the mean than the root of all squares, so its quotient is
            # half of 2**31 at most; what leaves 32 bits with the bias saturates.
            ("a quotient with its bias", (1 << 30) + bias, (1 << 32) - 1),
        ]
    if operator.kind == "ShiftAttention":
        keys, width = inputs[1].output[0], operator.output[1] // int(operator.attributes["heads"])
        a, octaves = int(operator.attributes["a"]), int(operator.attributes["octaves"])
        return [
            ("a score accumulator", width * reach[0] * reach[1], _INT32),
            ("a sum of weights", keys * a << octaves, _INT32),
            # The weights of a row add up to 2**15 at most.
            ("an accumulator of weighted values", reach[2] << 15, _INT32),
        ]
    if operator.kind == "Embed31":
        constant = int(tensors[operator.tensors["constant"]].to(torch.int64).abs().max())
        patches = _branch(operator, "patches", reach[0])
        return [("a sum", constant + patches, (1 << 32) - 1)]
    left, right = (_branch(operator, role, top) for role, top in zip(_BRANCHES, reach, strict=True))
    return [("a sum of both branches", left + right, (1 << 32) - 1)]


def _branch(operator: IntegerOperator, role: str, reach: int) -> int:
    """How far a branch of ``reach`` goes once it is requantized to 32 bits."""
    factor = dyadic_of(operator, role)
    return min(1 << 31, (reach * abs(factor.multiplier) >> factor.shift) + 1)
