"""Rules for windows and neighbours: padding, rolling, flipping, im2col, pixel shuffling, constant
indices, running sums, repetition.
"""

from __future__ import annotations

from math import prod

import torch

from ..evaluate import Attribute
from ..raising import Raiser
from ..rewrite import Call, NoRuleError, Ref, Value, Weight, rule

__all__ = [
    "col2im",
    "cumsum",
    "flip",
    "im2col",
    "index",
    "index_select",
    "pad",
    "pad_constant",
    "pixel_shuffle",
    "pixel_unshuffle",
    "repeat",
    "repeat_interleave",
    "roll",
    "unfold",
]


@rule("aten.pad.default")
def pad(call: Call, raiser: Raiser) -> Value:
    """Some values before and after the last axes."""
    value = call.number("value") if call.given("value") else 0.0
    return _padded(raiser, call, call.text("mode"), value)


@rule("aten.constant_pad_nd.default")
def pad_constant(call: Call, raiser: Raiser) -> Value:
    """A number before and after the last axes."""
    return _padded(raiser, call, "constant", call.number("value"))


@rule("aten.roll.default")
def roll(call: Call, raiser: Raiser) -> Value:
    """Axes turned round: the last ``shift`` entries come first."""
    operand = call.operand("self")
    axes = len(raiser.shape(operand))
    if not call.wholes("dims"):
        raise NoRuleError("rolling over all axes at once, the batch included, has no rule")
    dims = tuple(dim % axes for dim in call.wholes("dims"))
    _spare_the_batch(call, dims)
    shape = raiser.shape(operand)
    kept = [
        (shift % shape[dim], dim)
        for shift, dim in zip(call.wholes("shifts"), dims, strict=True)
        if shift % shape[dim]
    ]
    if not kept:
        return operand
    shifts, dims = tuple(shift for shift, _ in kept), tuple(dim for _, dim in kept)
    return raiser.add("Roll", [operand], attributes={"shifts": shifts, "dims": dims})


@rule("aten.flip.default")
def flip(call: Call, raiser: Raiser) -> Value:
    """Axes in reverse."""
    operand = call.operand("self")
    axes = len(raiser.shape(operand))
    dims = tuple(dim % axes for dim in call.wholes("dims"))
    _spare_the_batch(call, dims)
    return raiser.add("Flip", [operand], attributes={"dims": dims})


@rule("aten.im2col.default")
def im2col(call: Call, raiser: Raiser) -> Value:
    """Windows of a feature map as columns."""
    return raiser.add("Unfold", [call.operand("self")], attributes=_window(call))


@rule("aten.col2im.default")
def col2im(call: Call, raiser: Raiser) -> Value:
    """Columns back to a feature map; what overlaps is added."""
    attributes = {**_window(call), "size": call.wholes("output_size")}
    return raiser.add("Fold", [call.operand("self")], attributes=attributes)


@rule("aten.unfold.default")
def unfold(call: Call, raiser: Raiser) -> Value:
    """Sliding windows of one axis, whose entries form a new last axis."""
    operand = call.operand("self")
    axes = len(raiser.shape(operand))
    dim, size, step = call.whole("dimension") % axes, call.whole("size"), call.whole("step")
    _spare_the_batch(call, [dim])
    starts = torch.arange(0, raiser.shape(operand)[dim] - size + 1, step)
    picked = _picked(raiser, operand, dim, starts[:, None] + torch.arange(size))
    order = [axis for axis in range(axes + 1) if axis != dim + 1]
    return _permuted(raiser, picked, (*order, dim + 1))


