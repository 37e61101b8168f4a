"""Kinds that bring values to a common size: the norms of transformers and what they leave behind.

All count 0 multiply-accumulates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .kind import Attributes, Kind, named, number, whole

__all__ = ["NORMALISATION"]


def _softmax(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return functional.softmax(x[0], whole(a, "dim"))


def _layer_norm(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """Over the last axis, whose length is ``normalized``."""
    eps = number(a, "eps")
    return functional.layer_norm(
        x[0], [whole(a, "normalized")], t.get("weight"), t.get("bias"), eps
    )


def _rms_norm(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """X / sqrt(mean(x^2) + eps) * weight over the last axis, whose length is ``normalized``."""
    x0 = x[0] * torch.rsqrt(x[0].square().mean(-1, keepdim=True) + number(a, "eps"))
    return x0 * t["weight"] if "weight" in t else x0


def _group_norm(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """[B, C, ...]: mean and variance over C / ``groups`` channels and every later axis."""
    groups = whole(a, "groups")
    return functional.group_norm(x[0], groups, t.get("weight"), t.get("bias"), number(a, "eps"))


def _scale_shift(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """X * weight + bias, one pair for each index of ``axis``: a batch norm in inference."""
    shape = [1] * x[0].dim()
    shape[whole(a, "axis")] = -1
    return x[0] * t["weight"].reshape(shape) + t["bias"].reshape(shape)


def _l2_normalize(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """X / max(length, eps), the Euclidean length along ``dim``."""
    return functional.normalize(x[0], 2.0, whole(a, "dim"), number(a, "eps"))


_AFFINE = named("weight", "bias")

NORMALISATION: dict[str, Kind] = {
    "Softmax": Kind(1, _softmax, attributes=named("dim")),
    "LayerNorm": Kind(1, _layer_norm, optional=_AFFINE, attributes=named("eps", "normalized")),
    "RmsNorm": Kind(1, _rms_norm, optional=named("weight"), attributes=named("eps", "normalized")),
    "GroupNorm": Kind(1, _group_norm, optional=_AFFINE, attributes=named("eps", "groups")),
    "ScaleShift": Kind(1, _scale_shift, roles=_AFFINE, attributes=named("axis")),
    "L2Normalize": Kind(1, _l2_normalize, attributes=named("dim", "eps")),
}
