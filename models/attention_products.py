"""Passes on the two products of an attention: transposes into them, and numbers into their scale.

Scores end as queries [..., N, d] by keys [..., M, d] with ``transpose_b``; the shares of the
softmax [..., N, M] stand on the left of the second product, values [..., M, d] on the right.
"""

from __future__ import annotations

from dataclasses import replace

from .editing import Edit
from .graph import Graph, Operator
from .kind import number, wholes

__all__ = ["absorb_transposes", "fold_scales", "swapped_axes"]

_BETWEEN = ("Mul", "Add", "View", "Where")


def absorb_transposes(graph: Graph) -> Graph:
    """A MatMul whose second operand is a swap of the last two axes reads the unswapped one with
    ``transpose_b``; products around a softmax get the form above, with a swap where one is needed.
    """
    edit = Edit(graph)
    for op in edit.operators():
        if op.name in edit and op.kind == "MatMul":
            _absorb(edit, edit.operator(op.name))
    for op in edit.operators():
        if op.name in edit and op.kind == "MatMul":
            op = edit.operator(op.name)
            shares = [_from_softmax(edit, name) for name in op.inputs]
            if shares == [False, True]:
                _turn_around(edit, op)
            elif shares == [True, False] and op.attributes["transpose_b"]:
                turned = _swapped(edit, op.inputs[1], op)
                edit.put(_reading(op, op.inputs[0], turned, transpose_b=False))
            elif not op.attributes["transpose_b"] and _reaches_softmax(edit, op):
                turned = _swapped(edit, op.inputs[1], op)
                edit.put(_reading(op, op.inputs[0], turned, transpose_b=True))
    return edit.graph()


def fold_scales(graph: Graph) -> Graph:
    """A Mul by one number on the way into or right after a MatMul becomes the MatMul's ``scale``.

    On the way in it may lie behind Views and Selects; every operator between must have one reader.
    """
    edit = Edit(graph)
    for op in edit.operators():
        if op.kind != "MatMul":
            continue
        while (after := edit.only_reader(op.name)) is not None:
            factor = _factor(edit, after, op.name)
            if factor is None:
                break
            _fold(edit, op.name, after, op.name, factor)
        for place in (0, 1):
            while (found := _factor_before(edit, edit.operator(op.name).inputs[place])) is not None:
                _fold(edit, op.name, *found)
    return edit.graph()


def swapped_axes(axes: int) -> tuple[int, ...]:
    """The permutation that swaps the last two of some axes."""
    return (*range(axes - 2), axes - 1, axes - 2)


def _absorb(edit: Edit, op: Operator) -> None:
    view = edit.operator(op.inputs[1])
    if view.kind != "View" or view.attributes["op"] != "permute":
        return
    dims = tuple(wholes(view.attributes, "dims"))
    swapped = (*dims[:-2], dims[-1], dims[-2])
    turned = not op.attributes["transpose_b"]
    if swapped == tuple(range(len(dims))):
        edit.put(_reading(op, op.inputs[0], view.inputs[0], transpose_b=turned))
    elif turned and _reaches_softmax(edit, op) and edit.only_reader(view.name) is not None:
        shape = view.output.shape
        output = replace(view.output, shape=(*shape[:-2], shape[-1], shape[-2]))
        edit.put(replace(view, attributes={**view.attributes, "dims": swapped}, output=output))
        edit.put(_reading(op, *op.inputs, transpose_b=True))


def _reading(op: Operator, a: str, b: str, *, transpose_b: bool) -> Operator:
    attributes = {**op.attributes, "transpose_b": transpose_b}
    return replace(op, inputs=(a, b), attributes=attributes)


def _swapped(edit: Edit, name: str, reader: Operator) -> str:
    """``name`` with its last two axes swapped, as a new operator or by taking a swap back."""
    op = edit.operator(name)
    dims = swapped_axes(len(op.output.shape))
    permuted = op.kind == "View" and op.attributes["op"] == "permute"
    if permuted and tuple(wholes(op.attributes, "dims")) == dims:
        return op.inputs[0]
    return edit.add("View", [name], {"op": "permute", "dims": dims}, like=reader, label="permute")


def _turn_around(edit: Edit, op: Operator) -> None:
    """a @ shares (or its transpose) = (shares' @ a')' with the swap of both written out."""
    a, shares = op.inputs
    if not op.attributes["transpose_b"]:
        return  # sums over the queries: no attention
    dims = swapped_axes(len(op.output.shape))
    turned = _swapped(edit, a, op)
    attributes = {"transpose_b": False, "scale": op.attributes["scale"]}
    product = edit.add("MatMul", [shares, turned], attributes, like=op, label="apply")
    back = edit.add("View", [product], {"op": "permute", "dims": dims}, like=op, label="permute")
    edit.redirect(op.name, back)


def _from_softmax(edit: Edit, name: str) -> bool:
    """Whether the operand is a softmax over the last axis, perhaps in another view of the leading
    axes, that nobody else reads.
    """
    op = edit.operator(name)
    while edit.only_reader(op.name) is not None:
        if op.kind == "Softmax":
            return op.attributes["dim"] == -1
        if op.kind != "View" or op.attributes["op"] != "reshape":
            return False
        before = edit.operator(op.inputs[0])
        if before.output.shape[-2:] != op.output.shape[-2:]:
            return False
        op = before
    return False


def _reaches_softmax(edit: Edit, op: Operator) -> bool:
    """Whether the product's only way on is through scaling, masking and views of the leading axes
    to a softmax over keys.
    """
    tail, reader = op.output.shape[-2:], edit.only_reader(op.name)
    while reader is not None and reader.kind in _BETWEEN and reader.output.shape[-2:] == tail:
        reader = edit.only_reader(reader.name)
    return reader is not None and reader.kind == "Softmax" and reader.attributes["dim"] == -1


def _factor_before(edit: Edit, name: str) -> tuple[Operator, str, float] | None:
    """The Mul by a number that an operand comes from, the operand it scales, and the number."""
    source = edit.operator(name)
    while source.kind in ("View", "Select") and edit.only_reader(source.name) is not None:
        source = edit.operator(source.inputs[0])
    if source.kind != "Mul" or edit.only_reader(source.name) is None:
        return None
    for operand in source.inputs:
        if (factor := _factor(edit, source, operand)) is not None:
            return source, operand, factor
    return None


def _factor(edit: Edit, mul: Operator, operand: str) -> float | None:
    """The number that ``mul`` multiplies ``operand`` by, if it is one."""
    if mul.kind != "Mul" or operand not in mul.inputs:
        return None
    other = mul.inputs[1] if mul.inputs[0] == operand else mul.inputs[0]
    if edit.operator(operand).output != mul.output:
        return None
    return edit.number(other)


def _fold(edit: Edit, product: str, mul: Operator, operand: str, factor: float) -> None:
    """Puts ``mul``'s factor in the product's scale and lets its readers read ``operand``."""
    edit.redirect(mul.name, operand)
    op = edit.operator(product)
    scale = number(op.attributes, "scale") * factor
    edit.put(replace(op, attributes={**op.attributes, "scale": scale}))
