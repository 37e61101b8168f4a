"""What each integer operator computes, in plain int64: the definition that everything faster must
equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import VitruviusError
from .integer.activation import activation
from .integer.attention import AttentionCodes, attention
from .integer.gate import gate
from .integer.layernorm import LayerNormCodes, layernorm
from .integer.matmul import matmul_reference
from .integer.mixture import mixture
from .integer.requantize import requantize
from .integer.rounding import saturate
from .integer_operator import ACTIVATIONS, IntegerOperator
from .ivit_operators import KINDS as IVIT

__all__ = ["attention_codes", "evaluate_reference", "layernorm_codes", "patches", "role"]


def patches(images: Tensor, patch: int) -> Tensor:
    """[B, C, H, W] to [B, tokens, C*patch*patch], rows of patches first, features in the order of
    a conv weight.
    """
    batch, channels, height, width = images.shape
    grid = images.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * patch * patch)


def role(operator: IntegerOperator, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """The tensor in a role of ``operator`` as int64."""
    return tensors[operator.tensors[name]].to(torch.int64)


def layernorm_codes(operator: IntegerOperator, tensors: Mapping[str, Tensor]) -> LayerNormCodes:
    """The integer affine of a LayerNorm or RmsNorm."""
    return LayerNormCodes(
        gain=role(operator, tensors, "gain"),
        offset=role(operator, tensors, "offset"),
        shift=int(operator.attributes["affine_shift"]),
        epsilon=int(operator.attributes["epsilon"]),
        bits=operator.bits,
        centred=operator.kind == "LayerNorm",
    )


def attention_codes(operator: IntegerOperator, tensors: Mapping[str, Tensor]) -> AttentionCodes:
    """The dyadic factors, and the bias if there is one, of an Attention."""
    return AttentionCodes(
        heads=int(operator.attributes["heads"]),
        score=operator.dyadic("score"),
        apply=operator.dyadic("apply"),
        bits=operator.bits,
        bias=role(operator, tensors, "bias") if "bias" in operator.tensors else None,
    )


def evaluate_reference(
    operator: IntegerOperator,
    operands: Sequence[Tensor],
    images: Tensor,
    tensors: Mapping[str, Tensor],
) -> Tensor:
    """int64 codes [B, tokens, features] of one operator; ``operands``: int64 codes of its inputs,
    ``images``: the float images, which only a Quantize reads.

    Raises VitruviusError for an unknown kind.
    """
    kind, attributes = operator.kind, operator.attributes
    if kind == "Quantize":
        codes = torch.round(images.to(torch.float64) / operator.scale).to(torch.int64)
        return patches(saturate(codes, operator.bits), int(attributes["patch"]))
    if kind == "Linear":
        accumulator = matmul_reference(operands[0], role(operator, tensors, "weight").t())
        return requantize(
            accumulator + role(operator, tensors, "bias"),
            role(operator, tensors, "multiplier"),
            role(operator, tensors, "shift"),
            operator.bits,
        )
    if kind in IVIT:
        return IVIT[kind](operator, operands, tensors)
    if kind in ACTIVATIONS:
        factor = operator.dyadic("output")
        inside = activation(kind, operands[0])
        return requantize(inside, factor.multiplier, factor.shift, operator.bits)
    if kind in ("LayerNorm", "RmsNorm"):
        return layernorm(operands[0], layernorm_codes(operator, tensors))
    if kind == "Attention":
        q, k, v = operands
        return attention(q, k, v, attention_codes(operator, tensors))
    if kind == "Embed":
        constant = role(operator, tensors, "constant")
        first = int(attributes["first_token"])
        after = len(constant) - first - operands[0].shape[1]
        return saturate(constant + functional.pad(operands[0], (0, 0, first, after)), 16)
    if kind == "Add":
        return saturate(operands[0] + operands[1], operator.bits)
    if kind == "Select":
        first, count = int(attributes["token"]), operator.output[0]
        return operands[0][:, first : first + count]
    if kind == "Mean":
        factor = operator.dyadic("output")
        first, count = int(attributes["token"]), int(attributes["count"])
        total = operands[0][:, first : first + count].sum(1, keepdim=True)
        return requantize(total, factor.multiplier, factor.shift, operator.bits)
    if kind == "Requantize":
        factor = operator.dyadic("output")
        return requantize(operands[0], factor.multiplier, factor.shift, operator.bits)
    if kind == "Gate":
        return gate(operands[0], int(attributes["k"]))
    if kind == "Mixture":
        stream, gates, *outputs = operands
        return mixture(stream, gates, outputs)
    raise VitruviusError(f"integer operator {operator.name}: unknown kind {kind}")
