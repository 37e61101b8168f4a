"""Rules for element-wise operators, means, and the ones that vanish in inference."""

from __future__ import annotations

from ..evaluate import Attribute
from ..raising import Raiser
from ..rewrite import Call, NoRuleError, Ref, Value, Weight, rule

__all__ = [
    "add",
    "div",
    "dropout",
    "gelu",
    "global_average_pool",
    "mean",
    "mul",
    "neg",
    "reverse_sub",
    "same",
    "sub",
    "unary",
]

_UNARY = {"relu": "Relu", "silu": "Silu", "sigmoid": "Sigmoid", "tanh": "Tanh"}


@rule("aten.gelu.default")
def gelu(call: Call, raiser: Raiser) -> Value:
    """Operand times the normal distribution function, exact ("none") or by tanh."""
    attributes: dict[str, Attribute] = {"approximate": call.text("approximate")}
    return raiser.add("Gelu", [call.operand("self")], attributes=attributes)


@rule(*(f"aten.{name}.default" for name in _UNARY))
def unary(call: Call, raiser: Raiser) -> Value:
    """One operand, no parameters."""
    return raiser.add(_UNARY[call.target.split(".")[1]], [call.operand("self")])


@rule("aten.add.Tensor", "aten.add.Scalar")
def add(call: Call, raiser: Raiser) -> Value:
    """The first operand plus alpha times the second."""
    other = _scaled(raiser, call.operand("other"), call.number("alpha"))
    return raiser.add("Add", [call.operand("self"), other])


@rule("aten.sub.Tensor", "aten.sub.Scalar")
def sub(call: Call, raiser: Raiser) -> Value:
    """The first operand minus alpha times the second, as an addition."""
    other = _scaled(raiser, call.operand("other"), -call.number("alpha"))
    return raiser.add("Add", [call.operand("self"), other])


@rule("aten.rsub.Scalar", "aten.rsub.Tensor")
def reverse_sub(call: Call, raiser: Raiser) -> Value:
    """The second operand minus alpha times the first, as an addition."""
    own = _scaled(raiser, call.operand("self"), -call.number("alpha"))
    return raiser.add("Add", [own, call.operand("other")])


@rule("aten.neg.default")
def neg(call: Call, raiser: Raiser) -> Value:
    """A multiplication by -1."""
    return _scaled(raiser, call.operand("self"), -1.0)


@rule("aten.mul.Tensor", "aten.mul.Scalar")
def mul(call: Call, raiser: Raiser) -> Value:
    """Element by element, or by one number."""
    return raiser.add("Mul", [call.operand("self"), call.operand("other")])


@rule("aten.div.Tensor", "aten.div.Scalar")
def div(call: Call, raiser: Raiser) -> Value:
    """By a number or a tensor known at trace time: a multiplication by its reciprocal."""
    divisor = call.value("other")
    if isinstance(divisor, Weight):
        values = raiser.tensor(divisor).double().reciprocal().float()
        held = raiser.hold(f"{divisor.key}.reciprocal", values, parameter=divisor.parameter)
        return raiser.add("Mul", [call.operand("self"), raiser.as_operand(held)])
    if divisor is not None:
        raise NoRuleError("a division by a computed tensor has no rule")
    return raiser.add("Mul", [call.operand("self"), raiser.scalar(1.0 / call.number("other"))])


@rule("aten.mean.dim")
def mean(call: Call, raiser: Raiser) -> Value:
    """Average over some axes."""
    operand = call.operand("self")
    axes = len(raiser.shape(operand))
    dims = tuple(sorted(dim % axes for dim in call.wholes("dim"))) if call.given("dim") else ()
    return _mean(raiser, operand, dims, call.flag("keepdim"))


@rule("aten.adaptive_avg_pool2d.default", "aten._adaptive_avg_pool2d.default")
def global_average_pool(call: Call, raiser: Raiser) -> Value:
    """[B, C, H, W] to [B, C, 1, 1]."""
    if call.wholes("output_size") not in ((1, 1), (1,)):
        raise NoRuleError(
            f"adaptive pooling to {call.wholes('output_size')} has no rule, only to 1 x 1"
        )
    operand = call.operand("self")
    axes = len(raiser.shape(operand))
    return _mean(raiser, operand, (axes - 2, axes - 1), True)


@rule("aten.dropout.default", "aten.native_dropout.default", "aten.feature_dropout.default")
def dropout(call: Call, raiser: Raiser) -> Value:
    """Nothing, in inference."""
    if call.flag("train") and call.number("p") != 0.0:
        raise NoRuleError("dropout that is on in eval mode has no rule")
    return call.value("input")


@rule(
    "aten.contiguous.default",
    "aten.clone.default",
    "aten.detach.default",
    "aten.alias.default",
    "aten.lift_fresh_copy.default",
    "aten.lift_fresh.default",
    "aten._to_copy.default",
    "aten.to.dtype",
    "aten.to.device",
    "aten.to.dtype_layout",
    "aten.to.other",
    "aten.type_as.default",
)
def same(call: Call, raiser: Raiser) -> Value:
    """Copies and conversions to the same element type vanish."""
    operand = call.operand("self")
    before, after = raiser.operators[operand.name].output.dtype, call.spec().dtype
    if before != after:
        raise NoRuleError(f"a conversion from {before} to {after} has no rule")
    return operand


def _mean(raiser: Raiser, operand: Ref, dims: tuple[int, ...], keepdim: bool) -> Ref:
    if not dims:
        raise NoRuleError("a mean over all axes, the batch included, has no rule")
    return raiser.add("Mean", [operand], attributes={"dims": dims, "keepdim": keepdim})


def _scaled(raiser: Raiser, operand: Ref, factor: float) -> Ref:
    return operand if factor == 1.0 else raiser.add("Mul", [operand, raiser.scalar(factor)])
