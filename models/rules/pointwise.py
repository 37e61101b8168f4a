"""Rules for arithmetic element by element, and for the operators that vanish in inference."""

from __future__ import annotations

from ..kind import Attribute
from ..pointwise import COMPARISONS
from ..raising import Raiser
from ..rewrite import Call, NoRuleError, Pieces, Ref, Value, Weight, rule

__all__ = [
    "add",
    "addcdiv",
    "addcmul",
    "bitwise",
    "clamp",
    "clamp_between",
    "compare",
    "div",
    "dropout",
    "larger",
    "lerp",
    "masked_fill",
    "mul",
    "neg",
    "power",
    "reverse_sub",
    "same",
    "scaled",
    "sub",
    "unary",
    "where",
]

_UNARY = {
    "abs": "Abs",
    "ceil": "Ceil",
    "cos": "Cos",
    "erf": "Erf",
    "exp": "Exp",
    "expm1": "Expm1",
    "floor": "Floor",
    "log": "Log",
    "log1p": "Log1p",
    "logical_not": "Not",
    "reciprocal": "Reciprocal",
    "round": "Round",
    "rsqrt": "Rsqrt",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
}
_POWERS = {0.5: "Sqrt", -0.5: "Rsqrt", -1.0: "Reciprocal"}
_LOGIC = {"logical_and": "and", "logical_or": "or", "logical_xor": "xor"}


@rule(*(f"aten.{name}.default" for name in _UNARY))
def unary(call: Call, raiser: Raiser) -> Value:
    """One operand, no parameters."""
    return raiser.add(_UNARY[call.target.split(".")[1]], [call.operand("self")])


@rule("aten.add.Tensor", "aten.add.Scalar")
def add(call: Call, raiser: Raiser) -> Value:
    """The first operand plus alpha times the second."""
    other = scaled(raiser, call.operand("other"), call.number("alpha"))
    return raiser.add("Add", [call.operand("self"), other])


@rule("aten.sub.Tensor", "aten.sub.Scalar")
def sub(call: Call, raiser: Raiser) -> Value:
    """The first operand minus alpha times the second, as an addition."""
    other = scaled(raiser, call.operand("other"), -call.number("alpha"))
    return raiser.add("Add", [call.operand("self"), other])


@rule("aten.rsub.Scalar", "aten.rsub.Tensor")
def reverse_sub(call: Call, raiser: Raiser) -> Value:
    """The second operand minus alpha times the first, as an addition."""
    own = scaled(raiser, call.operand("self"), -call.number("alpha"))
    return raiser.add("Add", [own, call.operand("other")])


@rule("aten.neg.default")
def neg(call: Call, raiser: Raiser) -> Value:
    """A multiplication by -1."""
    return scaled(raiser, call.operand("self"), -1.0)


@rule("aten.mul.Tensor", "aten.mul.Scalar")
def mul(call: Call, raiser: Raiser) -> Value:
    """Element by element, or by one number."""
    return raiser.add("Mul", [call.operand("self"), call.operand("other")])


@rule("aten.div.Tensor", "aten.div.Scalar")
def div(call: Call, raiser: Raiser) -> Value:
    """By a number or a tensor known at trace time: a multiplication by its reciprocal; else Div."""
    divisor = call.value("other")
    if isinstance(divisor, Weight):
        values = raiser.tensor(divisor).double().reciprocal().float()
        held = raiser.hold(f"{divisor.key}.reciprocal", values, parameter=divisor.parameter)
        return raiser.add("Mul", [call.operand("self"), raiser.as_operand(held)])
    if divisor is not None:
        return raiser.add("Div", [call.operand("self"), call.operand("other")])
    return raiser.add("Mul", [call.operand("self"), raiser.scalar(1.0 / call.number("other"))])


@rule("aten.addcmul.default")
def addcmul(call: Call, raiser: Raiser) -> Value:
    """The first operand plus value times the product of the others."""
    product = raiser.add("Mul", [call.operand("tensor1"), call.operand("tensor2")])
    return raiser.add("Add", [call.operand("self"), scaled(raiser, product, call.number("value"))])


@rule("aten.addcdiv.default")
def addcdiv(call: Call, raiser: Raiser) -> Value:
    """The first operand plus value times the quotient of the others."""
    quotient = raiser.add("Div", [call.operand("tensor1"), call.operand("tensor2")])
    return raiser.add("Add", [call.operand("self"), scaled(raiser, quotient, call.number("value"))])


@rule("aten.lerp.Scalar")
def lerp(call: Call, raiser: Raiser) -> Value:
    """(1 - weight) times the first operand plus weight times the second."""
    weight = call.number("weight")
    start = scaled(raiser, call.operand("self"), 1.0 - weight)
    return raiser.add("Add", [start, scaled(raiser, call.operand("end"), weight)])


