"""The steps of LayerNorm, and of Select, which may leave but one row of it."""

from __future__ import annotations

from dataclasses import replace

from ...models.integer_model import IntegerOperator
from .core import DebugMemory
from .counters import modular
from .draft import Draft
from .instruction import Norm
from .norm_engine import COLUMN_BITS

__all__ = ["layernorm", "select"]


def layernorm(draft: Draft, operator: IntegerOperator) -> None:
    """One normalisation; only of the row that is chosen, if nobody reads another one."""
    tokens, width = operator.output
    readers = draft.readers[operator.name]
    chosen = {int(reader.attributes["token"]) for reader in readers if reader.kind == "Select"}
    only = len(chosen) == 1 and all(reader.kind == "Select" for reader in readers)
    first, count = (min(chosen), 1) if only else (0, tokens)
    place = draft.rows(count, 1, width)
    draft.places[operator.name] = place
    draft.need("normal", count * place.pitch)
    tiles = len(draft.packing.outputs(1, width))
    codes = draft.model.layernorm_codes(operator)
    base = len(draft.norm_columns)
    source = draft.ready[operator.inputs[0]]
    draft.norm_columns += _columns(draft, operator)
    draft.ready[operator.name] = draft.norm(
        operator,
        Norm(
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
            affine_shift=codes.shift,
            epsilon=codes.epsilon,
        ),
    )
    if not only:
        draft.boundary(operator.name, DebugMemory.NORMAL, place)


def _columns(draft: Draft, operator: IntegerOperator) -> list[int]:
    """Gain and offset of ``cols`` features a word."""
    codes = draft.model.layernorm_codes(operator)
    gain, offset = codes.gain.tolist(), codes.offset.tolist()
    return [
        sum(
            ((offset[output] & 0xFFFFFFFF) | (gain[output] & 0xFFFF) << 32) << (COLUMN_BITS * lane)
            for lane, output in enumerate(tile)
            if output >= 0
        )
        for tile in draft.packing.outputs(1, operator.output[1]).tolist()
    ]


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
