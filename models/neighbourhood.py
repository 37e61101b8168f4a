"""Kinds that read a value's neighbours: padding, rolling, windows, pooling, resizing; and those
that pick or accumulate along an axis.

None of them multiplies by trained values, so all count 0 multiply-accumulates. Feature maps are
[B, C, H, W], or [B, C, L] where the attributes have one size each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from .kind import Attributes, Kind, named, whole, wholes

__all__ = ["NEIGHBOURHOOD"]

_WINDOW_NAMES = ("kernel", "dilation", "padding", "stride")


def _pad(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """``pads`` as in ``torch.nn.functional.pad``: before and after, the last axis first."""
    pads, mode = wholes(a, "pads"), str(a["mode"])
    if mode == "constant":
        return functional.pad(x[0], pads, mode, float(cast(float, a["value"])))
    return functional.pad(x[0], pads, mode)


def _roll(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return torch.roll(x[0], wholes(a, "shifts"), wholes(a, "dims"))


def _flip(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return torch.flip(x[0], wholes(a, "dims"))


def _index(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """Entries of axis ``dim`` by the constant ``index``, whose axes take the place of ``dim``."""
    dim, index = whole(a, "dim"), t["index"]
    shape = (*x[0].shape[:dim], *index.shape, *x[0].shape[dim + 1 :])
    return x[0].index_select(dim, index.flatten()).reshape(shape)


def _cumulative_sum(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return torch.cumsum(x[0], whole(a, "dim"))


def _unfold(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """[B, C, H, W] to the columns of its windows [B, C * kh * kw, windows]."""
    kernel, dilation, padding, stride = (tuple(wholes(a, name)) for name in _WINDOW_NAMES)
    return functional.unfold(x[0], kernel, dilation, padding, stride)


def _fold(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """Columns [B, C * kh * kw, windows] to [B, C, H, W] of ``size``; what overlaps is added."""
    kernel, dilation, padding, stride = (tuple(wholes(a, name)) for name in _WINDOW_NAMES)
    return functional.fold(x[0], tuple(wholes(a, "size")), kernel, dilation, padding, stride)


def _average_pool(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """The mean of each window; ``count_padding``: zeros of the padding count as values."""
    kernel, stride, padding = (wholes(a, name) for name in ("kernel", "stride", "padding"))
    ceil, count = bool(a["ceil"]), bool(a["count_padding"])
    if len(kernel) == 1:
        return functional.avg_pool1d(x[0], kernel, stride, padding, ceil, count)
    return functional.avg_pool2d(x[0], kernel, stride, padding, ceil, count)


def _max_pool(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """The largest value of each window."""
    kernel = wholes(a, "kernel")
    pool = functional.max_pool1d if len(kernel) == 1 else functional.max_pool2d
    pooled: Tensor = pool(
        x[0],
        kernel,
        wholes(a, "stride"),
        wholes(a, "padding"),
        wholes(a, "dilation"),
        ceil_mode=bool(a["ceil"]),
    )
    return pooled


def _adaptive_average_pool(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """Means over windows that split each of the last axes into ``size`` parts, which may overlap by
    one.
    """
    size = wholes(a, "size")
    if len(size) == 1:
        return functional.adaptive_avg_pool1d(x[0], size)
    return functional.adaptive_avg_pool2d(x[0], (size[0], size[1]))


def _resize(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """[B, C, H, W] to ``size``; ``factors``, if any, replace the ratio of the sizes in the
    coordinates.
    """
    factors = cast("tuple[float, ...]", a["factors"])
    mode = str(a["mode"])
    return functional.interpolate(
        x[0],
        size=None if factors else wholes(a, "size"),
        scale_factor=list(factors) if factors else None,
        mode=mode,
        align_corners=None if mode.startswith("nearest") else bool(a["align_corners"]),
        antialias=bool(a["antialias"]),
    )


_WINDOW = named(*_WINDOW_NAMES)

NEIGHBOURHOOD: dict[str, Kind] = {
    "Pad": Kind(1, _pad, attributes=named("pads", "mode")),
    "Roll": Kind(1, _roll, attributes=named("shifts", "dims")),
    "Flip": Kind(1, _flip, attributes=named("dims")),
    "Index": Kind(1, _index, roles=named("index"), attributes=named("dim")),
    "CumulativeSum": Kind(1, _cumulative_sum, attributes=named("dim")),
    "Unfold": Kind(1, _unfold, attributes=_WINDOW),
    "Fold": Kind(1, _fold, attributes=_WINDOW | named("size")),
    "AvgPool": Kind(
        1,
        _average_pool,
        attributes=named("kernel", "stride", "padding", "ceil", "count_padding"),
    ),
    "MaxPool": Kind(1, _max_pool, attributes=_WINDOW | named("ceil")),
    "AdaptiveAvgPool": Kind(1, _adaptive_average_pool, attributes=named("size")),
    "Resize": Kind(
        1, _resize, attributes=named("size", "mode", "align_corners", "antialias", "factors")
    ),
}