@rule("aten.pow.Tensor_Scalar", "aten.square.default")
def power(call: Call, raiser: Raiser) -> Value:
    """To a number; roots and the reciprocal have kinds of their own."""
    exponent = 2.0 if call.target == "aten.square.default" else call.number("exponent")
    operand = call.operand("self")
    if exponent == 1.0:
        return operand
    if exponent in _POWERS:
        return raiser.add(_POWERS[exponent], [operand])
    attributes: dict[str, Attribute] = {"exponent": exponent}
    return raiser.add("Pow", [operand], attributes=attributes)


@rule(
    "aten.clamp.default",
    "aten.clamp_min.default",
    "aten.clamp_max.default",
    "aten.hardtanh.default",
    "aten.relu6.default",
    "aten.relu.default",
)
def clamp(call: Call, raiser: Raiser) -> Value:
    """Between two numbers, either of which may be missing; from 0 up is Relu, from 0 to 6 Relu6."""
    name = call.target.split(".")[1]
    lower, upper = {"relu": (0.0, None), "relu6": (0.0, 6.0)}.get(name, (None, None))
    for argument in ("min", "min_val"):
        lower = call.number(argument) if call.given(argument) else lower
    for argument in ("max", "max_val"):
        upper = call.number(argument) if call.given(argument) else upper
    operand = call.operand("self")
    if lower == 0.0 and upper in (None, 6.0):
        return raiser.add("Relu" if upper is None else "Relu6", [operand])
    attributes: dict[str, Attribute] = {}
    if lower is not None:
        attributes["lower"] = lower
    if upper is not None:
        attributes["upper"] = upper
    return raiser.add("Clamp", [operand], attributes=attributes)


@rule("aten.clamp.Tensor", "aten.clamp_min.Tensor", "aten.clamp_max.Tensor")
def clamp_between(call: Call, raiser: Raiser) -> Value:
    """Between two tensors, either of which may be missing."""
    out = call.operand("self")
    if call.given("min"):
        out = raiser.add("Maximum", [out, call.operand("min")])
    if call.given("max"):
        out = raiser.add("Minimum", [out, call.operand("max")])
    return out


@rule("aten.maximum.default", "aten.max.other", "aten.minimum.default", "aten.min.other")
def larger(call: Call, raiser: Raiser) -> Value:
    """The larger or the smaller of two, element by element."""
    kind = "Maximum" if call.target.startswith("aten.max") else "Minimum"
    return raiser.add(kind, [call.operand("self"), call.operand("other")])


@rule(
    *(f"aten.{name}.{kind}" for name in COMPARISONS for kind in ("Tensor", "Scalar")),
    *(f"aten.{name}.default" for name in _LOGIC),
)
def compare(call: Call, raiser: Raiser) -> Value:
    """A boolean tensor from two operands."""
    name = call.target.split(".")[1]
    attributes: dict[str, Attribute] = {"op": _LOGIC.get(name, name)}
    operands = [call.operand("self"), call.operand("other")]
    return raiser.add("Compare", operands, attributes=attributes)


@rule(
    "aten.bitwise_and.Tensor",
    "aten.bitwise_or.Tensor",
    "aten.bitwise_xor.Tensor",
    "aten.bitwise_not.default",
    "aten.__and__.Tensor",
    "aten.__or__.Tensor",
)
def bitwise(call: Call, raiser: Raiser) -> Value:
    """Of booleans only, where it is logic."""
    if call.spec().dtype != "bool":
        raise NoRuleError("bitwise logic of numbers has no rule")
    name = call.target.split(".")[1].removeprefix("bitwise_").strip("_")
    if name == "not":
        return raiser.add("Not", [call.operand("self")])
    operands = [call.operand("self"), call.operand("other")]
    return raiser.add("Compare", operands, attributes={"op": name})


@rule("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def where(call: Call, raiser: Raiser) -> Value:
    """One of two, by a boolean condition."""
    operands = [call.operand(name) for name in ("condition", "self", "other")]
    return raiser.add("Where", operands)


@rule("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(call: Call, raiser: Raiser) -> Value:
    """The value where the mask holds."""
    operands = [call.operand(name) for name in ("mask", "value", "self")]
    return raiser.add("Where", operands)


@rule("aten.dropout.default", "aten.native_dropout.default", "aten.feature_dropout.default")
def dropout(call: Call, raiser: Raiser) -> Value:
    """Nothing, in inference."""
    if call.flag("train") and call.number("p") != 0.0:
        raise NoRuleError("dropout that is on in eval mode has no rule")
    value = call.value("input")
    return Pieces((lambda: value,)) if "native" in call.target else value


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
    """Copies vanish; a conversion to another element type is a Cast."""
    operand = call.operand("self")
    before, after = raiser.operators[operand.name].output.dtype, call.spec().dtype
    if before == after:
        return operand
    attributes: dict[str, Attribute] = {"dtype": after}
    return raiser.add("Cast", [operand], attributes=attributes)


def scaled(raiser: Raiser, operand: Ref, factor: float) -> Ref:
    """The operand times a number; nothing when that is 1."""
    if factor == 1.0:
        return operand
    if raiser.operators[operand.name].output.dtype.startswith("int") and factor == int(factor):
        factor = int(factor)
    return raiser.add("Mul", [operand, raiser.scalar(factor)])
