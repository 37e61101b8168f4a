"""The steps of Linear. What its product becomes depends on the operator that reads it, which may
run in the product's drain path altogether: one function for each kind of reader.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ...models.integer.ivit.dyadic import dyadic31
from ...models.integer_model import IntegerOperator
from ...models.ivit_operators import dyadic_of
from ..placement import Rows, ceil_div
from ..units.ivit.gelu_table import table_entries
from .core import DebugMemory
from .counters import Counter
from .draft import Draft, Ready, waiting
from .instruction import Destination, Product, Source
from .weight_placement import Matrix, parts

__all__ = [
    "add",
    "attention_operand",
    "embed",
    "gelu",
    "linear_product",
    "result",
    "shift_gelu",
]

_STREAM = (Destination.RESIDUAL, Destination.EMBED)
_TILE_A_ROW = (Destination.VALUE, *_STREAM, Destination.RESULT)
"""Destinations of which a row holds one tile; of the others it holds ``lanes`` features."""


def linear_product(
    draft: Draft, operator: IntegerOperator, item: Product, *, groups: int = 1, gate: str = ""
) -> Ready:
    """Appends the product of ``operator``, in parts if need be; says when the last part's rows can
    be read.

    ``item`` says where the results go (destination, dst_base, dst_stride, group_stride, banks),
    what is made of them (multiplier, shift, results), and how many rows before the operands' are
    ``void``. ``groups``: of features (heads), each of which begins a new tile. ``gate``: as in a
    Step, of a product with an expert.
    """
    machine, packing = draft.machine, draft.packing
    source, ready = draft.places[operator.inputs[0]], draft.ready[operator.inputs[0]]
    tokens, features = operator.output
    group_features = features // groups
    outputs = packing.outputs(groups, group_features)
    tiles = len(outputs)
    group_tiles = tiles // groups
    row_lanes, row_words = machine.lanes, machine.subwords
    if ready.source is Source.IMAGE:
        row_lanes, row_words = machine.depth, 1
    words, last_lanes = packing.reduction(source, row_lanes)
    draft.need("features", words * machine.depth)
    whole = replace(
        waiting(item, ready),
        tokens=tokens + item.void,
        words=words,
        last_lanes=last_lanes,
        group_tiles=group_tiles,
        last_count=group_features - (group_tiles - 1) * machine.cols,
        a_base=source.base * row_words,
        a_stride=source.pitch * row_words,
        b_tile_stride=words,
        b_word_stride=1,
        column_base=len(draft.columns),
    )
    tasks = [operator.for_task(task) for task in range(operator.tasks)]
    whole = replace(whole, by_task=int(len(tasks) > 1))
    for each in tasks:
        draft.columns += packing.columns_of(each, outputs)
    drained: Ready | None = None
    for part in _parts(draft, whole, tiles, groups):
        step = _part(draft, whole, part, tiles, groups)
        if drained is not None and item.destination in _STREAM:
            # Its statistics go on from those of the part before.
            step = replace(waiting(step, drained), a_source=whole.a_source, accumulate=1)
        rows = outputs[part.start : part.stop]
        placed = [packing.weights_of(each, source, rows, words, row_lanes) for each in tasks]
        routed = draft.counts[Counter.ROUTED]
        draft.matrices.append(Matrix(*placed[0], len(draft.steps), item.expert, routed, len(tasks)))
        name = operator.name
        if len(part) < tiles:
            name += f"[{part.start}:{part.stop}]"
        macs = operator.macs * int((rows >= 0).sum()) // features
        if gate:
            macs //= tokens
        drained = draft.product(name, operator, step, macs, gate)
    assert drained is not None
    return drained


def _parts(draft: Draft, whole: Product, tiles: int, groups: int) -> list[range]:
    """In parts, if the whole matrix would leave no room for the next one. A part ends with a whole
    group, or with a whole row of the destination. The first product of a run has nothing to hide
    the transfer of its weights behind, but a tile for each slot keeps all slots busy.
    """
    machine = draft.machine
    unit = 1
    if whole.destination is Destination.GATE:
        unit = tiles  # the softmax is over all of a row
    elif groups > 1:
        unit = whole.group_tiles
    elif whole.destination not in _TILE_A_ROW:
        unit = machine.lanes // math.gcd(machine.lanes, machine.cols)
    fewest = machine.rows if whole.destination is Destination.EMBED else None
    return parts(tiles, whole.words, machine.weight_words, unit=unit, fewest=fewest)


def _part(draft: Draft, whole: Product, part: range, tiles: int, groups: int) -> Product:
    """``whole`` for the tiles of ``part`` alone."""
    machine = draft.machine
    if whole.destination in _TILE_A_ROW:
        row = part.start
    elif groups > 1:
        row = part.start // whole.group_tiles * whole.group_stride
    else:
        row = part.start * machine.cols // machine.lanes
    item = replace(
        whole,
        tiles=len(part),
        dst_base=whole.dst_base + row,
        column_base=whole.column_base + part.start,
    )
    if groups > 1:
        return item
    last_count = whole.last_count if part.stop == tiles else machine.cols
    return replace(item, group_tiles=len(part), last_count=last_count)


# -- one function for each kind of reader ---------------------------------------------------------


def result(draft: Draft, operator: IntegerOperator) -> None:
    """Read by nobody: the logits."""
    features = operator.output[1]
    tiles = ceil_div(features, draft.machine.cols)
    draft.need("results", tiles * draft.machine.cols)
    linear_product(
        draft, operator, Product(destination=Destination.RESULT, results=features, banks=1)
    )


def gelu(draft: Draft, operator: IntegerOperator, reader: IntegerOperator) -> None:
    """Through the table of GELU to token rows."""
    factor = reader.dyadic("output")
    item = Product(
        destination=Destination.GELU, multiplier=factor.multiplier, shift=factor.shift, banks=1
    )
    _to_tokens(draft, operator, reader.name, item, 1)


def shift_gelu(draft: Draft, operator: IntegerOperator, reader: IntegerOperator) -> None:
    """Through the table of a GELU of scheme ivit to token rows."""
    table = len(draft.tables)
    draft.tables.append(table_entries(int(reader.attributes["a"]), dyadic_of(reader, "output")))
    item = Product(destination=Destination.GELU, table=table, banks=1)
    _to_tokens(draft, operator, reader.name, item, 1)


def add(draft: Draft, operator: IntegerOperator, reader: IntegerOperator) -> None:
    """Added to the residual stream."""
    item = Product(destination=Destination.RESIDUAL)
    if reader.kind == "Add31":
        # The stream is the left one.
        there, own = dyadic_of(reader, "left"), dyadic_of(reader, "right")
        item = replace(
            item,
            multiplier=own.multiplier,
            shift=own.shift,
            stream_multiplier=there.multiplier,
            stream_shift=there.shift,
        )
    _to_stream(draft, operator, reader, item)


def embed(draft: Draft, operator: IntegerOperator, reader: IntegerOperator) -> None:
    """Added to the embedding's constants; the rows before the first patch are those alone."""
    constant = draft.model.tensors[reader.tensors["constant"]].to(torch.int64)
    outputs = draft.packing.outputs(1, reader.output[1]).tolist()
    draft.constants = [
        sum(
            (row[output] & 0xFFFF) << (16 * lane) for lane, output in enumerate(tile) if output >= 0
        )
        for row in constant.tolist()
        for tile in outputs
    ]
    item = Product(destination=Destination.EMBED, void=int(reader.attributes["first_token"]))
    if reader.kind == "Embed31":
        own, there = dyadic_of(reader, "patches"), dyadic31(1.0)
        item = replace(
            item,
            multiplier=own.multiplier,
            shift=own.shift,
            stream_multiplier=there.multiplier,
            stream_shift=there.shift,
        )
    _to_stream(draft, operator, reader, item)


