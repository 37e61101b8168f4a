"""The instruction words of the product engine and of the norm engine.

One layout serves the RTL (an Amaranth struct), the compiler and the cycle simulator (`decode`), so
the three cannot disagree about a field.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

from amaranth.hdl import unsigned
from amaranth.lib import data

from ..units.ivit.shift_exp import STEP_BITS
from .counters import COUNTER_BITS, Counter
from .scheme import Scheme

__all__ = [
    "EXPERT_BITS",
    "NORM_LAYOUT",
    "Destination",
    "Norm",
    "Opcode",
    "Product",
    "Source",
    "decode",
    "encode",
    "product_layout",
]


class Opcode(IntEnum):
    """What an instruction is, for both engines."""

    LOOP = 0
    """The image is through: begin again with the next one, if there is one."""
    STEP = 1
    """A product, or a normalisation."""


class Source(IntEnum):
    """Where an operand of a product comes from."""

    TOKEN = 0
    """int8 queries, attention outputs, hidden activations."""
    ATTENTION = 1
    """Softmax weights, unsigned."""
    NORMAL = 2
    """Normalised rows."""
    IMAGE = 3
    """Patches."""
    WEIGHT = 4
    KEY = 5
    VALUE = 6


class Destination(IntEnum):
    """What the drain path makes of a product, and where it goes."""

    TOKEN = 0
    """Bias, requantize to int8, token buffer."""
    GELU = 1
    """Bias, requantize to 16 bits, GELU, requantize to int8, token buffer. In scheme ivit bias,
    requantize to int8, table, token buffer."""
    KEY = 2
    """Bias, requantize to int8, key buffer."""
    VALUE = 3
    """Bias, requantize to int8, value buffer."""
    RESIDUAL = 4
    """Bias, requantize to 16 bits, saturating add to the residual stream; row statistics. In scheme
    ivit both addends are requantized once more."""
    EMBED = 5
    """As RESIDUAL, but added to the constants of the embedding."""
    SCORE = 6
    """Requantize to scores of 16 bits (8 in scheme ivit), softmax, attention buffer."""
    APPLY = 7
    """Requantize, in scheme edge by the row's reciprocal sum, to int8, token buffer."""
    RESULT = 8
    """Bias, requantize to 16 bits (32 in scheme ivit), result buffer."""
    GATE = 9
    """Bias, requantize to 16-bit scores, softmax and router: into the queues of experts."""


EXPERT_BITS = 7
"""Bits that name an expert, or none."""

_PRODUCT_FIELDS = {
    "opcode": unsigned(1),
    "final": unsigned(1),
    "accumulate": unsigned(1),
    "row_step": unsigned(1),
    "a_source": unsigned(3),
    "b_source": unsigned(3),
    "destination": unsigned(4),
    "row_wait": unsigned(3),
    "row_threshold": unsigned(COUNTER_BITS),
    "start_wait": unsigned(3),
    "start_threshold": unsigned(COUNTER_BITS),
    "tokens": unsigned(12),
    "token_base": unsigned(12),
    "void": unsigned(12),
    "words": unsigned(12),
    "last_lanes": unsigned(8),
    "tiles": unsigned(12),
    "group_tiles": unsigned(12),
    "last_count": unsigned(8),
    "a_base": unsigned(24),
    "a_stride": unsigned(16),
    "b_base": unsigned(24),
    "b_tile_stride": unsigned(16),
    "b_word_stride": unsigned(16),
    "dst_base": unsigned(24),
    "dst_stride": unsigned(16),
    "group_stride": unsigned(16),
    "banks": unsigned(8),
    "column_base": unsigned(24),
    "multiplier": unsigned(16),
    "shift": unsigned(6),
    "results": unsigned(17),
    "expert": unsigned(EXPERT_BITS),
    "gather": unsigned(1),
    "scatter": unsigned(1),
    "relative": unsigned(1),
    "by_task": unsigned(1),
    "top": unsigned(3),
}
_IVIT_FIELDS = _PRODUCT_FIELDS | {
    "multiplier": unsigned(31),
    "stream_multiplier": unsigned(31),
    "stream_shift": unsigned(6),
    "exp_step": unsigned(STEP_BITS),
    "octaves": unsigned(4),
    "table": unsigned(8),
    "planes": unsigned(1),
}
_PRODUCT_LAYOUTS = {
    "edge": data.StructLayout(_PRODUCT_FIELDS),
    "ivit": data.StructLayout(_IVIT_FIELDS),
}

