"""What each kind of operator computes, and how many multiply-accumulates that takes.

The table ``KINDS`` is the vocabulary of the graph. Functions here see tensors only, so they also
run on meta tensors (shape inference) and, where nothing is multiplied, on integer tensors (index
maps).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias, cast

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["KINDS", "Attribute", "Kind", "evaluate_kind", "multiply_accumulates"]

Attribute: TypeAlias = "int | float | str | bool | tuple[Attribute, ...]"
Attributes: TypeAlias = Mapping[str, Attribute]
Evaluation: TypeAlias = Callable[[Sequence[Tensor], Mapping[str, Tensor], Attributes], Tensor]


@dataclass(frozen=True)
class Kind:
    """One word of the vocabulary: its operands, tensor roles, attributes, and what it computes.

    ``operands`` is the number of operands, or None for any number from one; ``roles`` are required
    tensors, ``optional`` may be present. ``evaluate`` takes (operands, tensors by role,
    attributes).
    """

    operands: int | None
    evaluate: Evaluation
    roles: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()


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
    if kind == "MatMul":
        return prod(output) * operands[0][-1]
    return 0


def _ints(attributes: Attributes, name: str) -> list[int]:
    return list(cast("tuple[int, ...]", attributes[name]))


def _int(attributes: Attributes, name: str) -> int:
    return int(cast(int, attributes[name]))


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
        _ints(a, "stride"),
        _ints(a, "padding"),
        _ints(a, "dilation"),
        _int(a, "groups"),
    )


def _linear(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """[..., K] to [..., O] with weight [O, K]."""
    return functional.linear(x[0], t["weight"], t.get("bias"))


def _matmul(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """[..., M, K] by [..., K, N], or by [..., N, K] when ``transpose_b``, times ``scale``."""
    product = torch.matmul(x[0], x[1].transpose(-1, -2) if a["transpose_b"] else x[1])
    scale = float(cast(float, a["scale"]))
    return product if scale == 1.0 else product * scale


def _softmax(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return functional.softmax(x[0], _int(a, "dim"))


def _layer_norm(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """Over the last axis, whose length is ``normalized``."""
    eps = float(cast(float, a["eps"]))
    return functional.layer_norm(x[0], [_int(a, "normalized")], t.get("weight"), t.get("bias"), eps)


def _gelu(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return functional.gelu(x[0], approximate=str(a["approximate"]))


def _pointwise(function: Callable[[Tensor], Tensor]) -> Evaluation:
    def evaluate(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
        return function(x[0])

    return evaluate


def _add(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return x[0] + x[1]


def _mul(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return x[0] * x[1]


def _mean(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return x[0].mean(_ints(a, "dims"), keepdim=bool(a["keepdim"]))


def _concat(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """Along ``dim``; an operand of batch 1 (a class token) is repeated to the others' batch."""
    dim = _int(a, "dim")
    if dim != 0:
        batch = max(part.shape[0] for part in x)
        x = [part.expand(batch, *part.shape[1:]) for part in x]
    return torch.cat(list(x), dim)


def _view(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """The same values in another shape: ``op`` is reshape (shape), permute (dims) or expand
    (shape).

    In a shape, -1 stands for the axis that carries the batch.
    """
    if a["op"] == "permute":
        return x[0].permute(_ints(a, "dims"))
    if a["op"] == "expand":
        return x[0].expand(_ints(a, "shape"))
    return x[0].reshape(_ints(a, "shape"))


def _select(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """``op`` is select (dim, index: the axis vanishes) or slice (dim, start, stop, step)."""
    dim = _int(a, "dim")
    if a["op"] == "select":
        return x[0].select(dim, _int(a, "index"))
    index = [slice(None)] * dim + [slice(_int(a, "start"), _int(a, "stop"), _int(a, "step"))]
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
    return cast(Tensor, result[_int(a, "result")] if isinstance(result, (tuple, list)) else result)


def _set(*names: str) -> frozenset[str]:
    return frozenset(names)


KINDS: dict[str, Kind] = {
    "Input": Kind(0, _identity),
    "Constant": Kind(0, _constant, roles=_set("value")),
    "Output": Kind(1, _identity),
    "Conv2d": Kind(
        1,
        _conv2d,
        roles=_set("weight"),
        optional=_set("bias"),
        attributes=_set("stride", "padding", "dilation", "groups"),
    ),
    "Linear": Kind(1, _linear, roles=_set("weight"), optional=_set("bias")),
    "MatMul": Kind(2, _matmul, attributes=_set("transpose_b", "scale")),
    "Softmax": Kind(1, _softmax, attributes=_set("dim")),
    "LayerNorm": Kind(
        1, _layer_norm, optional=_set("weight", "bias"), attributes=_set("eps", "normalized")
    ),
    "Gelu": Kind(1, _gelu, attributes=_set("approximate")),
    "Relu": Kind(1, _pointwise(functional.relu)),
    "Silu": Kind(1, _pointwise(functional.silu)),
    "Sigmoid": Kind(1, _pointwise(torch.sigmoid)),
    "Tanh": Kind(1, _pointwise(torch.tanh)),
    "Add": Kind(2, _add),
    "Mul": Kind(2, _mul),
    "Mean": Kind(1, _mean, attributes=_set("dims", "keepdim")),
    "Concat": Kind(None, _concat, attributes=_set("dim")),
    "View": Kind(1, _view, attributes=_set("op")),
    "Select": Kind(1, _select, attributes=_set("op", "dim")),
    "Host": Kind(None, _host, attributes=_set("target", "arguments", "result")),
}