def attention_operand(draft: Draft, operator: IntegerOperator, reader: IntegerOperator) -> None:
    """Queries to token rows, keys and values to buffers of their own, each head in rows or tiles of
    its own.
    """
    machine = draft.machine
    heads = int(reader.attributes["heads"])
    tokens, features = operator.output
    role = reader.inputs.index(operator.name)
    if role == 0:
        item = Product(destination=Destination.TOKEN, banks=1)
        _to_tokens(draft, operator, operator.name, item, heads)
        return
    if role == 1:
        rows = ceil_div(features // heads, machine.lanes)
        draft.need("key", ceil_div(tokens, machine.cols) * heads * rows)
        item = Product(
            destination=Destination.KEY,
            dst_stride=heads * rows,
            group_stride=rows,
            banks=machine.cols,
        )
    else:
        tiles = heads * ceil_div(features // heads, machine.cols)
        draft.need("value", ceil_div(tokens, machine.depth) * tiles)
        item = Product(destination=Destination.VALUE, dst_stride=tiles, banks=machine.depth)
    draft.ready[operator.name] = linear_product(draft, operator, item, groups=heads)


def _to_tokens(
    draft: Draft, operator: IntegerOperator, owner: str, item: Product, groups: int
) -> None:
    """The product's rows are those of ``owner`` in the token buffer."""
    tokens, features = operator.output
    place = draft.place(owner, tokens, groups, features // groups)
    item = replace(
        item, dst_base=place.base, dst_stride=place.pitch, group_stride=place.group_pitch
    )
    draft.ready[owner] = linear_product(draft, operator, item, groups=groups)
    draft.boundary(owner, DebugMemory.TOKEN, place)


def _to_stream(
    draft: Draft, operator: IntegerOperator, reader: IntegerOperator, item: Product
) -> None:
    """The product's rows, behind the void ones, are those of ``reader`` in the residual stream."""
    tokens, width = reader.output
    tiles = ceil_div(width, draft.machine.cols)
    draft.need("residual", tokens * tiles)
    draft.need("tokens", tokens)
    results = 0
    if reader is draft.model.operators[-1]:
        results = tokens * tiles * draft.machine.cols
        draft.need("results", results)
    item = replace(item, dst_stride=tiles, banks=1, results=results)
    draft.ready[reader.name] = linear_product(draft, operator, item)
    draft.boundary(reader.name, DebugMemory.RESIDUAL, Rows(0, tiles, tokens, 1, width))
