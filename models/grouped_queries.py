"""Attention whose groups of heads share keys and values: one way to write the copies.

Keys [B, G, M, d] are expanded to [B, G, H / G, M, d] and viewed as [B, H, M, d], with G = 1
expanded alone. Copies entry by entry become that; nothing is copied by views, and whoever reads
through them finds the keys that are shared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from .editing import Edit
from .graph import Graph, Operator
from .kind import Attribute

__all__ = ["shared_groups", "write_as_views"]


def write_as_views(graph: Graph) -> Graph:
    """An Index that repeats every entry of axis 1 of [B, G, M, d] equally often, next to each
    other, becomes views.
    """
    edit = Edit(graph)
    for op in edit.operators():
        if op.name not in edit or op.kind != "Index" or op.attributes["dim"] != 1:
            continue
        op = edit.operator(op.name)
        source, index = edit.operator(op.inputs[0]), edit.tensor(op, "index")
        if len(op.output.shape) != 4 or index is None or index.is_meta:
            continue
        groups, heads = source.output.shape[1], op.output.shape[1]
        each = torch.arange(groups).repeat_interleave(heads // groups)
        if heads == groups or heads % groups or not torch.equal(index.cpu(), each):
            continue
        rest = op.output.shape[2:]
        attributes: dict[str, Attribute] = {"op": "reshape", "shape": (-1, groups, 1, *rest)}
        apart = edit.add("View", [source.name], attributes, like=op, label="reshape")
        attributes = {"op": "expand", "shape": (-1, -1, heads // groups, -1, -1)}
        wide = edit.add("View", [apart], attributes, like=op, label="expand")
        attributes = {"op": "reshape", "shape": (-1, heads, *rest)}
        edit.put(replace(op, kind="View", inputs=(wide,), attributes=attributes, tensors={}))
    return edit.graph()


def shared_groups(operator: Callable[[str], Operator], name: str) -> int:
    """How many keys or values the operator ``name``, [B, H, M, d], is copies of, in equal groups of
    neighbouring heads; 0 when each head has its own. ``operator`` gives operators by name.
    """
    op = operator(name)
    shape = op.output.shape
    if len(shape) != 4 or op.kind != "View":
        return 0
    if op.attributes["op"] == "expand":
        before = operator(op.inputs[0]).output.shape
        alone = before == (shape[0], 1, *shape[2:])
        return 1 if alone and shape[1] > 1 else 0
    wide = operator(op.inputs[0])
    if op.attributes["op"] != "reshape" or wide.kind != "View" or wide.attributes["op"] != "expand":
        return 0
    apart, after = operator(wide.inputs[0]).output.shape, wide.output.shape
    if len(after) != 5 or apart != (*after[:2], 1, *after[3:]) or after[2] == 1:
        return 0
    whole = (after[0], after[1] * after[2], *after[3:])
    return after[1] if whole == shape else 0