NORM_LAYOUT = data.StructLayout(
    {
        "opcode": unsigned(1),
        "row_step": unsigned(1),
        "row_threshold": unsigned(COUNTER_BITS),
        "start_threshold": unsigned(COUNTER_BITS),
        "tokens": unsigned(12),
        "token_base": unsigned(12),
        "tiles": unsigned(12),
        "last_count": unsigned(8),
        "a_base": unsigned(24),
        "dst_base": unsigned(24),
        "dst_stride": unsigned(16),
        "column_base": unsigned(24),
        "width": unsigned(11),
        "affine_shift": unsigned(5),
        "epsilon": unsigned(52),
    }
)


@dataclass(frozen=True)
class Product:
    """One product. In a LOOP, what one image adds to DRAINED, WEIGHED, NORMALISED, FETCHED and
    ROUTED stands in a_base, b_base, dst_base, column_base and row_threshold; all else is zero.

    final: the last one of an image: its results may be sent when it is drained.
    accumulate: row statistics go on from those that an earlier part of the same rows left.
    row_wait, row_threshold, row_step: a row is read when the counter has come to the threshold,
    which grows by row_step from row to row. start_wait, start_threshold: nothing is read before.
    tokens, token_base: number of rows and index of the first one. void: of so many first rows
    neither operand nor bias counts (their result is what they are added to).
    words, last_lanes: reduction words per row and valid lanes of the last of them.
    tiles, group_tiles, last_count: output tiles of `cols` columns; they form groups (heads) of
    `group_tiles`, and the last tile of a group has `last_count` valid columns.
    a_base, a_stride: first word of the first row that is not void, words from row to row.
    b_base, b_tile_stride, b_word_stride: word address of (tile, word) = base + tile*tile_stride +
    word*word_stride.
    dst_base, dst_stride, group_stride, banks: destination row = base + (token // banks) * stride
    plus the tile's offset; groups begin `group_stride` rows apart; token % banks selects the bank.
    column_base: first word of the column buffer.
    multiplier, shift: the scalar dyadic factor of SCORE and APPLY, and of GELU's second
    requantizer; in scheme ivit that of RESIDUAL and EMBED for what is added, in the place of
    GELU's. stream_multiplier, stream_shift: that for what it is added to. exp_step, octaves: of
    SCORE, the step of the exponential and where it is cut. table: of GELU. planes: the operand's
    rows have two bytes an element, the words of the lower bytes and of the upper ones by turns, and
    both meet the same word of the other side. These are of scheme ivit alone.
    results: how many results there are in all, of a product that makes them: a RESULT, or one whose
    rows of the residual stream are results too; 0 of any other.
    expert: 0, or one more than the expert whose queue says which rows there are. If it is empty the
    product is passed over. gather: the operand's row is the queue's token, not the place in the
    queue. scatter: the destination's row is, and what is added is scaled by the token's weight.
    relative: rows wait for those of the product before, which has as many.
    by_task: the matrices of the tasks lie one behind the other, column_base is that of the first.
    top: of a GATE, how many experts a token goes to.
    """

    opcode: Opcode = Opcode.STEP
    final: int = 0
    accumulate: int = 0
    row_step: int = 0
    a_source: Source = Source.TOKEN
    b_source: Source = Source.WEIGHT
    destination: Destination = Destination.TOKEN
    row_wait: Counter = Counter.NONE
    row_threshold: int = 0
    start_wait: Counter = Counter.NONE
    start_threshold: int = 0
    tokens: int = 0
    token_base: int = 0
    void: int = 0
    words: int = 0
    last_lanes: int = 0
    tiles: int = 0
    group_tiles: int = 0
    last_count: int = 0
    a_base: int = 0
    a_stride: int = 0
    b_base: int = 0
    b_tile_stride: int = 0
    b_word_stride: int = 0
    dst_base: int = 0
    dst_stride: int = 0
    group_stride: int = 0
    banks: int = 0
    column_base: int = 0
    multiplier: int = 0
    shift: int = 0
    results: int = 0
    expert: int = 0
    gather: int = 0
    scatter: int = 0
    relative: int = 0
    by_task: int = 0
    top: int = 0
    stream_multiplier: int = 0
    stream_shift: int = 0
    exp_step: int = 0
    octaves: int = 0
    table: int = 0
    planes: int = 0


