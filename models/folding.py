"""Passes that put factors and shifts of whole channels into the weights beside them.

A batch norm in inference and a LayerScale multiply each channel by a number, which the layer before
(or behind) can do as well. Weights are changed in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from .editing import Edit
from .graph import Graph, Operator
from .kind import whole, wholes

__all__ = ["fold_batch_norms", "fold_channel_factors"]

_NORMS = ("LayerNorm", "RmsNorm", "GroupNorm")


def fold_batch_norms(graph: Graph) -> Graph:
    """A ScaleShift goes into the Linear or convolution that it reads, if nobody else reads that,
    or into the Linears and unpadded convolutions that read it; else it stays.
    """
    edit = Edit(graph)
    for op in edit.operators():
        if op.kind != "ScaleShift" or op.name not in edit:
            continue
        op = edit.operator(op.name)
        factor, shift = edit.tensor(op, "weight"), edit.tensor(op, "bias")
        if factor is None or shift is None:
            continue
        layer = _layer_above(edit, op.inputs[0], whole(op.attributes, "axis"), len(factor))
        if layer is not None:
            _scale_output(edit, layer, factor, shift)
            edit.redirect(op.name, op.inputs[0])
        elif all(_takes_input(edit, reader, op) for reader in edit.readers(op.name)):
            for reader in edit.readers(op.name):
                _scale_input(edit, reader, factor, shift)
            edit.redirect(op.name, op.inputs[0])
    return edit.graph()


def fold_channel_factors(graph: Graph) -> Graph:
    """A Mul or Add of one constant for each channel goes into the Linear, convolution or norm that
    it reads, if nobody else reads that: LayerScale, biases and affine factors written apart.
    """
    edit = Edit(graph)
    for op in edit.operators():
        while op.name in edit and edit.operator(op.name).kind in ("Mul", "Add"):
            op = edit.operator(op.name)
            if not _fold_factor(edit, op):
                break
    return edit.graph()


def _fold_factor(edit: Edit, op: Operator) -> bool:
    for operand, other in (op.inputs, op.inputs[::-1]):
        held = edit.constant(other)
        if held is None or edit.operator(operand).output != op.output:
            continue
        found = _channel(tuple(held.shape), op.output.shape)
        if found is None:
            continue
        axis, count = found
        layer = _layer_above(edit, operand, axis, count, norms=True)
        if layer is None:
            continue
        values = held.flatten()
        if op.kind == "Mul":
            _scale_output(edit, layer, values, None)
        elif layer.kind == "RmsNorm":
            continue
        else:
            _scale_output(edit, layer, None, values)
        edit.redirect(op.name, operand)
        return True
    return False


def _channel(held: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The one axis along which a constant differs, and its length there."""
    lengths = (1,) * (len(shape) - len(held)) + held
    axes = [place for place, length in enumerate(lengths) if length != 1]
    if len(axes) != 1 or axes[0] == 0 or lengths[axes[0]] != shape[axes[0]]:
        return None
    return axes[0], lengths[axes[0]]


def _layer_above(
    edit: Edit, name: str, axis: int, channels: int, *, norms: bool = False
) -> Operator | None:
    """The layer whose output channels lie along ``axis`` of ``name``, through views that keep that
    axis whole, all of them read once.
    """
    op = edit.operator(name)
    while edit.only_reader(op.name) is not None:
        shape = op.output.shape
        if op.kind == "Linear" or (norms and op.kind in ("LayerNorm", "RmsNorm")):
            return op if axis == len(shape) - 1 and shape[axis] == channels else None
        if op.kind == "Conv2d" or (op.kind == "ConvTranspose2d" and op.attributes["groups"] == 1):
            return op if axis == 1 and shape[1] == channels else None
        if norms and op.kind == "GroupNorm":
            return op if axis == 1 and shape[1] == channels else None
        if op.kind != "View":
            return None
        source = edit.operator(op.inputs[0])
        if op.attributes["op"] == "permute":
            axis = wholes(op.attributes, "dims")[axis]
        elif op.attributes["op"] == "reshape":
            moved = _same_axis(shape, axis, source.output.shape)
            if moved is None:
                return None
            axis = moved
        else:
            return None
        op = source
    return None


def _same_axis(after: tuple[int, ...], axis: int, before: tuple[int, ...]) -> int | None:
    """Which axis of ``before`` is ``axis`` of ``after`` in a reshape, if it stays whole."""
    for place, length in enumerate(before):
        if length == after[axis] and prod(before[place + 1 :]) == prod(after[axis + 1 :]):
            return place
    return None


def _takes_input(edit: Edit, reader: Operator, op: Operator) -> bool:
    """Whether a factor and shift of the input channels can go into ``reader``'s weights."""
    axis, axes = whole(op.attributes, "axis"), len(op.output.shape)
    if reader.kind == "Linear":
        return axis == axes - 1
    if reader.kind != "Conv2d" or reader.attributes["groups"] != 1:
        return False
    shift = edit.tensor(op, "bias")
    flat = shift is not None and not shift.is_meta and not bool(shift.any())
    return axis == 1 and (flat or not any(wholes(reader.attributes, "padding")))


def _scale_output(edit: Edit, layer: Operator, factor: Tensor | None, shift: Tensor | None) -> None:
    """Output channel c of ``layer`` becomes factor[c] times itself plus shift[c]."""
    layer = edit.operator(layer.name)
    weight, bias = edit.tensor(layer, "weight"), edit.tensor(layer, "bias")
    made: dict[str, Tensor] = {}
    if factor is not None:
        if weight is None:
            made["weight"] = factor.float()
        else:
            place = 1 if layer.kind == "ConvTranspose2d" else 0
            shape = [1] * weight.dim()
            shape[place] = -1
            made["weight"] = (weight.double() * factor.double().reshape(shape)).float()
    if bias is not None and factor is not None:
        bias = bias.double() * factor.double()
    if shift is not None:
        bias = shift.double() if bias is None else bias.double() + shift.double()
    if bias is not None and (factor is not None or shift is not None):
        made["bias"] = bias.float()
    _hold(edit, layer, made)


def _scale_input(edit: Edit, layer: Operator, factor: Tensor, shift: Tensor) -> None:
    """Input channel c of ``layer`` is read as factor[c] times itself plus shift[c]."""
    weight, bias = edit.tensor(layer, "weight"), edit.tensor(layer, "bias")
    if weight is None:
        raise TypeError(f"{layer.name} has no weight")
    shape = [1] * weight.dim()
    shape[1] = -1
    wide = weight.double()
    moved = (wide * shift.double().reshape(shape)).flatten(1).sum(1)
    made = {"weight": (wide * factor.double().reshape(shape)).float()}
    made["bias"] = (moved if bias is None else bias.double() + moved).float()
    _hold(edit, layer, made)


def _hold(edit: Edit, layer: Operator, made: dict[str, Tensor]) -> None:
    """``layer`` with other tensors under keys of its own, because weights may be shared."""
    tensors = dict(layer.tensors)
    for role, tensor in made.items():
        key = layer.tensors.get(role, f"{layer.name}.{role}").removesuffix(".folded")
        tensors[role] = edit.hold(f"{key}.folded", tensor.to(torch.float32))
    held = {role: made.get(role, edit.tensor(layer, role)) for role in tensors}
    params = sum(tensor.numel() for tensor in held.values() if tensor is not None)
    edit.put(replace(layer, tensors=tensors, params=params))
