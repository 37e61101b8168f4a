"""The steps of LayerNorm, and of Select, which may leave but one row of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...models.integer_model import IntegerOperator
from .core import DebugMemory
from .counters import modular
from .draft import Draft
from .instruction import Norm
from .packing import packed_columns

__all__ = ["i_layernorm", "layernorm", "select"]


def layernorm(draft: Draft, operator: IntegerOperator) -> None:
    """One normalisation; only of the row that is chosen, if nobody reads another one."""
    codes = draft.model.layernorm_codes(operator)
    columns = {"gain": codes.gain.tolist(), "offset": codes.offset.tolist()}
    _normalise(draft, operator, columns, Norm(affine_shift=codes.shift, epsilon=codes.epsilon))


def i_layernorm(draft: Draft, operator: IntegerOperator) -> None:
    """As `layernorm`, in scheme ivit."""
    columns = {
        role: draft.model.tensors[operator.tensors[role]].tolist()
        for role in ("bias", "multiplier", "shift", "alive")
    }
    _normalise(draft, operator, columns, Norm())


def _normalise(
    draft: Draft, operator: IntegerOperator, columns: Mapping[str, list[int]], item: Norm
) -> None:
    """Appends the normalisation, with ``columns``: the values of each feature."""
    tokens, width = operator.output
    readers = draft.readers[operator.name]
    chosen = {int(reader.attributes["token"]) for reader in readers if reader.kind == "Select"}
    only = len(chosen) == 1 and all(reader.kind == "Select" for reader in readers)
    first, count = (min(chosen), 1) if only else (0, tokens)
    place = draft.rows(count, 1, width)
    draft.places[operator.name] = place
    draft.need("normal", count * place.pitch)
    tiles = len(draft.packing.outputs(1, width))
    base = len(draft.norm_columns)
    source = draft.ready[operator.inputs[0]]
    layout = draft.machine.arithmetic.norm_column
    draft.norm_columns += [
        packed_columns(
            layout,
            [{name: of[at] for name, of in columns.items()} if at >= 0 else {} for at in tile],
        )
        for tile in draft.packing.outputs(1, width).tolist()
    ]
    draft.ready[operator.name] = draft.norm(
        operator,
        replace(
            item,
            row_threshold=modular(source.first + (0 if source.together else first)),
            row_step=int(not source.together),
            # the last product that reads the rows of the normalisation before
            start_threshold=modular(draft.normal_readers),
            tokens=count,
            token_base=first,
            tiles=tiles,
            last_count=width - (tiles - 1) * draft.machine.cols,
            a_base=first * tiles,
            dst_base=place.base,
            dst_stride=place.pitch,
            column_base=base,
            width=width,
        ),
    )
    if not only:
        draft.boundary(operator.name, DebugMemory.NORMAL, place)


def select(draft: Draft, operator: IntegerOperator) -> None:
    """No step: the row of the chosen token, where it lies."""
    source = draft.places[operator.inputs[0]]
    ready = draft.ready[operator.inputs[0]]
    token = int(operator.attributes["token"])
    row = source.base
    if source.tokens > 1:  # otherwise its LayerNorm has normalised nothing else
        row += token * source.pitch
        # the next image overwrites what is normalised here
        ready = replace(ready, first=ready.first + source.tokens - 1)
    draft.places[operator.name] = replace(source, base=row, tokens=1)
    draft.ready[operator.name] = ready
