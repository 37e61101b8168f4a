"""Rules for operators that move values without computing: they end as View, Select and Concat."""

from __future__ import annotations

from functools import partial

from ..evaluate import Attribute
from ..raising import Raiser
from ..rewrite import Call, Pieces, Ref, Value, rule

__all__ = [
    "cat",
    "expand",
    "matrix_transpose",
    "movedim",
    "permute",
    "reshape",
    "select",
    "slice_",
    "split",
    "stack",
    "transpose",
    "unbind",
]


@rule(
    "aten.reshape.default",
    "aten.view.default",
    "aten._unsafe_view.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze.default",
    "aten.view_as.default",
    "aten.reshape_as.default",
)
def reshape(call: Call, raiser: Raiser) -> Value:
    """Everything that keeps the order of the values is one reshape, with -1 on the batch axis."""
    operand, shape = call.operand("self"), call.shape()
    if raiser.shape(operand) == call.spec().shape:
        return operand
    return raiser.add(
        "View", [operand], attributes={"op": "reshape", "shape": shape}, label="reshape"
    )


@rule("aten.permute.default")
def permute(call: Call, raiser: Raiser) -> Value:
    """Axes in another order, counted from the front."""
    operand = call.operand("self")
    axes = len(raiser.shape(operand))
    return _permuted(raiser, operand, tuple(dim % axes for dim in call.wholes("dims")))


@rule("aten.transpose.int")
def transpose(call: Call, raiser: Raiser) -> Value:
    """Two axes swapped, written as a permutation."""
    operand = call.operand("self")
    dims = list(range(len(raiser.shape(operand))))
    first, second = call.whole("dim0"), call.whole("dim1")
    dims[first], dims[second] = dims[second], dims[first]
    return _permuted(raiser, operand, tuple(dims))


@rule("aten.t.default", "aten.numpy_T.default", "aten.mT.default", "aten.matrix_H.default")
def matrix_transpose(call: Call, raiser: Raiser) -> Value:
    """The last two axes swapped (all axes reversed for ``T``, which is meant for matrices)."""
    operand = call.operand("self")
    dims = list(range(len(raiser.shape(operand))))
    if call.target == "aten.numpy_T.default":
        dims.reverse()
    elif len(dims) > 1:
        dims[-2:] = dims[-1], dims[-2]
    return _permuted(raiser, operand, tuple(dims))


@rule("aten.movedim.int", "aten.movedim.intlist")
def movedim(call: Call, raiser: Raiser) -> Value:
    """Some axes moved to other places, the rest in order: written as a permutation."""
    operand = call.operand("self")
    axes = len(raiser.shape(operand))
    source = [dim % axes for dim in call.wholes("source")]
    destination = [dim % axes for dim in call.wholes("destination")]
    rest = iter(dim for dim in range(axes) if dim not in source)
    moved = dict(zip(destination, source, strict=True))
    dims = tuple(moved[place] if place in moved else next(rest) for place in range(axes))
    return _permuted(raiser, operand, dims)


@rule("aten.expand.default", "aten.expand_as.default")
def expand(call: Call, raiser: Raiser) -> Value:
    """Axes of length 1 repeated; an axis that stays as it is gets -1."""
    operand = call.operand("self")
    before, after = raiser.shape(operand), call.spec().shape
    kept = (0,) * (len(after) - len(before)) + before
    if kept == after:
        return operand
    shape = tuple(-1 if old == new else new for old, new in zip(kept, after, strict=True))
    return raiser.add(
        "View", [operand], attributes={"op": "expand", "shape": shape}, label="expand"
    )


@rule("aten.select.int")
def select(call: Call, raiser: Raiser) -> Value:
    """One index of an axis, which vanishes."""
    operand = call.operand("self")
    return _selected(raiser, call.whole("dim"), operand, call.whole("index"))


@rule("aten.slice.Tensor")
def slice_(call: Call, raiser: Raiser) -> Value:
    """A range of an axis; the whole axis vanishes."""
    operand = call.operand("self")
    dim = call.whole("dim") % len(raiser.shape(operand))
    start = call.whole("start") if call.given("start") else 0
    size = raiser.shape(operand)[dim]
    stop = call.whole("end") if call.given("end") else size
    return _sliced(raiser, operand, dim, slice(start, stop, call.whole("step")))


@rule("aten.unbind.int")
def unbind(call: Call, raiser: Raiser) -> Value:
    """One Select for each result that is read."""
    operand = call.operand("self")
    dim = call.whole("dim") % len(raiser.shape(operand))
    count = raiser.shape(operand)[dim]
    return Pieces(tuple(partial(_selected, raiser, dim, operand, index) for index in range(count)))


@rule(
    "aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes"
)
def split(call: Call, raiser: Raiser) -> Value:
    """One slice for each result that is read; the sizes are those of the results."""
    operand = call.operand("self")
    dim = call.whole("dim") % len(raiser.shape(operand))
    sizes = [raiser.spec(piece).shape[dim] for piece in call.node.meta["val"]]
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return Pieces(
        tuple(
            partial(_sliced, raiser, operand, dim, slice(start, start + size, 1))
            for start, size in zip(starts, sizes, strict=True)
        )
    )


@rule("aten.cat.default")
def cat(call: Call, raiser: Raiser) -> Value:
    """Empty operands are left out."""
    operands = [ref for ref in call.operands("tensors") if 0 not in raiser.shape(ref)]
    dim = call.whole("dim") % len(raiser.shape(operands[0]))
    if len(operands) == 1:
        return operands[0]
    return raiser.add("Concat", operands, attributes={"dim": dim})


@rule("aten.stack.default")
def stack(call: Call, raiser: Raiser) -> Value:
    """A concatenation along a new axis."""
    operands = call.operands("tensors")
    axes = len(raiser.shape(operands[0])) + 1
    dim = call.whole("dim") % axes
    shape = list(call.shape())
    shape[dim] = 1
    attributes: dict[str, Attribute] = {"op": "reshape", "shape": tuple(shape)}
    lifted = [raiser.add("View", [ref], attributes=attributes, label="reshape") for ref in operands]
    return raiser.add("Concat", lifted, attributes={"dim": dim})


def _permuted(raiser: Raiser, operand: Ref, dims: tuple[int, ...]) -> Ref:
    if dims == tuple(range(len(dims))):
        return operand
    return raiser.add(
        "View", [operand], attributes={"op": "permute", "dims": dims}, label="permute"
    )


def _selected(raiser: Raiser, dim: int, operand: Ref, index: int) -> Ref:
    shape = raiser.shape(operand)
    dim %= len(shape)
    attributes: dict[str, Attribute] = {"op": "select", "dim": dim, "index": index % shape[dim]}
    return raiser.add("Select", [operand], attributes=attributes)


def _sliced(raiser: Raiser, operand: Ref, dim: int, part: slice) -> Ref:
    start, stop, step = part.indices(raiser.shape(operand)[dim])
    if (start, stop, step) == (0, raiser.shape(operand)[dim], 1):
        return operand
    attributes: dict[str, Attribute] = {
        "op": "slice",
        "dim": dim,
        "start": start,
        "stop": stop,
        "step": step,
    }
    return raiser.add("Select", [operand], attributes=attributes)
