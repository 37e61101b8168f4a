"""The instruction word: what one step of a Program asks of the accelerator.

One layout serves the RTL (an Amaranth struct), the compiler (`Instruction`) and the cycle simulator
(`decode`), so the three cannot disagree about a field.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

from amaranth.hdl import unsigned
from amaranth.lib import data

__all__ = [
    "INSTRUCTION_BITS",
    "LAYOUT",
    "Destination",
    "Instruction",
    "Opcode",
    "Source",
    "decode",
    "encode",
]

INSTRUCTION_BITS = 448


class Opcode(IntEnum):
    """What the sequencer starts."""

    END = 0
    """The program is over: results may be stored, `done` rises."""
    LOAD = 1
    """Take the image stream into the token buffer."""
    INIT = 2
    """Fill the residual stream from constants in the column buffer (class token and positions)."""
    PRODUCT = 3
    """A matrix product on the shared compute unit, with its drain path."""
    NORM = 4
    """Normalise rows of the residual stream into the token buffer."""
    STORE = 5
    """Send the logits."""


class Source(IntEnum):
    """Where an operand of a product comes from."""

    TOKEN = 0
    ATTENTION = 1
    WEIGHT = 2
    KEY = 3
    VALUE = 4


class Destination(IntEnum):
    """What the drain path makes of a product, and where it goes."""

    TOKEN = 0
    """Bias, requantize to int8, token buffer."""
    GELU = 1
    """Bias, requantize to 16 bits, GELU, requantize to int8, token buffer."""
    KEY = 2
    """Bias, requantize to int8, key buffer."""
    VALUE = 3
    """Bias, requantize to int8, value buffer."""
    RESIDUAL = 4
    """Bias, requantize to 16 bits, saturating add to the residual stream; row statistics."""
    SCORE = 5
    """Requantize to 16-bit scores, softmax, attention buffer."""
    APPLY = 6
    """Requantize by the row's reciprocal sum to int8, token buffer."""
    RESULT = 7
    """Bias, requantize to 16 bits, result buffer."""


LAYOUT = data.StructLayout(
    {
        "opcode": unsigned(4),
        "a_source": unsigned(3),
        "b_source": unsigned(3),
        "destination": unsigned(4),
        "tokens": unsigned(12),
        "token_base": unsigned(12),
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
        "weight_words": unsigned(24),
        "dst_base": unsigned(24),
        "dst_stride": unsigned(16),
        "group_stride": unsigned(16),
        "banks": unsigned(8),
        "column_base": unsigned(24),
        "multiplier": unsigned(16),
        "shift": unsigned(6),
        "results": unsigned(16),
        "width": unsigned(11),
        "affine_shift": unsigned(5),
        "epsilon": unsigned(52),
    }
)
assert LAYOUT.size <= INSTRUCTION_BITS


@dataclass(frozen=True)
class Instruction:
    """One step. Fields that an opcode does not read are zero.

    tokens, token_base: number of rows and index of the first one.
    words, last_lanes: reduction words per row and valid lanes of the last of them.
    tiles, group_tiles, last_count: output tiles of `cols` columns; they form groups (heads) of
    `group_tiles`, and the last tile of a group has `last_count` valid columns.
    a_base, a_stride: first word of the first row, words from row to row.
    b_base, b_tile_stride, b_word_stride: word address of (tile, word) = base + tile*tile_stride +
    word*word_stride; weights are streamed in order from b_base, ``weight_words`` of them for each
    batch of slots.
    dst_base, dst_stride, group_stride, banks: destination row = base + (token // banks) * stride
    plus the tile's offset; groups begin `group_stride` rows apart; token % banks selects the bank.
    column_base: first word of the column buffer.
    multiplier, shift: the scalar dyadic factor of SCORE and APPLY, and of GELU's second
    requantizer.
    results: logits that STORE sends.
    width, affine_shift, epsilon: NORM's row length, affine shift and epsilon.
    """

    opcode: Opcode
    a_source: Source = Source.TOKEN
    b_source: Source = Source.WEIGHT
    destination: Destination = Destination.TOKEN
    tokens: int = 0
    token_base: int = 0
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
    weight_words: int = 0
    dst_base: int = 0
    dst_stride: int = 0
    group_stride: int = 0
    banks: int = 0
    column_base: int = 0
    multiplier: int = 0
    shift: int = 0
    results: int = 0
    width: int = 0
    affine_shift: int = 0
    epsilon: int = 0


def encode(instruction: Instruction) -> int:
    """The instruction as an integer of `INSTRUCTION_BITS` bits; ValueError if a field does not
    fit.
    """
    word = 0
    for name, field in LAYOUT:
        value = int(getattr(instruction, str(name)))
        if not 0 <= value < 1 << field.width:
            raise ValueError(f"instruction field {name}: expected {field.width} bits, got {value}")
        word |= value << field.offset
    return word


def decode(word: int) -> Instruction:
    """The inverse of `encode`."""
    values = {
        str(name): (word >> field.offset) & ((1 << field.width) - 1) for name, field in LAYOUT
    }
    enums = {"opcode": Opcode, "a_source": Source, "b_source": Source, "destination": Destination}
    for name, kind in enums.items():
        values[name] = kind(values[name])
    return Instruction(**{field.name: values[field.name] for field in fields(Instruction)})
