"""Rules for attention's fused operator and for softmax and normalisation."""

from __future__ import annotations

import torch

from ..evaluate import Attribute
from ..raising import Raiser
from ..rewrite import Call, NoRuleError, Ref, Value, Weight, rule
from .linear import product

__all__ = ["layer_norm", "scaled_dot_product_attention", "softmax"]


@rule("aten.scaled_dot_product_attention.default")
def scaled_dot_product_attention(call: Call, raiser: Raiser) -> Value:
    """softmax(scale * q k^T + mask) v as MatMul, (Add,) Softmax, MatMul: q [B, H, N, d], k and v
    [B, H, M, d].
    """
    if call.number("dropout_p") != 0.0:
        raise NoRuleError("attention with dropout has no rule; put the module in eval mode")
    if call.flag("enable_gqa"):
        raise NoRuleError("grouped queries have no rule")
    q, k, v = (call.operand(name) for name in ("query", "key", "value"))
    head_dim = raiser.shape(q)[-1]
    scale = call.number("scale") if call.given("scale") else head_dim**-0.5
    scores = product(raiser, q, k, transpose_b=True, scale=scale, label="scores")
    mask = _mask(call, raiser, raiser.shape(scores))
    if mask is not None:
        scores = raiser.add("Add", [scores, mask], label="mask")
    share = raiser.add("Softmax", [scores], attributes={"dim": -1}, label="softmax")
    return product(raiser, share, v, transpose_b=False, label="apply")


@rule("aten.softmax.int", "aten._softmax.default")
def softmax(call: Call, raiser: Raiser) -> Value:
    """Softmax along one axis; the last axis is written -1."""
    operand = call.operand("self")
    if call.given("dtype") and call.spec().dtype != raiser.operators[operand.name].output.dtype:
        raise NoRuleError("a softmax that changes the element type has no rule")
    axes = len(raiser.shape(operand))
    dim = call.whole("dim") % axes
    return raiser.add("Softmax", [operand], attributes={"dim": -1 if dim == axes - 1 else dim})


@rule("aten.layer_norm.default")
def layer_norm(call: Call, raiser: Raiser) -> Value:
    """Over the last axis only."""
    normalized = call.wholes("normalized_shape")
    if len(normalized) != 1:
        raise NoRuleError(f"normalisation over {len(normalized)} axes has no rule")
    weights = {role: held for role in ("weight", "bias") if (held := call.weight(role))}
    attributes: dict[str, Attribute] = {"eps": call.number("eps"), "normalized": normalized[0]}
    return raiser.add("LayerNorm", [call.operand("input")], attributes=attributes, weights=weights)


def _mask(call: Call, raiser: Raiser, shape: tuple[int, ...]) -> Ref | None:
    """The additive mask: a boolean one known at trace time becomes 0 and minus infinity."""
    if call.flag("is_causal"):
        causal = torch.full(shape[-2:], float("-inf")).triu(1)
        return raiser.as_operand(
            raiser.hold(f"causal.{shape[-2]}x{shape[-1]}", causal, parameter=False)
        )
    if not call.given("attn_mask"):
        return None
    held = call.value("attn_mask")
    if isinstance(held, Weight) and raiser.tensor(held).dtype == torch.bool:
        kept = raiser.tensor(held)
        mask = torch.zeros(kept.shape).masked_fill(~kept, float("-inf"))
        return raiser.as_operand(raiser.hold(f"{held.key}.additive", mask, parameter=False))
    mask_operand = call.operand("attn_mask")
    if raiser.operators[mask_operand.name].output.dtype == "bool":
        raise NoRuleError("a boolean mask computed from the input has no rule")
    return mask_operand
