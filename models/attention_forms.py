"""The pass that straightens what stands between the scores and the softmax of an attention.

People write views of the leading axes (windows, heads folded into the batch), scales, masks and
biases there in any order. After the pass there is one Add of everything that is added, or nothing,
and the products, the Add and the softmax all have the same leading axes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from .editing import Edit
from .graph import Graph, Operator, TensorSpec
from .kind import Attribute, number, whole, wholes

__all__ = ["straighten_attention"]

_SURELY_ZERO = -1e4
"""exp of this is 0 in float32, so a filled score and a lowered one weigh the same."""


def straighten_attention(graph: Graph) -> Graph:
    """Views before the products, one scale, one Add: see the file's docstring."""
    edit = Edit(graph)
    for op in edit.operators():
        if op.name in edit and op.kind == "Softmax":
            _sink_permutes(edit, op.name)
            _drop_nothing(edit, op.name)
    for op in edit.operators():
        if op.name not in edit or op.kind != "Softmax" or op.attributes["dim"] != -1:
            continue
        chain = _chain(edit, op.inputs[0])
        if chain is None:
            continue
        apply = _apply(edit, op)
        if apply is not None:
            _straighten(edit, chain, edit.operator(op.name), apply)
    return edit.graph()


@dataclass(frozen=True)
class _Lead:
    """Leading axes: their lengths for one image, and as a view writes them, -1 for the batch."""

    sizes: tuple[int, ...]
    written: tuple[int, ...]


@dataclass(frozen=True)
class _Apply:
    """The second product, and the view of the softmax that it reads, if there is one."""

    product: Operator
    view: Operator | None


def _sink_permutes(edit: Edit, name: str) -> None:
    """A softmax over any axis of permuted scores, whose reader permutes again, is one over the last
    axis between the scores and both permutations. Constants in between are permuted back.
    """
    softmax, after = edit.operator(name), edit.only_reader(name)
    if after is None or after.kind != "View" or after.attributes["op"] != "permute":
        return
    between: list[tuple[Operator, str]] = []
    view = edit.operator(softmax.inputs[0])
    while view.kind in ("Add", "Mul") and edit.only_reader(view.name) is not None:
        sides = [other for other in view.inputs if edit.constant(other) is not None]
        if len(sides) != 1:
            return
        between.append((view, sides[0]))
        view = edit.operator(next(other for other in view.inputs if other != sides[0]))
    if view.kind != "View" or view.attributes["op"] != "permute":
        return
    dims = wholes(view.attributes, "dims")
    if edit.only_reader(view.name) is None or dims[whole(softmax.attributes, "dim")] != max(dims):
        return
    source = edit.operator(view.inputs[0])
    reading = source.name
    for op, side in reversed(between):
        known = edit.constant(side)
        if known is not None and edit.number(side) is None:
            back = [dims.index(place) for place in range(len(dims))]
            turned = known.reshape((1,) * (len(dims) - known.dim()) + known.shape).permute(back)
            params = edit.operator(side).params
            held = {"value": turned}
            side = edit.add("Constant", [], like=op, label="mask", tensors=held, params=params)
        edit.put(replace(op, inputs=(reading, side), output=source.output))
        reading = op.name
    straight = replace(softmax, inputs=(reading,), attributes={"dim": -1}, output=source.output)
    edit.put(straight)
    both = tuple(dims[place] for place in wholes(after.attributes, "dims"))
    edit.put(replace(after, attributes={**after.attributes, "dims": both}))


def _drop_nothing(edit: Edit, name: str) -> None:
    """A permutation of the softmax that ended as none goes."""
    after = edit.only_reader(name)
    if after is None or after.kind != "View" or after.attributes["op"] != "permute":
        return
    if wholes(after.attributes, "dims") == list(range(len(after.output.shape))):
        edit.redirect(after.name, name)


def _chain(edit: Edit, name: str) -> list[Operator] | None:
    """The operators from a product of queries and keys down to ``name``, each read once by the
    next; None when the way up does not lead to one.
    """
    op = edit.operator(name)
    if edit.only_reader(name) is None:
        return None
    if op.kind == "MatMul":
        return [op] if op.attributes["transpose_b"] else None
    if op.kind == "View":
        same = edit.operator(op.inputs[0]).output.shape[-2:] == op.output.shape[-2:]
        candidates = op.inputs if op.attributes["op"] == "reshape" and same else ()
    elif op.kind in ("Add", "Mul"):
        candidates = op.inputs
    elif op.kind == "Where":
        candidates = op.inputs[1:]
    else:
        candidates = ()
    found = []
    for candidate in candidates:
        if edit.operator(candidate).output.shape == op.output.shape or op.kind == "View":
            above = _chain(edit, candidate)
            if above is not None:
                found.append([*above, op])
    # a bias computed by a product of its own reads a table on one side
    found.sort(key=lambda chain: any(edit.constant(i) is not None for i in chain[0].inputs))
    return found[0] if found else None


