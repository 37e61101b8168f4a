"""Rules for everything that multiplies: linear layers, convolutions, matrix products."""

from __future__ import annotations

from ..evaluate import Attribute
from ..raising import Raiser
from ..rewrite import Call, NoRuleError, Ref, Value, Weight, rule

__all__ = [
    "addmm",
    "baddbmm",
    "conv2d",
    "convolution",
    "linear",
    "matmul",
    "product",
]


@rule("aten.linear.default")
def linear(call: Call, raiser: Raiser) -> Value:
    """Input [..., K] by weight [O, K] transposed, plus bias [O]; a computed weight: MatMul."""
    if isinstance(call.value("weight"), Ref):
        out = product(raiser, call.operand("input"), call.operand("weight"), transpose_b=True)
        return raiser.add("Add", [out, call.operand("bias")]) if call.given("bias") else out
    weights = {role: held for role in ("weight", "bias") if (held := call.weight(role))}
    return raiser.add("Linear", [call.operand("input")], weights=weights)


@rule("aten.conv2d.default", "aten.conv2d.padding")
def conv2d(call: Call, raiser: Raiser) -> Value:
    """Zero-padded, possibly strided, dilated or grouped convolution with trained weights."""
    weights = {role: held for role in ("weight", "bias") if (held := call.weight(role))}
    kernel = raiser.tensor(weights["weight"]).shape[2:]
    stride, dilation = _pair(call.wholes("stride")), _pair(call.wholes("dilation"))
    if call.target.endswith("padding"):
        spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if call.text("padding") == "valid":
            padding: tuple[int, ...] = (0, 0)
        elif all(span % 2 == 0 for span in spans):
            padding = tuple(span // 2 for span in spans)
        else:
            raise NoRuleError("padding 'same' around an even kernel is not symmetric")
    else:
        padding = _pair(call.wholes("padding"))
    return raiser.add(
        "Conv2d",
        [call.operand("input")],
        attributes={
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": call.whole("groups"),
        },
        weights=weights,
    )


@rule("aten.convolution.default")
def convolution(call: Call, raiser: Raiser) -> Value:
    """The general convolution, where it is a plain 2-D one."""
    if call.flag("transposed") or len(call.wholes("stride")) != 2:
        raise NoRuleError("only plain 2-D convolutions have a rule")
    return conv2d(call, raiser)


@rule("aten.matmul.default", "aten.bmm.default", "aten.mm.default")
def matmul(call: Call, raiser: Raiser) -> Value:
    """Operands [..., M, K] and [..., K, N]; with a trained 2-D second one it is a Linear."""
    left, right = ("self", "mat2") if call.given("mat2") else ("self", "other")
    held = call.value(right)
    if isinstance(held, Weight) and raiser.tensor(held).dim() == 2:
        weight = _transposed(raiser, held)
        return raiser.add("Linear", [call.operand(left)], weights={"weight": weight})
    a, b = call.operand(left), call.operand(right)
    if len(raiser.shape(a)) < 2 or len(raiser.shape(b)) < 2:
        raise NoRuleError("a product with a vector has no rule")
    return product(raiser, a, b, transpose_b=False)


@rule("aten.addmm.default")
def addmm(call: Call, raiser: Raiser) -> Value:
    """Beta * bias + alpha * (a times b), where both factors are 1."""
    _unit_factors(call)
    held, bias = call.value("mat2"), call.value("self")
    if isinstance(held, Weight) and isinstance(bias, Weight) and raiser.tensor(bias).dim() == 1:
        weights = {"weight": _transposed(raiser, held), "bias": bias}
        return raiser.add("Linear", [call.operand("mat1")], weights=weights)
    out = product(raiser, call.operand("mat1"), call.operand("mat2"), transpose_b=False)
    return raiser.add("Add", [out, call.operand("self")])


@rule("aten.baddbmm.default")
def baddbmm(call: Call, raiser: Raiser) -> Value:
    """Bias + a [B, M, K] times b [B, K, N]: attention scores with a mask."""
    _unit_factors(call)
    out = product(raiser, call.operand("batch1"), call.operand("batch2"), transpose_b=False)
    return raiser.add("Add", [out, call.operand("self")])


def product(
    raiser: Raiser, a: Ref, b: Ref, *, transpose_b: bool, scale: float = 1.0, label: str = ""
) -> Ref:
    """A MatMul operator."""
    attributes: dict[str, Attribute] = {"transpose_b": transpose_b, "scale": scale}
    return raiser.add("MatMul", [a, b], attributes=attributes, label=label)


def _transposed(raiser: Raiser, held: Weight) -> Weight:
    key = held.key.removesuffix(".folded") + ".transposed"
    return raiser.hold(key, raiser.tensor(held).t().contiguous(), parameter=held.parameter)


def _unit_factors(call: Call) -> None:
    if call.number("beta") != 1.0 or call.number("alpha") != 1.0:
        raise NoRuleError(
            f"factors alpha {call.number('alpha')} and beta {call.number('beta')} are not 1"
        )


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return (values[0], values[-1])
