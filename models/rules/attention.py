"""The rule for attention's fused operator."""

from __future__ import annotations

import torch

from ..kind import Attribute
from ..raising import Raiser
from ..rewrite import Call, NoRuleError, Ref, Value, Weight, rule
from .linear import product, reshaped

__all__ = ["scaled_dot_product_attention"]


@rule("aten.scaled_dot_product_attention.default")
def scaled_dot_product_attention(call: Call, raiser: Raiser) -> Value:
    """softmax(scale * q k^T + mask) v as MatMul, (Add,) Softmax, MatMul: q [B, H, N, d], k and v
    [B, H, M, d].
    """
    if call.number("dropout_p") != 0.0:
        raise NoRuleError("attention with dropout has no rule; put the module in eval mode")
    q, k, v = (call.operand(name) for name in ("query", "key", "value"))
    if call.flag("enable_gqa"):
        k, v = (_for_every_head(raiser, part, raiser.shape(q)[-3]) for part in (k, v))
    head_dim = raiser.shape(q)[-1]
    scale = call.number("scale") if call.given("scale") else head_dim**-0.5
    scores = product(raiser, q, k, transpose_b=True, scale=scale, label="scores")
    mask = _mask(call, raiser, raiser.shape(scores))
    if mask is not None:
        scores = raiser.add("Add", [scores, mask], label="mask")
    share = raiser.add("Softmax", [scores], attributes={"dim": -1}, label="softmax")
    return product(raiser, share, v, transpose_b=False, label="apply")


def _for_every_head(raiser: Raiser, part: Ref, heads: int) -> Ref:
    """Keys or values [B, G, M, d] once for each of the ``heads`` that share one of the G."""
    _, groups, *rest = raiser.shape(part)
    if groups == heads:
        return part
    apart = reshaped(raiser, part, (-1, groups, 1, *rest))
    attributes: dict[str, Attribute] = {
        "op": "expand",
        "shape": (-1, -1, heads // groups, -1, -1),
    }
    wide = raiser.add("View", [apart], attributes=attributes, label="expand")
    return reshaped(raiser, wide, (-1, heads, *rest))


def _mask(call: Call, raiser: Raiser, shape: tuple[int, ...]) -> Ref | None:
    """The additive mask: a boolean one becomes 0 and minus infinity."""
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
        numbers = [raiser.scalar(0.0), raiser.scalar(float("-inf"))]
        return raiser.add("Where", [mask_operand, *numbers], label="mask")
    return mask_operand
