"""ShiftGELU and the requantization behind it as tables: int8 code in, int8 code out, a cycle each.

In its mode ``safe`` ShiftGELU is a function of one code, and so is the layer's requantization to 8
bits: 256 entries hold both, and neither an exponential nor a divider is left in a lane.
"""

from __future__ import annotations

import torch

from ....models.integer.ivit.dyadic import Dyadic31, requantize31
from ....models.integer.ivit.shift_gelu import shift_gelu
from .code_tables import ENTRIES, CodeTables

__all__ = ["ENTRIES", "ShiftGeluTables", "cycles", "table_entries", "table_words"]

_CODE_BITS = 8


def table_entries(a: int, output: Dyadic31) -> list[int]:
    """A layer's table: entry ``code & 0xFF`` is what the layer gives for the int8 ``code``.

    a: the layer's step of the sigmoid; output: its requantization to 8 bits.

    >>> entries = table_entries(20, Dyadic31(1 << 30, 37))
    >>> entries[20], entries[-20], entries[0x80]
    (14, -6, 0)
    """
    codes = torch.arange(ENTRIES).to(torch.int8).to(torch.int64)
    inside = shift_gelu(codes, a, "safe")
    return [int(code) for code in requantize31(inside, output.multiplier, output.shift, _CODE_BITS)]


def table_words(entries: list[int], word: int) -> list[int]:
    """Entries as values of ``write_data``, ``word`` of them in each, the first in the low bits.

    >>> [hex(value) for value in table_words([1, 2, 3, -1], 2)]
    ['0x201', '0xff03']
    """
    return [
        sum(
            (entry & 0xFF) << (_CODE_BITS * place)
            for place, entry in enumerate(entries[begin : begin + word])
        )
        for begin in range(0, len(entries), word)
    ]


def cycles(values: int) -> int:
    """Cycles from the first of ``values`` chunks of codes, one a cycle, to the last result."""
    return ShiftGeluTables.LATENCY + values - 1


class ShiftGeluTables(CodeTables):
    """The tables of ``tables`` layers, read by all lanes in every cycle: `CodeTables` of 8 bits.

    No flow control: the results of the codes and the ``table`` in cycle t stand at the output in
    cycle t + ``LATENCY``. Before the first read of a table all its words have to be written, in any
    order: word ``(table * 256 + (code & 0xFF)) // word`` holds the entries of ``word`` codes, the
    first in its low bits (`table_entries` and `table_words` give them). A write takes the address
    of every other lane's port: results of codes in the cycle of a write mean nothing in these
    lanes.

    Two lanes share a block: 4096 entries (16 tables) in words of 1, 2 or 4 fill one of 36 Kbit,
    2048 in words of 1 or 2 one of 18 Kbit. Larger words cost more blocks, as a port of a block has
    32 bits of data.

    Golden: `models.integer.ivit.shift_gelu.shift_gelu`, in its mode ``safe``, then
    `models.integer.ivit.dyadic.requantize31` to 8 bits.

    Parameters
    ----------
    lanes : int
        Codes a cycle, at least 1.
    tables : int
        Number of maps, at least 1: one for each layer.
    word : int
        Entries in a write, 1, 2, 4, 8 or 16.

    Members
    -------
    codes : In, ``lanes`` signed 8-bit codes
    table : In, which map is used, by all lanes; less than ``tables``
    out : Out, ``lanes`` signed 8-bit codes
    write_enable, write_address, write_data : In
        Writes ``word`` entries; addresses are below ``tables * 256 / word``.

    Raises
    ------
    ValueError
        A parameter is out of range.
    """

    def __init__(self, *, lanes: int, tables: int, word: int = 4) -> None:
        super().__init__(lanes=lanes, tables=tables, word=word, bits=_CODE_BITS, paired=True)