def _apply(edit: Edit, softmax: Operator) -> _Apply | None:
    reader = edit.only_reader(softmax.name)
    view = None
    if reader is not None and reader.kind == "View" and reader.attributes["op"] == "reshape":
        if reader.output.shape[-2:] != softmax.output.shape[-2:]:
            return None
        view, reader = reader, edit.only_reader(reader.name)
    if reader is None or reader.kind != "MatMul" or reader.attributes["transpose_b"]:
        return None
    shares = view.name if view else softmax.name
    return _Apply(reader, view) if reader.inputs[0] == shares else None


def _straighten(edit: Edit, chain: list[Operator], softmax: Operator, apply: _Apply) -> None:
    product = chain[0]
    views = [op for op in (*chain, *([apply.view] if apply.view else [])) if op.kind == "View"]
    plain = [op.kind for op in chain[1:]] in ([], ["Add"])
    if not views and plain:
        return
    leads = [_lead(op) for op in views]
    target = max([_lead(product), *leads], key=lambda lead: len(lead.sizes))
    collected = _collected(edit, chain, target)
    if collected is None:
        return
    scale, on_queries, added = collected
    moved = [
        _regrouped(edit.operator(name).output.shape[:-2], product.output.shape[:-2], target)
        for name in product.inputs
    ]
    before = apply.product.output.shape
    values = edit.operator(apply.product.inputs[1])
    shares = edit.operator(apply.product.inputs[0]).output.shape[:-2]
    last = _regrouped(values.output.shape[:-2], shares, target)
    if None in moved or last is None or before[:-2] != shares:
        return
    q, k = (
        _viewed(edit, name, lead, product)
        for name, lead in zip(product.inputs, moved, strict=True)
        if lead is not None
    )
    for factor, params in on_queries:
        value = {"value": factor}
        held = edit.add("Constant", [], like=product, label="factor", tensors=value, params=params)
        q = edit.add("Mul", [q, held], like=product, label="scaled")
    inner = (*target.sizes, *product.output.shape[-2:])
    output = TensorSpec(inner, product.output.dtype)
    attributes = {**product.attributes, "scale": number(product.attributes, "scale") * scale}
    scores = replace(product, inputs=(q, k), attributes=attributes, output=output)
    edit.put(scores)
    source = product.name
    if added:
        source = _added(edit, scores, chain, added)
    v = _viewed(edit, values.name, last, apply.product)
    edit.put(replace(softmax, inputs=(source,), output=output))
    outcome = TensorSpec((*inner[:-1], before[-1]), output.dtype)
    edit.put(replace(apply.product, inputs=(softmax.name, v), output=outcome))
    if outcome.shape != before:
        _restore(edit, apply, before)


def _restore(edit: Edit, apply: _Apply, before: tuple[int, ...]) -> None:
    """Gives the readers of the second product the shape that they know."""
    readers = edit.readers(apply.product.name)
    lead = _lead(apply.view).written if apply.view else (-1, *before[1:-2])
    shape = (*lead, *before[-2:])
    anchor = readers[0]
    back = edit.add(
        "View",
        [apply.product.name],
        {"op": "reshape", "shape": shape},
        like=anchor,
        label="reshape",
    )
    for reader in readers:
        names = tuple(back if name == apply.product.name else name for name in reader.inputs)
        edit.put(replace(reader, inputs=names))


def _added(edit: Edit, scores: Operator, chain: list[Operator], added: list[Tensor | str]) -> str:
    """One Add of everything that is added to the scores; what is known is summed up."""
    adds = [op for op in chain if op.kind in ("Add", "Where")]
    anchor = adds[-1]
    known = [item for item in added if isinstance(item, Tensor)]
    computed = [item for item in added if isinstance(item, str)]
    if known:
        total = known[0]
        for item in known[1:]:
            total = total + item
        params = sum(
            edit.operator(name).params
            for op in adds
            for name in op.inputs
            if edit.constant(name) is not None
        )
        computed.append(
            edit.add(
                "Constant",
                [],
                like=anchor,
                label="mask",
                tensors={"value": total},
                params=params,
            )
        )
    side = computed[0]
    for other in computed[1:]:
        side = edit.add("Add", [side, other], like=anchor, label="mask")
    edit.put(
        replace(
            anchor,
            kind="Add",
            inputs=(scores.name, side),
            attributes={},
            output=scores.output,
        )
    )
    return anchor.name