@dataclass(frozen=True)
class Norm:
    """One normalisation of rows of the residual stream into the buffer of normalised rows.

    In a LOOP, what one image adds to DRAINED and ISSUED stands in row_threshold and
    start_threshold.

    row_threshold, row_step: of DRAINED for the first row, row_step more for each further row.
    start_threshold: of ISSUED, before which nothing may be overwritten.
    tokens, token_base, tiles, last_count: rows, index of the first one, chunks of `cols` in a row,
    valid lanes of the last chunk. a_base: first chunk of the first row in the residual stream.
    dst_base, dst_stride: first row of the destination, rows from token to token.
    column_base: first word of the norm columns. width, affine_shift, epsilon: row length, shift of
    the affine stage, epsilon * width**2.
    """

    opcode: Opcode = Opcode.STEP
    row_step: int = 1
    row_threshold: int = 0
    start_threshold: int = 0
    tokens: int = 0
    token_base: int = 0
    tiles: int = 0
    last_count: int = 0
    a_base: int = 0
    dst_base: int = 0
    dst_stride: int = 0
    column_base: int = 0
    width: int = 0
    affine_shift: int = 0
    epsilon: int = 0


Item = TypeVar("Item", Product, Norm)
_ENUMS = {
    "opcode": Opcode,
    "a_source": Source,
    "b_source": Source,
    "destination": Destination,
    "row_wait": Counter,
    "start_wait": Counter,
}


def product_layout(scheme: Scheme) -> data.StructLayout:
    """The layout of the words of the product program in ``scheme``."""
    return _PRODUCT_LAYOUTS[scheme]


def _fields_of(layout: data.StructLayout) -> list[tuple[str, int, int]]:
    return [(str(name), field.width, field.offset) for name, field in layout]


# A layout works its widths out again whenever it is asked.
_FIELDS: dict[tuple[type, str], list[tuple[str, int, int]]] = {
    **{(Product, scheme): _fields_of(layout) for scheme, layout in _PRODUCT_LAYOUTS.items()},
    **{(Norm, scheme): _fields_of(NORM_LAYOUT) for scheme in _PRODUCT_LAYOUTS},
}


def encode(item: Product | Norm, scheme: Scheme = "edge") -> int:
    """The instruction as an integer; ValueError if a field does not fit."""
    word = 0
    for name, width, offset in _FIELDS[type(item), scheme]:
        value = int(getattr(item, name))
        if not 0 <= value < 1 << width:
            raise ValueError(f"instruction field {name}: expected {width} bits, got {value}")
        word |= value << offset
    return word


def decode(kind: type[Item], word: int, scheme: Scheme = "edge") -> Item:
    """The inverse of `encode`."""
    values: dict[str, Any] = {
        name: (word >> offset) & ((1 << width) - 1) for name, width, offset in _FIELDS[kind, scheme]
    }
    for name, kind_of in _ENUMS.items():
        if name in values:
            values[name] = kind_of(values[name])
    return kind(**values)
