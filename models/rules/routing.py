"""Rules for routing: the largest values, and reading and writing at places given by indices."""

from __future__ import annotations

from functools import partial

import torch

from ..evaluate import Attribute
from ..raising import Raiser
from ..rewrite import Call, NoRuleError, Pieces, Ref, Value, Weight, rule

__all__ = [
    "argsort",
    "filled",
    "gather",
    "one_hot",
    "scatter",
    "scatter_add",
    "scatter_value",
    "sort",
    "topk",
]


@rule("aten.topk.default")
def topk(call: Call, raiser: Raiser) -> Value:
    """Values and indices, each an operator of its own."""
    if not call.flag("largest"):
        raise NoRuleError("the smallest values have no rule, only the largest")
    return _ranked(call, raiser, call.whole("k"))


@rule("aten.sort.default", "aten.sort.stable")
def sort(call: Call, raiser: Raiser) -> Value:
    """Descending: the largest of as many as there are."""
    return _ranked(call, raiser, _length(call, raiser))


@rule("aten.argsort.default", "aten.argsort.stable")
def argsort(call: Call, raiser: Raiser) -> Value:
    """The indices of a descending order."""
    pieces = _ranked(call, raiser, _length(call, raiser))
    return pieces.makers[1]()


@rule("aten.gather.default")
def gather(call: Call, raiser: Raiser) -> Value:
    """Data at indices along one axis that is not the batch."""
    attributes: dict[str, Attribute] = {"dim": _axis(call, raiser)}
    operands = [call.operand("self"), call.operand("index")]
    return raiser.add("Gather", operands, attributes=attributes)


@rule("aten.scatter.src")
def scatter(call: Call, raiser: Raiser) -> Value:
    """The source's values written into a base along one axis that is not the batch."""
    return _scattered(call, raiser, call.operand("src"))


@rule("aten.scatter.value")
def scatter_value(call: Call, raiser: Raiser) -> Value:
    """One number written at every index."""
    number, dtype = call.number("value"), call.spec().dtype
    return _scattered(call, raiser, _constant(raiser, call.shape("index"), number, dtype))


@rule("aten.scatter_add.default")
def scatter_add(call: Call, raiser: Raiser) -> Value:
    """Into zeros at the indices of a top-k, which are all different: a plain scatter."""
    index = raiser.operators[call.operand("index").name]
    base = raiser.operators[call.operand("self").name]
    zero = base.kind == "Constant" and not bool(
        raiser.tensor(Weight(base.tensors["value"], False)).any()
    )
    if index.kind != "TopK" or not zero:
        raise NoRuleError("adding at indices has a rule only into zeros at the indices of a top-k")
    return _scattered(call, raiser, call.operand("src"))


@rule("aten.one_hot.default")
def one_hot(call: Call, raiser: Raiser) -> Value:
    """Ones scattered into zeros along a new last axis."""
    index = call.operand("self")
    shape = call.shape()
    attributes: dict[str, Attribute] = {"op": "reshape", "shape": (*shape[:-1], 1)}
    lifted = raiser.add("View", [index], attributes=attributes, label="reshape")
    zeros = _constant(raiser, shape, 0, "int64")
    ones = _constant(raiser, (*shape[:-1], 1), 1, "int64")
    axes: dict[str, Attribute] = {"dim": -1}
    return raiser.add("Scatter", [zeros, lifted, ones], attributes=axes, label="one_hot")


@rule(
    "aten.zeros_like.default",
    "aten.ones_like.default",
    "aten.full_like.default",
    "aten.new_zeros.default",
    "aten.new_ones.default",
    "aten.new_full.default",
)
def filled(call: Call, raiser: Raiser) -> Value:
    """A constant tensor in the shape of another one."""
    name = call.target.split(".")[1]
    number = call.number("fill_value") if "full" in name else float("ones" in name)
    return _constant(raiser, call.shape(), number, call.spec().dtype)


def _ranked(call: Call, raiser: Raiser, k: int) -> Pieces:
    operand, dim = call.operand("self"), _axis(call, raiser)
    if "descending" in call.arguments() and not call.flag("descending"):
        raise NoRuleError("an ascending order has no rule")

    def made(result: str) -> Ref:
        attributes: dict[str, Attribute] = {"k": k, "dim": dim, "result": result}
        return raiser.add("TopK", [operand], attributes=attributes, label=f"topk.{result}")

    return Pieces((partial(made, "values"), partial(made, "indices")))


def _scattered(call: Call, raiser: Raiser, source: Ref) -> Ref:
    if call.given("reduce"):
        raise NoRuleError("a scatter that reduces has no rule")
    attributes: dict[str, Attribute] = {"dim": _axis(call, raiser)}
    operands = [call.operand("self"), call.operand("index"), source]
    return raiser.add("Scatter", operands, attributes=attributes)


def _axis(call: Call, raiser: Raiser) -> int:
    """The axis ``dim``, the last written -1."""
    axes = len(raiser.shape(call.operand("self")))
    dim = call.whole("dim") % max(axes, 1)
    if dim == 0:
        raise NoRuleError("it goes along the batch")
    return -1 if dim == axes - 1 else dim


def _length(call: Call, raiser: Raiser) -> int:
    return raiser.shape(call.operand("self"))[_axis(call, raiser)]


def _constant(raiser: Raiser, shape: tuple[int, ...], number: float, dtype: str) -> Ref:
    """A Constant operator of one value throughout, of length 1 on the axis of the batch (-1)."""
    shape = tuple(1 if size == -1 else size for size in shape)
    tensor = torch.full(shape, number, dtype=getattr(torch, dtype))
    sizes = "x".join(map(str, shape))
    held = raiser.hold(f"filled.{number!r}.{dtype}.{sizes}", tensor, parameter=False)
    return raiser.as_operand(held)
