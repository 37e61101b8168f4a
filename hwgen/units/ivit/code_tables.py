"""Maps from int8 codes, read by several lanes in every cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["ENTRIES", "CodeTables"]

_CODE_BITS = 8
ENTRIES = 1 << _CODE_BITS
"""Of a table, one for each code."""
_WORDS = (1, 2, 4, 8, 16)


class CodeTables(wiring.Component):
    """``tables`` maps from int8 codes to signed entries, a fixed pipeline.

    No flow control: the entries for the codes and the ``table`` in cycle t stand at the output in
    cycle t + ``LATENCY``: a read, and a register behind the choice in the word read. The word
    ``(table * 256 + (code & 0xFF)) // word`` holds the entries of ``word`` codes, the first in its
    low bits; it is written in one cycle, and read from the next on.

    Lanes that are ``paired`` share a memory in the form of a true dual-port block: one port reads,
    the other reads or writes. A write takes the address of lanes 0, 2, and so on; their entries for
    the codes of that cycle mean nothing. Otherwise each lane has a memory that is read and written
    at the same time.

    Parameters
    ----------
    lanes : int
        Codes a cycle, at least 1.
    tables : int
        Number of maps, at least 1.
    word : int
        Entries in a write, 1, 2, 4, 8 or 16.
    bits : int
        Width of an entry, at least 1.
    paired : bool
        Whether two lanes share a memory.

    Members
    -------
    codes : In, ``lanes`` signed 8-bit codes
    table : In, which map is used, by all lanes; less than ``tables``
    out : Out, ``lanes`` signed entries
    write_enable, write_address, write_data : In
        Writes ``word`` entries; addresses are below ``tables * 256 / word``.

    Raises
    ------
    ValueError
        A parameter is out of range.
    """

    LATENCY = 2

    def __init__(self, *, lanes: int, tables: int, word: int, bits: int, paired: bool) -> None:
        for name, extent in (("lanes", lanes), ("tables", tables), ("bits", bits)):
            if extent < 1:
                raise ValueError(f"{name}: expected at least 1, got {extent!r}")
        if word not in _WORDS:
            raise ValueError(f"word: expected 1, 2, 4, 8 or 16, got {word!r}")
        self.lanes, self.tables, self.word = lanes, tables, word
        self.bits, self.paired = bits, paired
        self.depth = tables * ENTRIES // word
        super().__init__(
            {
                "codes": In(data.ArrayLayout(signed(_CODE_BITS), lanes)),
                "table": In(range(tables)),
                "out": Out(data.ArrayLayout(signed(bits), lanes)),
                "write_enable": In(1),
                "write_address": In(range(self.depth)),
                "write_data": In(bits * word),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        place_bits = self.word.bit_length() - 1
        sharing = 2 if self.paired else 1
        for first in range(0, self.lanes, sharing):
            m.submodules[f"entries_{first}"] = entries = memory.Memory(
                shape=self.bits * self.word, depth=self.depth, init=[]
            )
            writer = entries.write_port()
            m.d.comb += [writer.data.eq(self.write_data), writer.en.eq(self.write_enable)]
            write_address: Value = self.write_address
            for lane in range(first, min(first + sharing, self.lanes)):
                code = self.codes[lane].as_unsigned()
                address: Value = Cat(code[place_bits:], self.table)
                if self.paired and lane == first:
                    # One signal for both, so that synthesis sees one port.
                    shared = Signal(range(self.depth), name=f"address_{lane}")
                    m.d.comb += shared.eq(Mux(self.write_enable, write_address, address))
                    address = write_address = shared
                reader = entries.read_port()
                m.d.comb += reader.addr.eq(address)
                chosen = reader.data
                if place_bits:
                    place = Signal(place_bits, name=f"place_{lane}")
                    m.d.sync += place.eq(code)
                    chosen = chosen.word_select(place, self.bits)
                m.d.sync += self.out[lane].eq(chosen)
            m.d.comb += writer.addr.eq(write_address)
        return m