def _collected(
    edit: Edit, chain: list[Operator], target: _Lead
) -> tuple[float, list[tuple[Tensor, int]], list[Tensor | str]] | None:
    """What the chain does to the scores: a factor, factors of whole rows (with their parameters
    counted), and what is added, in the leading axes ``target``. None when it does something else.
    """
    scale, rows = 1.0, list[tuple[Tensor, int]]()
    added: list[Tensor | str] = []
    for above, op in pairwise(chain):
        if op.kind == "View":
            continue
        lead = op.output.shape[:-2]
        others = [name for name in op.inputs if name != above.name]
        if op.kind == "Where":
            mask = _filled(edit, op, above.name)
            found = None if mask is None else _moved(mask, lead, target)
            if found is None:
                return None
            added.append(found)
            continue
        if len(others) != 1:
            return None
        other, held = others[0], edit.constant(others[0])
        if op.kind == "Add":
            found = None if held is None else _moved(held, lead, target)
            if found is not None:
                added.append(found)
            elif held is None and lead == target.sizes:
                added.append(other)
            else:
                return None
        elif (factor := edit.number(other)) is not None and all(
            isinstance(item, Tensor) for item in added
        ):
            scale *= factor
            added = [item * factor for item in added if isinstance(item, Tensor)]
        elif held is not None and held.dim() and held.shape[-1] == 1 and not added:
            found = _moved(held, lead, target)
            if found is None:
                return None
            rows.append((found, edit.operator(other).params))
        else:
            return None
    return scale, rows, added


def _filled(edit: Edit, op: Operator, scores: str) -> Tensor | None:
    """The mask of numbers that an addition needs for what ``op`` fills with a very low one."""
    mask = edit.constant(op.inputs[0])
    value = edit.number(op.inputs[2] if op.inputs[1] == scores else op.inputs[1])
    if mask is None or value is None or value > _SURELY_ZERO or mask.dtype != torch.bool:
        return None
    if mask.is_meta:
        return None
    if op.inputs[1] == scores:
        mask = ~mask
    if bool(mask.expand(op.output.shape).all(-1).any()):
        return None  # a row that is filled all over weighs by what was there before
    return torch.zeros(mask.shape).masked_fill(mask, value)


def _moved(known: Tensor, lead: tuple[int, ...], target: _Lead) -> Tensor | None:
    """A known tensor that broadcasts against [*lead, N, M], for [*target, N, M]."""
    if known.dim() <= 2:
        return known
    held = _regrouped(tuple(known.shape[:-2]), lead, target)
    return None if held is None else known.reshape(*held.sizes, *known.shape[-2:])


def _viewed(edit: Edit, name: str, lead: _Lead, reader: Operator) -> str:
    """``name`` with other leading axes; the reshape that made the present ones is bypassed."""
    op = edit.operator(name)
    tail = op.output.shape[-2:]
    shape = (*lead.sizes, *tail)
    if shape == op.output.shape:
        return name
    if op.kind == "View" and op.attributes["op"] == "reshape":
        source = edit.operator(op.inputs[0])
        if source.output.shape == shape:
            return source.name
        name = source.name
    attributes: dict[str, Attribute] = {"op": "reshape", "shape": (*lead.written, *tail)}
    return edit.add("View", [name], attributes, like=reader, label="reshape")


def _lead(op: Operator) -> _Lead:
    """The leading axes of an output: a view says where the batch is, else it is the first."""
    sizes = op.output.shape[:-2]
    if op.kind == "View" and op.attributes["op"] == "reshape":
        return _Lead(sizes, tuple(wholes(op.attributes, "shape")[:-2]))
    return _Lead(sizes, (-1, *sizes[1:]) if sizes else ())


def _regrouped(sizes: tuple[int, ...], before: tuple[int, ...], after: _Lead) -> _Lead | None:
    """Leading axes that broadcast against ``before``, as they must be to broadcast against
    ``after``, which has the same values in other axes. None when an axis would be broken up.

    >>> _regrouped((1, 3), (4, 3), _Lead((1, 4, 3), (-1, 4, 3)))
    _Lead(sizes=(1, 1, 3), written=(1, 1, 3))
    """
    sizes = (1,) * (len(before) - len(sizes)) + sizes
    made: list[int] = []
    written: list[int] = []
    old = new = 0
    while old < len(before) or new < len(after.sizes):
        start, place = old, new
        old, new = min(old + 1, len(before)), min(new + 1, len(after.sizes))
        while prod(before[start:old]) != prod(after.sizes[place:new]):
            if prod(before[start:old]) < prod(after.sizes[place:new]):
                if old == len(before):
                    return None
                old += 1
            elif new == len(after.sizes):
                return None
            else:
                new += 1
        if sizes[start:old] == before[start:old]:
            made.extend(after.sizes[place:new])
            written.extend(after.written[place:new])
        elif prod(sizes[start:old]) == 1:
            made.extend([1] * (new - place))
            written.extend([1] * (new - place))
        else:
            return None
    return _Lead(tuple(made), tuple(written))