@rule("aten.pixel_shuffle.default")
def pixel_shuffle(call: Call, raiser: Raiser) -> Value:
    """[..., C * r * r, H, W] to [..., C, H * r, W * r]."""
    operand, r = call.operand("self"), call.whole("upscale_factor")
    *lead, channels, height, width = call.shape("self")
    count = len(lead)
    parts = (*lead, channels // (r * r), r, r, height, width)
    apart = _reshaped(raiser, operand, parts)
    order = (*range(count + 1), count + 3, count + 1, count + 4, count + 2)
    return _reshaped(raiser, _permuted(raiser, apart, order), call.shape())


@rule("aten.pixel_unshuffle.default")
def pixel_unshuffle(call: Call, raiser: Raiser) -> Value:
    """[..., C, H * r, W * r] to [..., C * r * r, H, W]."""
    operand, r = call.operand("self"), call.whole("downscale_factor")
    *lead, channels, height, width = call.shape("self")
    count = len(lead)
    parts = (*lead, channels, height // r, r, width // r, r)
    apart = _reshaped(raiser, operand, parts)
    order = (*range(count + 1), count + 2, count + 4, count + 1, count + 3)
    return _reshaped(raiser, _permuted(raiser, apart, order), call.shape())


@rule("aten.index_select.default")
def index_select(call: Call, raiser: Raiser) -> Value:
    """Entries of one axis by a constant list."""
    operand, held = call.operand("self"), call.weight("index")
    if held is None:
        raise NoRuleError("an index is missing")
    dim = call.whole("dim") % len(raiser.shape(operand))
    return _picked(raiser, operand, dim, raiser.tensor(held))


@rule("aten.index.Tensor")
def index(call: Call, raiser: Raiser) -> Value:
    """Constant indices of neighbouring axes, broadcast against each other; other axes whole."""
    operand = call.operand("self")
    shape = raiser.shape(operand)
    given = {place: value for place, value in enumerate(call.values("indices")) if value}
    dims = sorted(given)
    if dims != list(range(dims[0], dims[-1] + 1)):
        raise NoRuleError("indices of axes that do not touch have no rule")
    _spare_the_batch(call, dims)
    tensors = []
    for value in given.values():
        if not isinstance(value, Weight):
            raise NoRuleError("an index is computed from the input, expected a constant")
        tensors.append(raiser.tensor(value))
    if any(tensor.dtype == torch.bool for tensor in tensors):
        if len(tensors) > 1 or tensors[0].dim() != 1:
            raise NoRuleError("a boolean index over several axes has no rule")
        tensors = [tensors[0].nonzero().flatten()]
    flat = torch.zeros((), dtype=torch.int64)
    for dim, tensor in zip(dims, tensors, strict=True):
        flat = flat * shape[dim] + tensor % shape[dim]
    if len(dims) > 1:
        whole = call.shape("self")
        size = prod(shape[dim] for dim in dims)
        operand = _reshaped(raiser, operand, (*whole[: dims[0]], size, *whole[dims[-1] + 1 :]))
    return _picked(raiser, operand, dims[0], flat)


@rule("aten.cumsum.default")
def cumsum(call: Call, raiser: Raiser) -> Value:
    """Running sums along one axis."""
    operand = call.operand("self")
    if call.spec().dtype != raiser.operators[operand.name].output.dtype:
        raise NoRuleError("a running sum that changes the element type has no rule")
    dim = call.whole("dim") % len(raiser.shape(operand))
    _spare_the_batch(call, [dim])
    return raiser.add("CumulativeSum", [operand], attributes={"dim": dim})


@rule("aten.repeat.default")
def repeat(call: Call, raiser: Raiser) -> Value:
    """Axes of length 1 are expanded, longer ones concatenated with themselves."""
    operand, counts = call.operand("self"), call.wholes("repeats")
    before = raiser.shape(operand)
    if len(counts) > len(before):
        operand = _reshaped(raiser, operand, (1,) * (len(counts) - len(before)) + before)
    shape = raiser.shape(operand)
    wide = tuple(
        count if size == 1 and count > 1 else -1 for size, count in zip(shape, counts, strict=True)
    )
    if set(wide) != {-1}:
        attributes: dict[str, Attribute] = {"op": "expand", "shape": wide}
        operand = raiser.add("View", [operand], attributes=attributes, label="expand")
    for dim, (size, count) in enumerate(zip(shape, counts, strict=True)):
        if size > 1 and count > 1:
            operand = raiser.add("Concat", [operand] * count, attributes={"dim": dim})
    return operand


@rule("aten.repeat_interleave.self_int")
def repeat_interleave(call: Call, raiser: Raiser) -> Value:
    """Each entry of one axis several times in a row."""
    if not call.given("dim"):
        raise NoRuleError("repeating the entries of all axes, the batch included, has no rule")
    operand = call.operand("self")
    dim = call.whole("dim") % len(raiser.shape(operand))
    _spare_the_batch(call, [dim])
    order = torch.arange(raiser.shape(operand)[dim]).repeat_interleave(call.whole("repeats"))
    return _picked(raiser, operand, dim, order)


def _padded(raiser: Raiser, call: Call, mode: str, value: float) -> Ref:
    operand, pads = call.operand("self"), call.wholes("pad")
    if not any(pads):
        return operand
    axes = len(raiser.shape(operand))
    touched = [
        axes - 1 - place // 2 for place in range(0, len(pads), 2) if any(pads[place : place + 2])
    ]
    _spare_the_batch(call, touched)
    attributes: dict[str, Attribute] = {"pads": pads, "mode": mode}
    if mode == "constant":
        attributes["value"] = value
    return raiser.add("Pad", [operand], attributes=attributes)


def _window(call: Call) -> dict[str, Attribute]:
    return {
        "kernel": call.wholes("kernel_size"),
        "dilation": call.wholes("dilation"),
        "padding": call.wholes("padding"),
        "stride": call.wholes("stride"),
    }


def _picked(raiser: Raiser, operand: Ref, dim: int, index: torch.Tensor) -> Ref:
    """Entries of ``dim`` by a constant index of any number of axes."""
    values = index.detach() % raiser.shape(operand)[dim]
    held = raiser.hold(f"{operand.name}.index.{dim}", values, parameter=False)
    return raiser.add("Index", [operand], attributes={"dim": dim}, weights={"index": held})


def _permuted(raiser: Raiser, operand: Ref, dims: tuple[int, ...]) -> Ref:
    if dims == tuple(range(len(dims))):
        return operand
    attributes: dict[str, Attribute] = {"op": "permute", "dims": dims}
    return raiser.add("View", [operand], attributes=attributes, label="permute")


def _reshaped(raiser: Raiser, operand: Ref, shape: tuple[int, ...]) -> Ref:
    attributes: dict[str, Attribute] = {"op": "reshape", "shape": shape}
    return raiser.add("View", [operand], attributes=attributes, label="reshape")


def _spare_the_batch(call: Call, dims: list[int] | tuple[int, ...]) -> None:
    if any(call.shape("self")[dim] == -1 for dim in dims):
        raise NoRuleError("it moves values between the images of a batch")
