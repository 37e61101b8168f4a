"""Cheaper normalisers of attention and activations in the place of softmax and GELU, written out in
the graph's own vocabulary, so that cost, shared evaluation and floats all see one graph.

A replaced model answers something else until it is trained again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import torch

from ...errors import VitruviusError
from ...models.editing import Edit, rebuilt
from ...models.graph import Graph, Operator
from ...models.kind import number, whole

__all__ = ["ActivationReplacement", "SoftmaxReplacement", "replaced"]

SoftmaxReplacement = Literal["relu", "2quad", "scale"]
ActivationReplacement = Literal["quad", "relu", "identity"]

_EPS = 1e-5  # MPCViT's, below a sum of ReLUs
_SHIFT = 5.0  # MPCFormer's c in (x + c)^2
_QUAD = (0.125, 0.25, 0.5)  # MPCFormer's polynomial for GELU, highest power first


def replaced(graph: Graph, *, softmax: str | None = None, gelu: str | None = None) -> Graph:
    """The graph with every Softmax and every Gelu replaced; None leaves them.

    softmax: ``relu``, relu(x) / (sum of relu(x) + 1e-5); ``2quad``, (x + 5)^2 / sum of (x + 5)^2;
    ``scale``, x / n. gelu: ``quad``, 0.125 x^2 + 0.25 x + 0.5; ``relu``; or ``identity``.

    Raises VitruviusError for an unknown replacement.
    """
    for what, value, known in (
        ("softmax", softmax, get_args(SoftmaxReplacement)),
        ("gelu", gelu, get_args(ActivationReplacement)),
    ):
        if value is not None and value not in known:
            raise VitruviusError(f"{what}: expected {', '.join(known)}, got '{value}'")
    edit = Edit(graph)
    gone: set[str] = set()
    for op in edit.operators():
        if op.kind == "Softmax" and softmax is not None:
            gone.add(op.name)
            _replace_softmax(edit, op, softmax)
        elif op.kind in ("Gelu", "QuickGelu") and gelu is not None:
            _replace_activation(edit, op, gelu)
    found = edit.graph()
    if not gone:
        return found
    regions = [region for region in found.regions if region.softmax not in gone]
    return rebuilt(found, found.operators(), regions=regions)


def _replace_softmax(edit: Edit, op: Operator, kind: str) -> None:
    x, dim = op.inputs[0], whole(op.attributes, "dim") % len(op.output.shape)
    if kind == "scale":
        _replace_by_scale(edit, op, x, 1 / op.output.shape[dim])
        return
    if kind == "relu":
        powers = edit.add("Relu", [x], like=op, label="relu")
    else:
        moved = edit.add("Add", [x, _number(edit, op, _SHIFT)], like=op, label="shifted")
        powers = edit.add("Pow", [moved], {"exponent": 2.0}, like=op, label="squared")
    total = edit.add("Sum", [powers], {"dims": (dim,), "keepdim": True}, like=op, label="total")
    if kind == "relu":
        total = edit.add("Add", [total, _number(edit, op, _EPS)], like=op, label="positive")
    _put(edit, op, "Div", powers, total)


def _replace_by_scale(edit: Edit, op: Operator, x: str, factor: float) -> None:
    """One factor for the product before it, where nobody else reads that; as tracing would have
    it.
    """
    scores = edit.operator(x)
    if scores.kind == "MatMul" and edit.only_reader(x) is not None:
        scale = number(scores.attributes, "scale") * factor
        edit.put(replace(scores, attributes={**scores.attributes, "scale": scale}))
        edit.redirect(op.name, x)
    else:
        _put(edit, op, "Mul", x, _number(edit, op, factor))


def _replace_activation(edit: Edit, op: Operator, kind: str) -> None:
    x = op.inputs[0]
    if kind == "identity":
        edit.redirect(op.name, x)
        return
    if kind == "relu":
        edit.put(replace(op, kind="Relu", inputs=(x,), attributes={}))
        return
    square, slope, constant = (_number(edit, op, value) for value in _QUAD)
    power = edit.add("Pow", [x], {"exponent": 2.0}, like=op, label="squared")
    bent = edit.add("Mul", [power, square], like=op, label="bent")
    straight = edit.add("Mul", [x, slope], like=op, label="straight")
    both = edit.add("Add", [bent, straight], like=op, label="both")
    _put(edit, op, "Add", both, constant)


def _put(edit: Edit, op: Operator, kind: str, left: str, right: str) -> None:
    edit.put(replace(op, kind=kind, inputs=(left, right), attributes={}))


def _number(edit: Edit, op: Operator, value: float) -> str:
    tensor = torch.tensor(value, dtype=getattr(torch, op.output.dtype))
    return edit.add(
        "Constant", [], {"number": value}, like=op, label="number", tensors={"value": tensor}
    )
