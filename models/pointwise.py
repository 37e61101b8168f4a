"""Kinds that work element by element, and the reductions over axes.

None of them multiplies matrices, so all count 0 multiply-accumulates. Operands broadcast as in
PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from .kind import Attributes, Evaluation, Kind, named, number, whole, wholes

__all__ = ["COMPARISONS", "POINTWISE"]

COMPARISONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "and": torch.logical_and,
    "or": torch.logical_or,
    "xor": torch.logical_xor,
}


def _one(function: Callable[[Tensor], Tensor]) -> Evaluation:
    """A function of one operand."""

    def evaluate(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
        return function(x[0])

    return evaluate


def _two(function: Callable[[Tensor, Tensor], Tensor]) -> Evaluation:
    """A function of two operands."""

    def evaluate(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
        return function(x[0], x[1])

    return evaluate


def _quick_gelu(x: Tensor) -> Tensor:
    """X times the logistic function of 1.702 x (Hendrycks and Gimpel, arXiv:1606.08415)."""
    return x * torch.sigmoid(1.702 * x)


def _leaky_relu(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return functional.leaky_relu(x[0], number(a, "slope"))


def _prelu(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """Slopes below 0 in ``weight``: one, or one for each index of axis 1."""
    return functional.prelu(x[0], t["weight"])


def _elu(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """``scale * x`` above 0, ``scale * alpha * (exp(input_scale * x) - 1)`` below."""
    below = number(a, "alpha") * torch.expm1(number(a, "input_scale") * x[0])
    return number(a, "scale") * torch.where(x[0] > 0, x[0], below)


def _softplus(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return functional.softplus(x[0], number(a, "beta"), number(a, "threshold"))


def _pow(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return torch.pow(x[0], number(a, "exponent"))


def _clamp(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """Between ``lower`` and ``upper``, either of which may be missing."""
    lower = number(a, "lower") if "lower" in a else None
    return torch.clamp(x[0], lower, number(a, "upper") if "upper" in a else None)


def _cast(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return x[0].to(cast(torch.dtype, getattr(torch, str(a["dtype"]))))


def _compare(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """``op`` is one of ``COMPARISONS``; the result is boolean."""
    return COMPARISONS[str(a["op"])](x[0], x[1])


def _where(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """The second operand where the first (boolean) holds, else the third."""
    return torch.where(x[0], x[1], x[2])


def _sum(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return x[0].sum(wholes(a, "dims"), keepdim=bool(a["keepdim"]))


def _mean(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return x[0].mean(wholes(a, "dims"), keepdim=bool(a["keepdim"]))


def _reduce_max(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return x[0].amax(wholes(a, "dims"), keepdim=bool(a["keepdim"]))


def _reduce_min(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return x[0].amin(wholes(a, "dims"), keepdim=bool(a["keepdim"]))


def _variance(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """Sum of squared deviations over (count - ``correction``)."""
    dims, keepdim = wholes(a, "dims"), bool(a["keepdim"])
    return x[0].var(dims, correction=number(a, "correction"), keepdim=keepdim)


def _vector_norm(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """The ``order``-norm over some axes: 2 is the Euclidean length."""
    dims, keepdim = wholes(a, "dims"), bool(a["keepdim"])
    length: Tensor = torch.linalg.vector_norm(x[0], number(a, "order"), dims, keepdim)
    return length


def _log_softmax(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    return functional.log_softmax(x[0], whole(a, "dim"))


_REDUCTION = named("dims", "keepdim")

POINTWISE: dict[str, Kind] = {
    "Relu": Kind(1, _one(functional.relu)),
    "Relu6": Kind(1, _one(functional.relu6)),
    "LeakyRelu": Kind(1, _leaky_relu, attributes=named("slope")),
    "PRelu": Kind(1, _prelu, roles=named("weight")),
    "Elu": Kind(1, _elu, attributes=named("alpha", "scale", "input_scale")),
    "Silu": Kind(1, _one(functional.silu)),
    "QuickGelu": Kind(1, _one(_quick_gelu)),
    "Mish": Kind(1, _one(functional.mish)),
    "HardSwish": Kind(1, _one(functional.hardswish)),
    "HardSigmoid": Kind(1, _one(functional.hardsigmoid)),
    "Sigmoid": Kind(1, _one(torch.sigmoid)),
    "Tanh": Kind(1, _one(torch.tanh)),
    "Softplus": Kind(1, _softplus, attributes=named("beta", "threshold")),
    "LogSoftmax": Kind(1, _log_softmax, attributes=named("dim")),
    "Exp": Kind(1, _one(torch.exp)),
    "Expm1": Kind(1, _one(torch.expm1)),
    "Log": Kind(1, _one(torch.log)),
    "Log1p": Kind(1, _one(torch.log1p)),
    "Sqrt": Kind(1, _one(torch.sqrt)),
    "Rsqrt": Kind(1, _one(torch.rsqrt)),
    "Reciprocal": Kind(1, _one(torch.reciprocal)),
    "Abs": Kind(1, _one(torch.abs)),
    "Sign": Kind(1, _one(torch.sign)),
    "Erf": Kind(1, _one(torch.erf)),
    "Sin": Kind(1, _one(torch.sin)),
    "Cos": Kind(1, _one(torch.cos)),
    "Floor": Kind(1, _one(torch.floor)),
    "Ceil": Kind(1, _one(torch.ceil)),
    "Round": Kind(1, _one(torch.round)),
    "Not": Kind(1, _one(torch.logical_not)),
    "Pow": Kind(1, _pow, attributes=named("exponent")),
    "Clamp": Kind(1, _clamp),
    "Cast": Kind(1, _cast, attributes=named("dtype")),
    "Add": Kind(2, _two(torch.add)),
    "Mul": Kind(2, _two(torch.mul)),
    "Div": Kind(2, _two(torch.div)),
    "Maximum": Kind(2, _two(torch.maximum)),
    "Minimum": Kind(2, _two(torch.minimum)),
    "Compare": Kind(2, _compare, attributes=named("op")),
    "Where": Kind(3, _where),
    "Sum": Kind(1, _sum, attributes=_REDUCTION),
    "Mean": Kind(1, _mean, attributes=_REDUCTION),
    "ReduceMax": Kind(1, _reduce_max, attributes=_REDUCTION),
    "ReduceMin": Kind(1, _reduce_min, attributes=_REDUCTION),
    "Variance": Kind(1, _variance, attributes=_REDUCTION | named("correction")),
    "VectorNorm": Kind(1, _vector_norm, attributes=_REDUCTION | named("order")),
}
