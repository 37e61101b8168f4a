"""The passes that bring a recurrence which the exporter wrote out, token by token, to one Scan.

``h = a * h + u`` in a loop over an axis becomes Scan(a, u), or Scan(a, u, h before the first),
whose output holds every h. What is then done to each of them alike and stacked is done to all at
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .editing import Edit
from .graph import Graph, Operator
from .kind import Attribute, whole, wholes
from .pointwise import POINTWISE

__all__ = ["raise_scans", "roll_stacks"]

_SHORTEST = 3
_REDUCTIONS = frozenset({"Sum", "Mean", "ReduceMax", "ReduceMin"})
_ALIKE = frozenset(
    kind
    for kind, word in POINTWISE.items()
    if not word.roles and not {"dim", "dims"} & word.attributes
)


@dataclass
class _Chain:
    """Steps of one recurrence along ``dim``: the operators that give h, and what they read."""

    driven: str
    dim: int
    decay: str = ""
    each: bool = False
    initial: str = ""
    steps: list[str] = field(default_factory=list)


def raise_scans(graph: Graph) -> Graph:
    """A chain of ``h = a * h + u``, u one index of a tensor after the other, becomes a Scan."""
    edit = Edit(graph)
    for op in edit.operators():
        if op.name not in edit:
            continue
        chain = _from_first(edit, edit.operator(op.name))
        if chain is not None:
            _put(edit, chain)
    return edit.graph()


def roll_stacks(graph: Graph) -> Graph:
    """A stack of results of one operator on every index of a tensor is that operator on the whole
    tensor.
    """
    edit = Edit(graph)
    for op in edit.operators():
        if op.name not in edit or op.kind != "Concat" or len(op.inputs) < _SHORTEST:
            continue
        op = edit.operator(op.name)
        axis = whole(op.attributes, "dim")
        lifted = [edit.operator(name) for name in op.inputs]
        if any(item.output.shape[axis] != 1 for item in lifted) or not axis:
            continue
        if any(item.kind != "View" or item.attributes["op"] != "reshape" for item in lifted):
            continue
        shape = lifted[0].output.shape
        items = [item.inputs[0] for item in lifted]
        if any(
            edit.operator(name).output.shape != shape[:axis] + shape[axis + 1 :] for name in items
        ):
            continue
        rolled = _rolled(edit, items, axis, op)
        if rolled is not None and edit.operator(rolled).output == op.output:
            edit.redirect(op.name, rolled)
    return edit.graph()


# -- recurrences ----------------------------------------------------------------------------------


def _from_first(edit: Edit, op: Operator) -> _Chain | None:
    """The chain whose first h is ``op``: u at index 0, or a sum of that and a product."""
    picked = _picked(edit, op.name)
    chain: _Chain | None = None
    if picked is not None and picked[2] == 0:
        chain = _Chain(picked[0], picked[1], steps=[op.name])
    elif op.kind == "Add":
        for name, other in (op.inputs, op.inputs[::-1]):
            picked, product = _picked(edit, name), edit.operator(other)
            if picked is None or picked[2] != 0 or product.kind != "Mul":
                continue
            chain = _Chain(picked[0], picked[1], steps=[op.name])
            sides = [product.inputs, product.inputs[::-1]]
            sides.sort(key=lambda side: _picked(edit, side[0]) is None)
            for decay, before in sides:
                held = _decay(edit, chain, decay, 0)
                if held is not None and edit.operator(before).output.shape == op.output.shape:
                    chain.decay, chain.each = held
                    chain.initial = before
                    break
            else:
                return None
            break
    if chain is None or not chain.dim:
        return None
    while (after := _after(edit, chain)) is not None:
        chain.steps.append(after)
    length = edit.operator(chain.driven).output.shape[chain.dim]
    return chain if len(chain.steps) == length >= _SHORTEST else None


def _after(edit: Edit, chain: _Chain) -> str | None:
    """The h behind the last one of ``chain``, whose decay is set by the first that is found."""
    place, last = len(chain.steps), chain.steps[-1]
    for product in edit.readers(last):
        total = edit.only_reader(product.name) if product.kind == "Mul" else None
        if total is None or total.kind != "Add" or product.inputs.count(last) != 1:
            continue
        other = next(name for name in total.inputs if name != product.name)
        if _picked(edit, other) != (chain.driven, chain.dim, place):
            continue
        decay = next(name for name in product.inputs if name != last)
        held = _decay(edit, chain, decay, place)
        if held is None or (chain.decay and held != (chain.decay, chain.each)):
            continue
        chain.decay, chain.each = held
        return total.name
    return None


def _decay(edit: Edit, chain: _Chain, name: str, place: int) -> tuple[str, bool] | None:
    """What h is multiplied by: one index of a tensor, or the same every time."""
    picked = _picked(edit, name)
    if picked is not None and picked[1:] == (chain.dim, place):
        return picked[0], True
    return (name, False) if picked is None and edit.operator(name).kind == "Constant" else None


def _picked(edit: Edit, name: str) -> tuple[str, int, int] | None:
    """(tensor, axis, index) of a selected index."""
    op = edit.operator(name)
    if op.kind != "Select" or op.attributes["op"] != "select":
        return None
    return op.inputs[0], whole(op.attributes, "dim"), whole(op.attributes, "index")


def _put(edit: Edit, chain: _Chain) -> None:
    last = edit.operator(chain.steps[-1])
    decay = chain.decay
    if not chain.each:
        rank, held = len(last.output.shape), edit.operator(decay).output.shape
        shape = (1,) * (rank - len(held)) + held
        attributes: dict[str, Attribute] = {
            "op": "reshape",
            "shape": (*shape[: chain.dim], 1, *shape[chain.dim :]),
        }
        decay = edit.add("View", [decay], attributes, like=last, label="reshape")
    operands = [decay, chain.driven, *([chain.initial] if chain.initial else [])]
    scan = edit.add("Scan", operands, {"dim": chain.dim}, like=last, label="scan")
    for place, step in enumerate(chain.steps):
        attributes = {"op": "select", "dim": chain.dim, "index": place}
        if step in edit:
            one = edit.add("Select", [scan], attributes, like=edit.operator(step), label="state")
            edit.redirect(step, one)


# -- stacks ---------------------------------------------------------------------------------------


def _rolled(edit: Edit, items: Sequence[str], axis: int, like: Operator) -> str | None:
    """The tensor whose index t along ``axis`` is ``items[t]``; None where they are not alike."""
    first = edit.operator(items[0])
    shape = list(first.output.shape)
    shape.insert(axis, len(items))
    picked = [_picked(edit, name) for name in items]
    if picked[0] is not None:
        source, dim, _ = picked[0]
        whole_axis = edit.operator(source).output.shape[dim] == len(items)
        in_order = picked == [(source, dim, place) for place in range(len(items))]
        if not whole_axis or not in_order or not dim:
            return None
        dims = [place for place in range(len(shape)) if place != dim]
        dims.insert(axis, dim)
        if dims == list(range(len(dims))):
            return source
        attributes: dict[str, Attribute] = {"op": "permute", "dims": tuple(dims)}
        return edit.add("View", [source], attributes, like=like, label="permute")
    operators = [edit.operator(name) for name in items]
    if any((op.kind, op.attributes) != (first.kind, first.attributes) for op in operators):
        return None
    if len(set(items)) < len(items):
        return None
    if first.kind == "View" and first.attributes["op"] == "reshape":
        return _rolled_reshape(edit, operators, axis, shape, like)
    if first.kind in _REDUCTIONS and not first.attributes["keepdim"]:
        dims = wholes(first.attributes, "dims")
        rank = len(edit.operator(first.inputs[0]).output.shape)
        kept = [place for place in range(rank) if place not in dims]
        above = kept[axis] if axis < len(kept) else rank
        source_ = _rolled(edit, [op.inputs[0] for op in operators], above, like)
        if source_ is None:
            return None
        moved = tuple(dim + (dim >= above) for dim in dims)
        attributes = {**first.attributes, "dims": moved}
        return edit.add(first.kind, [source_], attributes, like=like, label=first.kind.lower())
    if first.kind not in _ALIKE:
        return None
    operands = []
    for place in range(len(first.inputs)):
        own = [op.inputs[place] for op in operators]
        if len(set(own)) == 1 and edit.number(own[0]) is not None:
            operands.append(own[0])
            continue
        if len(edit.operator(own[0]).output.shape) != len(first.output.shape):
            return None
        rolled = _rolled(edit, own, axis, like)
        if rolled is None:
            return None
        operands.append(rolled)
    return edit.add(first.kind, operands, first.attributes, like=like, label=first.kind.lower())


def _rolled_reshape(
    edit: Edit, operators: Sequence[Operator], axis: int, shape: Sequence[int], like: Operator
) -> str | None:
    """Views that put in an axis of length 1."""
    after = operators[0].output.shape
    before = edit.operator(operators[0].inputs[0]).output.shape
    places = [p for p in range(1, len(after)) if (*after[:p], *after[p + 1 :]) == before]
    places = [p for p in places if after[p] == 1]
    if not places:
        return None
    above = axis - 1 if places[0] < axis else axis
    source = _rolled(edit, [op.inputs[0] for op in operators], above, like)
    if source is None:
        return None
    attributes: dict[str, Attribute] = {"op": "reshape", "shape": (-1, *shape[1:])}
    return edit.add("View", [source], attributes, like=like, label="reshape")
