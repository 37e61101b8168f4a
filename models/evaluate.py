"""What each kind of operator computes, and how many multiply-accumulates that takes.

The table ``KINDS`` is the vocabulary of the graph. Functions here see tensors only, so they also
run on meta tensors (shape inference) and, where nothing is multiplied, on integer tensors (index
maps).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from .kind import Attribute, Attributes, Kind, named, number, whole, wholes
from .neighbourhood import NEIGHBOURHOOD
from .normalisation import NORMALISATION
from .pointwise import POINTWISE
from .routing import ROUTING

__all__ = ["KINDS", "Attribute", "Kind", "evaluate_kind", "multiply_accumulates"]


def evaluate_kind(
    kind: str, operands: Sequence[Tensor], tensors: Mapping[str, Tensor], attributes: Attributes
) -> Tensor:
    """The output of one operator of ``kind``; shapes as the kind's function in this file says."""
    return KINDS[kind].evaluate(operands, tensors, attributes)


def multiply_accumulates(
    kind: str,
    operands: Sequence[tuple[int, ...]],
    weight: tuple[int, ...] | None,
    output: tuple[int, ...],
) -> int:
    """Multiply-accumulates of one operator from shapes: products of matrices and convolutions only.

    >>> multiply_accumulates("Linear", [(1, 17, 64)], (192, 64), (1, 17, 192))
    208896
    """
    if kind in ("Linear", "Conv2d"):
        if weight is None:
            raise ValueError(f"{kind} needs the shape of its weight")
        return prod(output) * prod(weight[1:])
    if kind == "ConvTranspose2d":
        if weight is None:
            raise ValueError(f"{kind} needs the shape of its weight")
        return prod(operands[0]) * prod(weight[1:])  # each input value meets its kernels once
    if kind == "MatMul":
        return prod(output) * operands[0][-1]
    return 0


