"""Rules for softmax and the norms."""

from __future__ import annotations

from functools import partial
from math import prod

import torch

from ..kind import Attribute
from ..raising import Raiser
from ..rewrite import Call, NoRuleError, Pieces, Ref, Value, Weight, rule

__all__ = ["batch_norm", "group_norm", "layer_norm", "rms_norm", "softmax"]


@rule(
    "aten.softmax.int",
    "aten._softmax.default",
    "aten.log_softmax.int",
    "aten._log_softmax.default",
)
def softmax(call: Call, raiser: Raiser) -> Value:
    """Softmax or its logarithm along one axis; the last axis is written -1."""
    operand = call.operand("self")
    if call.given("dtype") and call.spec().dtype != raiser.operators[operand.name].output.dtype:
        raise NoRuleError("a softmax that changes the element type has no rule")
    axes = len(raiser.shape(operand))
    dim = call.whole("dim") % axes
    kind = "LogSoftmax" if "log" in call.target else "Softmax"
    return raiser.add(kind, [operand], attributes={"dim": -1 if dim == axes - 1 else dim})


@rule("aten.layer_norm.default", "aten.native_layer_norm.default")
def layer_norm(call: Call, raiser: Raiser) -> Value:
    """Over the last axis; several last axes are made one."""
    _only_first(call)
    attributes: dict[str, Attribute] = {"eps": call.number("eps")}
    out = _over_last(call, raiser, "LayerNorm", attributes, ("weight", "bias"))
    return Pieces((lambda: out,)) if "native" in call.target else out


@rule("aten.rms_norm.default", "aten._fused_rms_norm.default")
def rms_norm(call: Call, raiser: Raiser) -> Value:
    """Over the last axis; several last axes are made one."""
    _only_first(call)
    eps = call.number("eps") if call.given("eps") else torch.finfo(torch.float32).eps
    out = _over_last(call, raiser, "RmsNorm", {"eps": eps}, ("weight",))
    return Pieces((lambda: out,)) if "fused" in call.target else out


@rule("aten.group_norm.default", "aten.native_group_norm.default")
def group_norm(call: Call, raiser: Raiser) -> Value:
    """Over groups of channels (axis 1) and all later axes."""
    _only_first(call)
    weights = _held(call, ("weight", "bias"))
    groups = call.whole("num_groups" if call.given("num_groups") else "group")
    attributes: dict[str, Attribute] = {"eps": call.number("eps"), "groups": groups}
    out = raiser.add("GroupNorm", [call.operand("input")], attributes=attributes, weights=weights)
    return Pieces((lambda: out,)) if "native" in call.target else out


@rule(
    "aten.batch_norm.default",
    "aten._native_batch_norm_legit_no_training.default",
    "aten.cudnn_batch_norm.default",
)
def batch_norm(call: Call, raiser: Raiser) -> Value:
    """With its running statistics it is one factor and one shift for each channel (axis 1)."""
    _only_first(call)
    if call.flag("training") or not call.given("running_mean") or not call.given("running_var"):
        raise NoRuleError("a batch norm without running statistics has no rule")
    held = _held(call, ("weight", "bias", "running_mean", "running_var"))
    values = {role: raiser.tensor(weight).double() for role, weight in held.items()}
    eps = call.number("epsilon" if call.given("epsilon") else "eps")
    factor = (values["running_var"] + eps).rsqrt()
    if "weight" in values:
        factor = factor * values["weight"]
    shift = -values["running_mean"] * factor
    if "bias" in values:
        shift = shift + values["bias"]
    key = held["running_mean"].key.rpartition(".")[0]
    trained = "weight" in held and held["weight"].parameter
    made = {"weight": factor.float(), "bias": shift.float()}
    weights = {
        role: raiser.hold(
            f"{key}.{role}.folded" if key else f"{role}.folded", tensor, parameter=trained
        )
        for role, tensor in made.items()
    }
    out = raiser.add("ScaleShift", [call.operand("input")], attributes={"axis": 1}, weights=weights)
    return out if call.target == "aten.batch_norm.default" else Pieces((lambda: out,))


def _over_last(
    call: Call,
    raiser: Raiser,
    kind: str,
    attributes: dict[str, Attribute],
    roles: tuple[str, ...],
) -> Ref:
    """A norm over the last ``normalized_shape`` axes, flattened when there are several."""
    normalized = call.wholes("normalized_shape")
    operand, weights = call.operand("input"), _held(call, roles)
    attributes = {**attributes, "normalized": prod(normalized)}
    norm = partial(raiser.add, kind, attributes=attributes)
    if len(normalized) == 1:
        return norm([operand], weights=weights)
    shape = call.shape("input")
    if -1 in shape[-len(normalized) :]:
        raise NoRuleError("a norm over the batch has no rule")
    flat = {
        role: raiser.hold(
            f"{held.key}.flat", raiser.tensor(held).flatten(), parameter=held.parameter
        )
        for role, held in weights.items()
    }
    made_one = (*shape[: -len(normalized)], prod(normalized))
    lined = raiser.add("View", [operand], attributes={"op": "reshape", "shape": made_one})
    return raiser.add(
        "View",
        [norm([lined], weights=flat)],
        attributes={"op": "reshape", "shape": shape},
    )


def _held(call: Call, roles: tuple[str, ...]) -> dict[str, Weight]:
    return {role: held for role in roles if (held := call.weight(role))}


def _only_first(call: Call) -> None:
    """A norm's own statistics, which some overloads also return, have no kind."""
    if not isinstance(call.node.meta["val"], torch.Tensor) and call.picked() - {0}:
        raise NoRuleError("the statistics of a norm have no rule as results")
