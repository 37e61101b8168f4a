"""Rules for activation functions."""

from __future__ import annotations

from ..kind import Attribute
from ..raising import Raiser
from ..rewrite import Call, Value, Weight, rule

__all__ = ["activation", "elu", "gelu", "glu", "leaky_relu", "prelu", "softplus"]

_PLAIN = {
    "hardsigmoid": "HardSigmoid",
    "hardswish": "HardSwish",
    "mish": "Mish",
    "sigmoid": "Sigmoid",
    "silu": "Silu",
}
# torch/nn/functional.py: the constants of SELU (Klambauer et al., arXiv:1706.02515)
_SELU = {"alpha": 1.6732632423543772, "scale": 1.0507009873554805, "input_scale": 1.0}


@rule(*(f"aten.{name}.default" for name in _PLAIN))
def activation(call: Call, raiser: Raiser) -> Value:
    """One operand, no parameters."""
    return raiser.add(_PLAIN[call.target.split(".")[1]], [call.operand("self")])


@rule("aten.gelu.default")
def gelu(call: Call, raiser: Raiser) -> Value:
    """Operand times the normal distribution function, exact ("none") or by tanh."""
    attributes: dict[str, Attribute] = {"approximate": call.text("approximate")}
    return raiser.add("Gelu", [call.operand("self")], attributes=attributes)


@rule("aten.leaky_relu.default")
def leaky_relu(call: Call, raiser: Raiser) -> Value:
    """A slope below 0."""
    attributes: dict[str, Attribute] = {"slope": call.number("negative_slope")}
    return raiser.add("LeakyRelu", [call.operand("self")], attributes=attributes)


@rule("aten.prelu.default")
def prelu(call: Call, raiser: Raiser) -> Value:
    """A trained slope below 0."""
    held = call.weight("weight")
    weights: dict[str, Weight] = {"weight": held} if held else {}
    return raiser.add("PRelu", [call.operand("self")], weights=weights)


@rule("aten.elu.default", "aten.selu.default", "aten.celu.default")
def elu(call: Call, raiser: Raiser) -> Value:
    """ELU and its relatives SELU and CELU: an exponential below 0."""
    attributes: dict[str, Attribute]
    if call.target == "aten.selu.default":
        attributes = {**_SELU}
    elif call.target == "aten.celu.default":
        alpha = call.number("alpha")
        attributes = {"alpha": alpha, "scale": 1.0, "input_scale": 1.0 / alpha}
    else:
        attributes = {name: call.number(name) for name in _SELU}
    return raiser.add("Elu", [call.operand("self")], attributes=attributes)


@rule("aten.softplus.default")
def softplus(call: Call, raiser: Raiser) -> Value:
    """log(1 + exp(beta x)) / beta; the operand itself above the threshold."""
    attributes: dict[str, Attribute] = {name: call.number(name) for name in ("beta", "threshold")}
    return raiser.add("Softplus", [call.operand("self")], attributes=attributes)


@rule("aten.glu.default")
def glu(call: Call, raiser: Raiser) -> Value:
    """The first half of an axis times the logistic function of the second."""
    operand = call.operand("self")
    shape = raiser.shape(operand)
    dim = call.whole("dim") % len(shape)
    halves = []
    for start in (0, shape[dim] // 2):
        attributes: dict[str, Attribute] = {"op": "slice", "dim": dim, "start": start}
        attributes |= {"stop": start + shape[dim] // 2, "step": 1}
        halves.append(raiser.add("Select", [operand], attributes=attributes))
    return raiser.add("Mul", [halves[0], raiser.add("Sigmoid", [halves[1]])])