def _identity(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return x[0]


def _constant(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return t["value"]


def _conv2d(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """[B, C, H, W] to [B, O, H', W'] with weight [O, C / groups, kh, kw] and zero padding."""
    return functional.conv2d(
        x[0],
        t["weight"],
        t.get("bias"),
        wholes(a, "stride"),
        wholes(a, "padding"),
        wholes(a, "dilation"),
        whole(a, "groups"),
    )


def _conv_transpose2d(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """[B, C, H, W] to [B, O, H', W'] with weight [C, O / groups, kh, kw]."""
    return functional.conv_transpose2d(
        x[0],
        t["weight"],
        t.get("bias"),
        wholes(a, "stride"),
        wholes(a, "padding"),
        wholes(a, "output_padding"),
        whole(a, "groups"),
        wholes(a, "dilation"),
    )


def _linear(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """[..., K] to [..., O] with weight [O, K]."""
    return functional.linear(x[0], t["weight"], t.get("bias"))


def _embedding(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """Rows of a table [V, D] by whole numbers [...]: [..., D]."""
    return functional.embedding(x[0], t["weight"])


def _append(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """What was kept, an input of the graph, and what is new behind it along ``dim``: a
    concatenation that leaves the first operand where it lies.
    """
    return torch.cat([x[0], x[1]], whole(a, "dim"))


def _scan(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """h[t] = decay[t] * h[t - 1] + driven[t] along ``dim``: all h, in the shape of ``driven``, the
    second operand; the third is h before the first, 0 without it.
    """
    dim = whole(a, "dim")
    driven = x[1]
    decay = x[0].expand([-1 if place != dim else driven.shape[dim] for place in range(x[0].dim())])
    kept = x[2] if len(x) > 2 else None
    states = []
    for place in range(driven.shape[dim]):
        now = driven.select(dim, place)
        kept = now if kept is None else decay.select(dim, place) * kept + now
        states.append(kept)
    return torch.stack(states, dim)


def _matmul(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """[..., M, K] by [..., K, N], or by [..., N, K] when ``transpose_b``, times ``scale``."""
    product = torch.matmul(x[0], x[1].transpose(-1, -2) if a["transpose_b"] else x[1])
    scale = number(a, "scale")
    return product if scale == 1.0 else product * scale


def _gelu(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return functional.gelu(x[0], approximate=str(a["approximate"]))


def _concat(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """Along ``dim``; an operand of batch 1 (a class token) is repeated to the others' batch."""
    dim = whole(a, "dim")
    if dim != 0:
        batch = max(part.shape[0] for part in x)
        x = [part.expand(batch, *part.shape[1:]) for part in x]
    return torch.cat(list(x), dim)


def _repeat_batch(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """The first operand once for each image of the second, side by side along ``dim``: a constant
    for one image, where the batch shares an axis with windows or heads.
    """
    counts = [1] * x[0].dim()
    counts[whole(a, "dim")] = x[1].shape[0]
    return x[0].repeat(counts)


def _view(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """The same values in another shape: ``op`` is reshape (shape), permute (dims) or expand
    (shape).

    In a shape, -1 stands for the axis that carries the batch.
    """
    if a["op"] == "permute":
        return x[0].permute(wholes(a, "dims"))
    if a["op"] == "expand":
        return x[0].expand(wholes(a, "shape"))
    return x[0].reshape(wholes(a, "shape"))


def _select(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """``op`` is select (dim, index: the axis vanishes) or slice (dim, start, stop, step)."""
    dim = whole(a, "dim")
    if a["op"] == "select":
        return x[0].select(dim, whole(a, "index"))
    index = [slice(None)] * dim + [slice(whole(a, "start"), whole(a, "stop"), whole(a, "step"))]
    return x[0][tuple(index)]


def _host(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """An operator of PyTorch itself: ``target`` is its name, ``arguments`` JSON with operands by
    index.
    """
    namespace, name, overload = str(a["target"]).split(".")
    if namespace not in ("aten", "prims"):
        raise ValueError(f"operator {a['target']} is not one of PyTorch's own")
    function = getattr(getattr(getattr(torch.ops, namespace), name), overload)

    def decoded(value: object) -> object:
        if isinstance(value, list):
            return [decoded(item) for item in value]
        if isinstance(value, dict):
            if "operand" in value:
                return x[int(value["operand"])]
            return getattr(torch, str(value["torch"]))
        return value

    result = function(
        **{key: decoded(value) for key, value in json.loads(str(a["arguments"])).items()}
    )
    return cast(Tensor, result[whole(a, "result")] if isinstance(result, (tuple, list)) else result)


KINDS: dict[str, Kind] = {
    "Input": Kind(0, _identity),
    "Constant": Kind(0, _constant, roles=named("value")),
    "Output": Kind(1, _identity),
    "Conv2d": Kind(
        1,
        _conv2d,
        roles=named("weight"),
        optional=named("bias"),
        attributes=named("stride", "padding", "dilation", "groups"),
    ),
    "ConvTranspose2d": Kind(
        1,
        _conv_transpose2d,
        roles=named("weight"),
        optional=named("bias"),
        attributes=named("stride", "padding", "output_padding", "dilation", "groups"),
    ),
    "Linear": Kind(1, _linear, roles=named("weight"), optional=named("bias")),
    "Embedding": Kind(1, _embedding, roles=named("weight")),
    "Append": Kind(2, _append, attributes=named("dim")),
    "Scan": Kind(None, _scan, attributes=named("dim")),
    "MatMul": Kind(2, _matmul, attributes=named("transpose_b", "scale")),
    "Gelu": Kind(1, _gelu, attributes=named("approximate")),
    "Concat": Kind(None, _concat, attributes=named("dim")),
    "RepeatBatch": Kind(2, _repeat_batch, attributes=named("dim")),
    "View": Kind(1, _view, attributes=named("op")),
    "Select": Kind(1, _select, attributes=named("op", "dim")),
    "Host": Kind(None, _host, attributes=named("target", "arguments", "result")),
    **NEIGHBOURHOOD,
    **NORMALISATION,
    **POINTWISE,
    **ROUTING,
}
