"""The pass for attention whose groups of heads share keys and values.

People write it as copies: keys [B, G, M, d] are expanded to [B, G, H / G, M, d], or repeated entry
by entry, and viewed as [B, H, M, d]. After the pass the queries have the axis of groups instead,
and keys and values are read as they are: scores [B, G, H / G, N, M] of queries [B, G, H / G, N, d]
and keys [B, G, 1, M, d]. With one group for all heads the copies go and the axes stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .editing import Edit
from .graph import Graph, Operator, TensorSpec
from .kind import Attribute

__all__ = ["group_queries"]


@dataclass(frozen=True)
class _Shared:
    """Keys or values [B, groups, M, d] that ``heads`` read, and the operator that gives them."""

    source: str
    groups: int
    heads: int


def group_queries(graph: Graph) -> Graph:
    """Reads shared keys and values once: see the file's docstring."""
    edit = Edit(graph)
    for op in edit.operators():
        if op.name in edit and op.kind == "Softmax" and op.attributes["dim"] == -1:
            _group(edit, edit.operator(op.name))
    return edit.graph()


def _group(edit: Edit, softmax: Operator) -> None:
    apply = edit.only_reader(softmax.name)
    if apply is None or apply.kind != "MatMul" or apply.inputs[0] != softmax.name:
        return
    chain = _chain(edit, softmax)
    if chain is None or apply.attributes["transpose_b"]:
        return
    scores = chain[0]
    keys, values = (_shared(edit, op.inputs[1]) for op in (scores, apply))
    shape = scores.output.shape
    if keys is None or values is None or len(shape) != 4:
        return
    if (keys.groups, keys.heads) != (values.groups, values.heads) or keys.heads != shape[1]:
        return
    if keys.groups == 1:
        edit.put(replace(scores, inputs=(scores.inputs[0], keys.source)))
        edit.put(replace(apply, inputs=(softmax.name, values.source)))
        return
    groups, each = keys.groups, keys.heads // keys.groups
    q, k = _viewed(edit, scores.inputs[0], scores, groups, each), _alone(edit, keys, scores)
    edit.put(replace(scores, inputs=(q, k), output=_apart(scores, groups, each)))
    for op in (*chain[1:], softmax):
        edit.put(replace(edit.operator(op.name), output=_apart(op, groups, each)))
    v = _alone(edit, values, apply)
    before = apply.output.shape
    edit.put(replace(apply, inputs=(softmax.name, v), output=_apart(apply, groups, each)))
    readers = edit.readers(apply.name)
    back = edit.add(
        "View",
        [apply.name],
        {"op": "reshape", "shape": (-1, *before[1:])},
        like=readers[0],
        label="reshape",
    )
    for reader in readers:
        names = tuple(back if name == apply.name else name for name in reader.inputs)
        edit.put(replace(reader, inputs=names))


def _chain(edit: Edit, softmax: Operator) -> list[Operator] | None:
    """The scores and what is done to them on the way to the softmax, each read once; masks must be
    the same for all heads.
    """
    found: list[Operator] = []
    op = edit.operator(softmax.inputs[0])
    while True:
        if edit.only_reader(op.name) is None or op.output.shape != softmax.output.shape:
            return None
        found.insert(0, op)
        if op.kind == "MatMul":
            return found if op.attributes["transpose_b"] else None
        if op.kind not in ("Add", "Mul", "Where"):
            return None
        wide = [name for name in op.inputs if edit.operator(name).output.shape == op.output.shape]
        others = [edit.operator(name).output.shape for name in op.inputs if name not in wide]
        if len(wide) != 1 or any(size != 1 for shape in others for size in shape[:-2]):
            return None
        op = edit.operator(wide[0])


def _shared(edit: Edit, name: str) -> _Shared | None:
    """What is copied for several heads, if ``name`` is copies."""
    op = edit.operator(name)
    if len(op.output.shape) != 4:
        return None
    heads = op.output.shape[1]
    if op.kind == "Index" and op.attributes["dim"] == 1:
        source = edit.operator(op.inputs[0])
        index, groups = edit.tensor(op, "index"), source.output.shape[1]
        if index is None or index.is_meta or heads % groups:
            return None
        each = torch.arange(groups).repeat_interleave(heads // groups)
        return _Shared(source.name, groups, heads) if torch.equal(index.cpu(), each) else None
    if op.kind != "View":
        return None
    if op.attributes["op"] == "expand":
        source = edit.operator(op.inputs[0])
        before, after = source.output.shape, op.output.shape
        if (before[0], before[2:]) == (after[0], after[2:]) and before[1] == 1 < after[1]:
            return _Shared(source.name, 1, heads)
        return None
    wide = edit.operator(op.inputs[0])
    if op.attributes["op"] != "reshape" or wide.kind != "View":
        return None
    shape = wide.output.shape
    if wide.attributes["op"] != "expand" or len(shape) != 5 or shape[3:] != op.output.shape[2:]:
        return None
    apart = edit.operator(wide.inputs[0])
    if apart.output.shape != (*shape[:2], 1, *shape[3:]) or shape[1] * shape[2] != heads:
        return None
    if apart.kind != "View" or apart.attributes["op"] != "reshape":
        return None
    source = edit.operator(apart.inputs[0])
    if source.output.shape != (shape[0], shape[1], *shape[3:]):
        return None
    return _Shared(source.name, shape[1], heads)


def _alone(edit: Edit, shared: _Shared, reader: Operator) -> str:
    """Keys or values [B, G, 1, M, d]."""
    _, groups, *rest = edit.operator(shared.source).output.shape
    attributes: dict[str, Attribute] = {"op": "reshape", "shape": (-1, groups, 1, *rest)}
    return edit.add("View", [shared.source], attributes, like=reader, label="reshape")


def _viewed(edit: Edit, name: str, reader: Operator, groups: int, each: int) -> str:
    """Queries [B, H, N, d] as [B, G, H / G, N, d]."""
    rest = edit.operator(name).output.shape[2:]
    attributes: dict[str, Attribute] = {"op": "reshape", "shape": (-1, groups, each, *rest)}
    return edit.add("View", [name], attributes, like=reader, label="reshape")


def _apart(op: Operator, groups: int, each: int) -> TensorSpec:
    batch, _, *rest = op.output.shape
    return replace(op.output, shape=(batch, groups, each, *rest))
