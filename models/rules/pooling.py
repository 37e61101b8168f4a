"""Rules for pooling and resizing."""

from __future__ import annotations

from functools import partial

from ..evaluate import Attribute
from ..raising import Raiser
from ..rewrite import Call, NoRuleError, Pieces, Ref, Value, rule

__all__ = [
    "adaptive_average_pool",
    "average_pool",
    "max_pool",
    "max_pool_with_indices",
    "resize",
    "resize_nearest",
]


@rule(
    "aten.adaptive_avg_pool1d.default",
    "aten.adaptive_avg_pool2d.default",
    "aten._adaptive_avg_pool2d.default",
)
def adaptive_average_pool(call: Call, raiser: Raiser) -> Value:
    """To one value: a Mean. To sizes that divide: an AvgPool. Else windows that may overlap."""
    operand = call.operand("self")
    axes = 1 if "1d" in call.target else 2
    before, after = raiser.shape(operand)[-axes:], call.spec().shape[-axes:]
    if before == after:
        return operand
    if set(after) == {1}:
        count = len(raiser.shape(operand))
        dims = tuple(range(count - axes, count))
        return raiser.add("Mean", [operand], attributes={"dims": dims, "keepdim": True})
    if all(old % new == 0 for old, new in zip(before, after, strict=True)):
        kernel = tuple(old // new for old, new in zip(before, after, strict=True))
        return _average(raiser, operand, kernel, kernel, (0,) * axes, ceil=False, count=True)
    return raiser.add("AdaptiveAvgPool", [operand], attributes={"size": after})


@rule("aten.avg_pool1d.default", "aten.avg_pool2d.default")
def average_pool(call: Call, raiser: Raiser) -> Value:
    """The mean of each window."""
    if call.given("divisor_override"):
        raise NoRuleError("average pooling with a divisor of its own has no rule")
    kernel, stride, padding = _window(call)
    return _average(
        raiser,
        call.operand("self"),
        kernel,
        stride,
        padding,
        ceil=call.flag("ceil_mode"),
        count=call.flag("count_include_pad"),
    )


@rule("aten.max_pool1d.default", "aten.max_pool2d.default")
def max_pool(call: Call, raiser: Raiser) -> Value:
    """The largest value of each window."""
    return _largest(raiser, call)


@rule("aten.max_pool2d_with_indices.default")
def max_pool_with_indices(call: Call, raiser: Raiser) -> Value:
    """The values; that the places are read has no rule."""
    if 1 in call.picked():
        raise NoRuleError("the places of the largest values have no rule")
    return Pieces((partial(_largest, raiser, call),))


@rule(
    "aten.upsample_bilinear2d.vec",
    "aten.upsample_bicubic2d.vec",
    "aten._upsample_bilinear2d_aa.vec",
    "aten._upsample_bicubic2d_aa.vec",
    "aten.upsample_linear1d.vec",
)
def resize(call: Call, raiser: Raiser) -> Value:
    """Another size by interpolation between neighbours."""
    name = call.target.split(".")[1]
    mode = next(mode for mode in ("bilinear", "bicubic", "linear") if mode in name)
    return _resized(raiser, call, mode, align=call.flag("align_corners"), smooth="_aa" in name)


@rule(
    "aten.upsample_nearest1d.vec",
    "aten.upsample_nearest2d.vec",
    "aten._upsample_nearest_exact1d.vec",
    "aten._upsample_nearest_exact2d.vec",
)
def resize_nearest(call: Call, raiser: Raiser) -> Value:
    """Another size by repeating the nearest value."""
    mode = "nearest-exact" if "exact" in call.target else "nearest"
    return _resized(raiser, call, mode, align=False, smooth=False)


def _resized(raiser: Raiser, call: Call, mode: str, *, align: bool, smooth: bool) -> Ref:
    factors = call.numbers("scale_factors") if call.given("scale_factors") else ()
    attributes: dict[str, Attribute] = {
        "size": call.spec().shape[2:],
        "mode": mode,
        "align_corners": align,
        "antialias": smooth,
        "factors": factors,
    }
    return raiser.add("Resize", [call.operand("input")], attributes=attributes)


def _average(
    raiser: Raiser,
    operand: Ref,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    *,
    ceil: bool,
    count: bool,
) -> Ref:
    attributes: dict[str, Attribute] = {
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "ceil": ceil,
        "count_padding": count,
    }
    return raiser.add("AvgPool", [operand], attributes=attributes)


def _largest(raiser: Raiser, call: Call) -> Ref:
    kernel, stride, padding = _window(call)
    attributes: dict[str, Attribute] = {
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": _each(call.wholes("dilation"), len(kernel)),
        "ceil": call.flag("ceil_mode"),
    }
    return raiser.add("MaxPool", [call.operand("self")], attributes=attributes)


def _window(call: Call) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Kernel, stride (the kernel when not given) and padding, one number for each axis."""
    axes = 1 if "1d" in call.target else 2
    kernel = _each(call.wholes("kernel_size"), axes)
    stride = call.wholes("stride") if call.given("stride") else ()
    return kernel, _each(stride, axes) if stride else kernel, _each(call.wholes("padding"), axes)


def _each(values: tuple[int, ...], axes: int) -> tuple[int, ...]:
    return values * axes if len(values) == 1 else values
