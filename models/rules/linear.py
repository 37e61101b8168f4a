"""Rules for matrix products with and without trained weights."""

from __future__ import annotations

from ..kind import Attribute
from ..raising import Raiser
from ..rewrite import Call, NoRuleError, Ref, Value, Weight, rule
from .pointwise import scaled

__all__ = [
    "addmm",
    "baddbmm",
    "embedding",
    "linear",
    "linear_with",
    "matmul",
    "product",
    "reshaped",
]


@rule("aten.linear.default")
def linear(call: Call, raiser: Raiser) -> Value:
    """Input [..., K] by weight [O, K] transposed, plus bias [O]; a computed weight: MatMul."""
    if isinstance(call.value("weight"), Ref):
        out = product(raiser, call.operand("input"), call.operand("weight"), transpose_b=True)
        return raiser.add("Add", [out, call.operand("bias")]) if call.given("bias") else out
    weights = {role: held for role in ("weight", "bias") if (held := call.weight(role))}
    return raiser.add("Linear", [call.operand("input")], weights=weights)


@rule("aten.matmul.default", "aten.bmm.default", "aten.mm.default", "aten.mv.default")
def matmul(call: Call, raiser: Raiser) -> Value:
    """Operands [..., M, K] and [..., K, N]; with a trained 2-D second one it is a Linear.

    A vector known at trace time stands for a matrix of one row or column.
    """
    left = "self"
    right = next(name for name in ("mat2", "vec", "other") if call.given(name))
    held = call.value(right)
    if isinstance(held, Weight) and raiser.tensor(held).dim() <= 2:
        weight = raiser.tensor(held)
        column = weight.dim() == 1
        out = linear_with(raiser, call.operand(left), _transposed(raiser, held))
        return reshaped(raiser, out, call.shape()) if column else out
    a, b = call.operand(left), call.operand(right)
    if len(raiser.shape(b)) < 2:
        raise NoRuleError("a product with a computed vector has no rule")
    if len(raiser.shape(a)) < 2:
        vector = call.weight(left)
        if vector is None:
            raise NoRuleError("a product with a computed vector has no rule")
        row = raiser.hold(
            f"{vector.key}.row", raiser.tensor(vector)[None], parameter=vector.parameter
        )
        out = product(raiser, raiser.as_operand(row), b, transpose_b=False)
        return reshaped(raiser, out, call.shape())
    return product(raiser, a, b, transpose_b=False)


@rule("aten.addmm.default")
def addmm(call: Call, raiser: Raiser) -> Value:
    """Beta * bias + alpha * (a times b)."""
    held, bias = call.value("mat2"), call.value("self")
    plain = call.number("beta") == 1.0 and call.number("alpha") == 1.0
    if (
        plain
        and isinstance(held, Weight)
        and isinstance(bias, Weight)
        and raiser.tensor(bias).dim() == 1
    ):
        weights = {"weight": _transposed(raiser, held), "bias": bias}
        return raiser.add("Linear", [call.operand("mat1")], weights=weights)
    return _sum_of_product(call, raiser, "mat1", "mat2")


@rule("aten.baddbmm.default")
def baddbmm(call: Call, raiser: Raiser) -> Value:
    """Beta * bias + alpha * (a [B, M, K] times b [B, K, N]): attention scores with a mask."""
    return _sum_of_product(call, raiser, "batch1", "batch2")


@rule("aten.embedding.default")
def embedding(call: Call, raiser: Raiser) -> Value:
    """Rows of a trained table by whole numbers that are computed or given."""
    table = call.weight("weight")
    if table is None:
        raise NoRuleError("an embedding without a table has no rule")
    return raiser.add("Embedding", [call.operand("indices")], weights={"weight": table})


def product(
    raiser: Raiser, a: Ref, b: Ref, *, transpose_b: bool, scale: float = 1.0, label: str = ""
) -> Ref:
    """A MatMul operator."""
    attributes: dict[str, Attribute] = {"transpose_b": transpose_b, "scale": scale}
    return raiser.add("MatMul", [a, b], attributes=attributes, label=label)


def linear_with(raiser: Raiser, operand: Ref, weight: Weight) -> Ref:
    """A Linear operator without bias; weight [O, K]."""
    return raiser.add("Linear", [operand], weights={"weight": weight})


def reshaped(raiser: Raiser, operand: Ref, shape: tuple[int, ...]) -> Ref:
    """A View; -1 in ``shape`` stands for the axis that carries the batch."""
    if raiser.shape(operand) == tuple(1 if size == -1 else size for size in shape):
        return operand
    attributes: dict[str, Attribute] = {"op": "reshape", "shape": shape}
    return raiser.add("View", [operand], attributes=attributes, label="reshape")


def _sum_of_product(call: Call, raiser: Raiser, left: str, right: str) -> Value:
    """``beta`` 0 leaves the summand out, whatever it holds."""
    a, b = call.operand(left), call.operand(right)
    out = product(raiser, a, b, transpose_b=False, scale=call.number("alpha"))
    if call.number("beta") == 0.0:
        return out
    return raiser.add("Add", [out, scaled(raiser, call.operand("self"), call.number("beta"))])


def _transposed(raiser: Raiser, held: Weight) -> Weight:
    """[K, O] or [K] as the weight [O, K] of a Linear."""
    tensor = raiser.tensor(held)
    key = held.key.removesuffix(".folded") + ".transposed"
    turned = tensor.t().contiguous() if tensor.dim() == 2 else tensor[None]
    return raiser.hold(key, turned, parameter=held.parameter)
