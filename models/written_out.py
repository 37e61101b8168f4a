"""Passes that recognise activations, norms and the softmax where a model writes them out.

Each looks for the one operator that gives the formula away (an error function, a reciprocal root)
and checks everything around it; what does not fit exactly stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import replace

from .editing import Edit
from .graph import Graph, Operator
from .kind import Attribute, number, wholes

__all__ = ["merge_twins", "recognise_activations", "recognise_norms", "recognise_softmax"]

_TANH_FACTOR = math.sqrt(2.0 / math.pi)
_TANH_CUBE = 0.044715
_QUICK = 1.702
_WRITTEN_TWICE = ("Add", "Exp", "Mean", "Mul", "Pow")


def merge_twins(graph: Graph) -> Graph:
    """Sums, products, means and exponentials that are written twice are computed once."""
    edit = Edit(graph)
    seen: dict[tuple[object, ...], str] = {}
    for op in edit.operators():
        if op.kind not in _WRITTEN_TWICE:
            continue
        op = edit.operator(op.name)
        twin = seen.setdefault((op.kind, op.inputs, *sorted(op.attributes.items())), op.name)
        if twin != op.name:
            edit.redirect(op.name, twin)
    return edit.graph()


def recognise_activations(graph: Graph) -> Graph:
    """GELU (erf, tanh, quick), SiLU and hard-swish as products become Gelu, QuickGelu, Silu and
    HardSwish.
    """
    edit = Edit(graph)
    for op in edit.operators():
        if op.name not in edit:
            continue
        op = edit.operator(op.name)
        if op.kind in ("Erf", "Tanh"):
            gate = edit.only_reader(op.name)
            argument = op.inputs[0]
            if gate is None or _plus(edit, gate, op.name) != 1.0:
                continue
            if op.kind == "Erf":
                x = _times(edit, argument, math.sqrt(0.5))
                if x is not None:
                    _replace_product(edit, gate, x, 0.5, "Gelu", {"approximate": "none"})
            elif (x := _tanh_argument(edit, argument)) is not None:
                _replace_product(edit, gate, x, 0.5, "Gelu", {"approximate": "tanh"})
        elif op.kind == "Sigmoid":
            x = _times(edit, op.inputs[0], _QUICK)
            if x is None or not _replace_product(edit, op, x, 1.0, "QuickGelu", {}):
                _replace_product(edit, op, op.inputs[0], 1.0, "Silu", {})
        elif op.kind == "HardSigmoid":
            _replace_product(edit, op, op.inputs[0], 1.0, "HardSwish", {})
        elif op.kind == "Relu6":
            above = edit.operator(op.inputs[0])
            for x in above.inputs if above.kind == "Add" else ():
                if _plus(edit, above, x) == 3.0:
                    _replace_product(edit, op, x, 1.0 / 6.0, "HardSwish", {})
                    break
    return edit.graph()


def recognise_norms(graph: Graph) -> Graph:
    """RMS norm, layer norm and division by the Euclidean length become RmsNorm, LayerNorm and
    L2Normalize; factors for each channel stay behind them.
    """
    edit = Edit(graph)
    for op in edit.operators():
        if op.name not in edit:
            continue
        op = edit.operator(op.name)
        if op.kind in ("Rsqrt", "Sqrt"):
            _recognise_root(edit, op)
        elif op.kind == "VectorNorm":
            _recognise_length(edit, op)
    return edit.graph()


def recognise_softmax(graph: Graph) -> Graph:
    """exp(x) / sum(exp(x)), with or without the largest taken away first, becomes Softmax."""
    edit = Edit(graph)
    for op in edit.operators():
        if op.name not in edit or op.kind != "Div":
            continue
        op = edit.operator(op.name)
        powers, total = edit.sources(op)
        if powers.kind != "Exp" or total.kind != "Sum" or total.inputs != (powers.name,):
            continue
        dims = wholes(total.attributes, "dims")
        if len(dims) != 1 or not total.attributes["keepdim"]:
            continue
        x = powers.inputs[0]
        lowered = _difference(edit, edit.operator(x))
        if lowered is not None:
            top = edit.operator(lowered[1])
            largest = top.kind == "ReduceMax" and top.inputs == (lowered[0],)
            if largest and top.attributes["keepdim"] and wholes(top.attributes, "dims") == dims:
                x = lowered[0]
        last = len(op.output.shape) - 1
        attributes: dict[str, Attribute] = {"dim": -1 if dims[0] == last else dims[0]}
        edit.put(replace(op, kind="Softmax", inputs=(x,), attributes=attributes))
    return edit.graph()


def _close(one: float | None, other: float) -> bool:
    return one is not None and math.isclose(one, other, rel_tol=1e-5)


def _plus(edit: Edit, op: Operator, operand: str) -> float | None:
    """The number that an Add adds to ``operand``."""
    if op.kind != "Add" or operand not in op.inputs:
        return None
    return edit.number(op.inputs[1] if op.inputs[0] == operand else op.inputs[0])


def _times(edit: Edit, name: str, factor: float) -> str | None:
    """The operand that ``name`` is ``factor`` times of."""
    coefficient, factors = _factors(edit, edit.operator(name))
    if len(factors) == 1 and _close(coefficient, factor):
        return factors[0]
    return None


def _factors(edit: Edit, op: Operator) -> tuple[float, list[str]]:
    """A tree of Muls, inner ones read once, as a number and operands; a power counts as several."""
    if op.kind == "Pow" and op.attributes["exponent"] in (2.0, 3.0):
        return 1.0, [op.inputs[0]] * int(number(op.attributes, "exponent"))
    if op.kind != "Mul":
        return 1.0, [op.name]
    coefficient, factors = 1.0, list[str]()
    for name in op.inputs:
        value = edit.number(name)
        inner = edit.operator(name)
        if value is not None:
            coefficient *= value
        elif inner.kind in ("Mul", "Pow") and edit.only_reader(name) is not None:
            held, more = _factors(edit, inner)
            coefficient *= held
            factors += more
        else:
            factors.append(name)
    return coefficient, factors


def _replace_product(
    edit: Edit, gate: Operator, x: str, factor: float, kind: str, attributes: dict[str, Attribute]
) -> bool:
    """Replaces the product factor * x * gate by ``kind`` of x, if there is such a product."""
    name = gate.name
    while (reader := edit.only_reader(name)) is not None and reader.kind == "Mul":
        coefficient, factors = _factors(edit, reader)
        if sorted(factors) == sorted([x, gate.name]) and _close(coefficient, factor):
            edit.put(replace(reader, kind=kind, inputs=(x,), attributes=attributes))
            return True
        name = reader.name
    return False


def _tanh_argument(edit: Edit, name: str) -> str | None:
    """X in sqrt(2 / pi) * (x + 0.044715 x^3), the cube perhaps taken out as x * (1 + ...)."""
    coefficient, factors = _factors(edit, edit.operator(name))
    if not _close(coefficient, _TANH_FACTOR):
        return None
    for place, inner in enumerate(factors):
        total = edit.operator(inner)
        rest = factors[:place] + factors[place + 1 :]
        if total.kind != "Add" or len(rest) > 1:
            continue
        for one, other in (total.inputs, total.inputs[::-1]):
            cube, powers = _factors(edit, edit.operator(other))
            if not _close(cube, _TANH_CUBE) or len(set(powers)) != 1:
                continue
            if rest == [] and powers == [one] * 3:
                return one
            if rest == powers[:1] and len(powers) == 2 and edit.number(one) == 1.0:
                return rest[0]
    return None


def _difference(edit: Edit, op: Operator) -> tuple[str, str] | None:
    """(a, b) when the operator is a - b."""
    if op.kind != "Add":
        return None
    for one, other in (op.inputs, op.inputs[::-1]):
        coefficient, factors = _factors(edit, edit.operator(other))
        if coefficient == -1.0 and len(factors) == 1:
            return one, factors[0]
    return None


def _recognise_root(edit: Edit, root: Operator) -> None:
    """Replaces x times (or over) a root of its mean square or variance plus eps."""
    total = edit.operator(root.inputs[0])
    if total.kind != "Add":
        return
    for spread, other in (total.inputs, total.inputs[::-1]):
        eps = edit.number(other)
        found = None if eps is None else _spread(edit, edit.operator(spread))
        if found is None or eps is None:
            continue
        x, axis, centred = found
        for reader in edit.readers(root.name):
            source = _normalised(edit, reader, root)
            if source is None:
                continue
            operand = edit.operator(source)
            if centred:
                parts = _difference(edit, operand)
                if parts is None or parts[0] != x or _mean_of(edit, parts[1]) != (x, axis):
                    continue
            elif source != x:
                continue
            kind, begin = ("LayerNorm", x) if centred else ("RmsNorm", x)
            centre = None if centred else _difference(edit, operand)
            if centre is not None and _mean_of(edit, centre[1]) == (centre[0], axis):
                kind, begin = "LayerNorm", centre[0]
            _put_norm(edit, reader, kind, begin, axis, eps)
        return


def _spread(edit: Edit, op: Operator) -> tuple[str, int, bool] | None:
    """(x, axis, whether about the mean): the mean square or the variance of x along one axis."""
    if op.kind not in ("Mean", "Variance") or not op.attributes["keepdim"]:
        return None
    dims = wholes(op.attributes, "dims")
    if len(dims) != 1:
        return None
    if op.kind == "Variance":
        return (op.inputs[0], dims[0], True) if op.attributes["correction"] == 0 else None
    squares = edit.operator(op.inputs[0])
    if squares.kind == "Pow" and squares.attributes["exponent"] == 2.0:
        return squares.inputs[0], dims[0], False
    if squares.kind == "Mul" and squares.inputs[0] == squares.inputs[1]:
        return squares.inputs[0], dims[0], False
    return None


def _mean_of(edit: Edit, name: str) -> tuple[str, int] | None:
    op = edit.operator(name)
    if op.kind != "Mean" or not op.attributes["keepdim"]:
        return None
    dims = wholes(op.attributes, "dims")
    return (op.inputs[0], dims[0]) if len(dims) == 1 else None


def _normalised(edit: Edit, reader: Operator, root: Operator) -> str | None:
    """What ``reader`` multiplies by the reciprocal root, or divides by the root."""
    if root.kind == "Sqrt":
        over = reader.kind == "Div" and reader.inputs[1] == root.name
        return reader.inputs[0] if over else None
    if reader.kind != "Mul":
        return None
    return reader.inputs[1] if reader.inputs[0] == root.name else reader.inputs[0]


def _put_norm(edit: Edit, op: Operator, kind: str, x: str, axis: int, eps: float) -> None:
    """Puts a norm over ``axis`` in the place of ``op``, between permutations unless it is last."""
    shape = op.output.shape
    attributes: dict[str, Attribute] = {"eps": eps, "normalized": shape[axis]}
    if axis == len(shape) - 1:
        edit.put(replace(op, kind=kind, inputs=(x,), attributes=attributes))
        return
    dims = (*(place for place in range(len(shape)) if place != axis), axis)
    back = tuple(dims.index(place) for place in range(len(shape)))
    turned = edit.add("View", [x], {"op": "permute", "dims": dims}, like=op, label="permute")
    norm = edit.add(kind, [turned], attributes, like=op, label=kind.lower())
    view: dict[str, Attribute] = {"op": "permute", "dims": back}
    edit.put(replace(op, kind="View", inputs=(norm,), attributes=view))


def _recognise_length(edit: Edit, length: Operator) -> None:
    """x / max(length, eps), the length perhaps expanded."""
    dims = wholes(length.attributes, "dims")
    plain = length.attributes["order"] == 2.0 and length.attributes["keepdim"]
    if len(dims) != 1 or not plain:
        return
    op, eps = length, 0.0
    reader = edit.only_reader(op.name)
    if reader is not None and reader.kind == "Clamp" and reader.attributes.keys() == {"lower"}:
        op, eps = reader, number(reader.attributes, "lower")
        reader = edit.only_reader(op.name)
    if reader is not None and reader.kind == "View" and reader.attributes["op"] == "expand":
        op, reader = reader, edit.only_reader(reader.name)
    if reader is None or reader.kind != "Div" or reader.inputs != (length.inputs[0], op.name):
        return
    attributes: dict[str, Attribute] = {"dim": dims[0], "eps": eps}
    edit.put(replace(reader, kind="L2Normalize", inputs=length.inputs[:1], attributes=attributes))
