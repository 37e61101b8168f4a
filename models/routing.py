"""Kinds that move values to and from places which depend on the data: the routing of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .kind import Attributes, Kind, named, whole

__all__ = ["ROUTING"]


def _top_k(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """The ``k`` largest along ``dim``, largest first: [..., E] to [..., k] of their ``result``,
    "values" or "indices" (int64).
    """
    values, indices = torch.topk(x[0], whole(a, "k"), whole(a, "dim"))
    return indices if a["result"] == "indices" else values


def _gather(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """Data read at int64 indices along ``dim``; the result has the shape of the index."""
    data, index = _batched(x)
    return torch.gather(data, whole(a, "dim"), index)


def _scatter(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """The base with the source's values written at int64 indices along ``dim``; the result has the
    shape of the base. Indices of one row are all different, or the result is not defined.
    """
    base, index, source = _batched(x)
    return torch.scatter(base, whole(a, "dim"), index, source)


def _gate(x: Sequence[Tensor], t: Mapping[str, Tensor], a: Attributes) -> Tensor:
    """[..., E] to the same: the ``k`` largest stay, the others become 0; ties go to the lower
    index.
    """
    order = torch.sort(x[0], dim=-1, descending=True, stable=True).indices
    index = order[..., : whole(a, "k")]
    return torch.zeros_like(x[0]).scatter(-1, index, x[0].gather(-1, index))


def _batched(operands: Sequence[Tensor]) -> list[Tensor]:
    """The operands repeated to the longest batch: a constant of the model has batch 1."""
    batch = max(operand.shape[0] for operand in operands)
    return [operand.expand(batch, *operand.shape[1:]) for operand in operands]


ROUTING: dict[str, Kind] = {
    "TopK": Kind(1, _top_k, attributes=named("k", "dim", "result")),
    "Gather": Kind(2, _gather, attributes=named("dim")),
    "Scatter": Kind(3, _scatter, attributes=named("dim")),
    "Gate": Kind(1, _gate, attributes=named("k")),
}
