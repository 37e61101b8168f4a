"""A buffer written in chunks of `cols` bytes at any byte offset and read in words of `depth` bytes.

Products leave the array `cols` features at a time and enter it `depth` features at a time. When
the two do not divide each other a chunk can straddle two rows; then each byte lane is a memory
with its own address.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from amaranth.hdl import Array, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .ram import Ram

__all__ = ["LaneAligner", "LaneMemory", "LaneWrite", "write_copies"]


class LaneWrite(wiring.Signature):
    """A write of some lanes of row ``row``; lanes flagged in ``next_row`` go to ``row + 1``
    instead.
    """

    def __init__(self, *, lanes: int, rows: int) -> None:
        super().__init__(
            {
                "row": Out(range(rows)),
                "enable": Out(lanes),
                "next_row": Out(lanes),
                "data": Out(data.ArrayLayout(unsigned(8), lanes)),
            }
        )


class LaneAligner(wiring.Component):
    """Rotates a chunk of ``cols`` bytes to byte offset ``lane`` of a row. Combinational.

    Parameters
    ----------
    cols, lanes : bytes per chunk and per row, cols <= lanes.

    ``lane`` must be a multiple of gcd(cols, lanes) (offsets are multiples of ``cols`` modulo
    ``lanes``), so that only that many rotations are built. The first ``count`` bytes are written.
    """

    def __init__(self, *, cols: int, lanes: int, rows: int) -> None:
        if not 0 < cols <= lanes:
            raise ValueError(f"chunk width: expected 1 to {lanes}, got {cols}")
        self.cols, self.lanes = cols, lanes
        super().__init__(
            {
                "valid": In(1),
                "row": In(range(rows)),
                "lane": In(range(lanes)),
                "count": In(range(cols + 1)),
                "chunk": In(data.ArrayLayout(unsigned(8), cols)),
                "write": Out(LaneWrite(lanes=lanes, rows=rows)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step = math.gcd(self.cols, self.lanes)
        m.d.comb += self.write.row.eq(self.row)
        valid = [self.valid & (self.count > index) for index in range(self.cols)]
        with m.Switch(self.lane):
            for lane in range(0, self.lanes, step):
                with m.Case(lane):
                    for index in range(self.cols):
                        target = (lane + index) % self.lanes
                        m.d.comb += [
                            self.write.data[target].eq(self.chunk[index]),
                            self.write.enable[target].eq(valid[index]),
                            self.write.next_row[target].eq(int(lane + index >= self.lanes)),
                        ]
        return m


class LaneMemory(wiring.Component):
    """``rows`` x ``lanes`` bytes, one aligned read word of ``depth`` bytes and one `LaneWrite`
    per cycle.

    Parameters
    ----------
    rows : rows of the buffer.
    lanes, depth : bytes per row and per read word; lanes is depth times a power of two.
    straddle : whether a write may touch two rows (then each lane is a memory of its own).

    ``word`` addresses words, ``lanes / depth`` to a row; ``data`` follows one cycle later and
    holds while ``enable`` is low.
    """

    def __init__(self, *, rows: int, lanes: int, depth: int, straddle: bool) -> None:
        subwords, rest = divmod(lanes, depth)
        if rest or subwords & (subwords - 1):
            raise ValueError(f"lanes: expected depth ({depth}) times a power of two, got {lanes}")
        self.rows, self.lanes, self.depth, self.straddle = rows, lanes, depth, straddle
        self.subword_bits = subwords.bit_length() - 1
        super().__init__(
            {
                "word": In(range(rows << self.subword_bits)),
                "enable": In(1, init=1),
                "data": Out(data.ArrayLayout(unsigned(8), depth)),
                "write": In(LaneWrite(lanes=lanes, rows=rows)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        row = self.word[self.subword_bits :]
        read = Signal(data.ArrayLayout(unsigned(8), self.lanes))
        if self.straddle:
            for lane in range(self.lanes):
                m.submodules[f"lane{lane}"] = bank = Ram(width=8, depth=self.rows)
                next_row = self.write.next_row[lane]
                m.d.comb += [
                    bank.read_address.eq(row),
                    bank.read_enable.eq(self.enable),
                    read[lane].eq(bank.read_data),
                    bank.write_address.eq(Mux(next_row, self.write.row + 1, self.write.row)),
                    bank.write_enable.eq(self.write.enable[lane]),
                    bank.write_data.eq(self.write.data[lane]),
                ]
        else:
            m.submodules.bank = bank = Ram(width=8 * self.lanes, depth=self.rows, lanes=self.lanes)
            m.d.comb += [
                bank.read_address.eq(row),
                bank.read_enable.eq(self.enable),
                read.as_value().eq(bank.read_data),
                bank.write_address.eq(self.write.row),
                bank.write_enable.eq(self.write.enable),
                bank.write_data.eq(self.write.data.as_value()),
            ]
        if self.subword_bits:
            subword = Signal(self.subword_bits)
            with m.If(self.enable):
                m.d.sync += subword.eq(self.word[: self.subword_bits])
            words = Array(
                read.as_value().word_select(index, 8 * self.depth)
                for index in range(1 << self.subword_bits)
            )
            m.d.comb += self.data.as_value().eq(words[subword])
        else:
            m.d.comb += self.data.eq(read)
        return m


def write_copies(
    m: Module, write: wiring.PureInterface, copies: Sequence[LaneMemory], *, name: str
) -> None:
    """Adds ``copies`` of a memory, each written as ``write`` says."""
    for index, copy in enumerate(copies):
        m.submodules[f"{name}{index}"] = copy
        for field in write.signature.members:
            m.d.comb += getattr(copy.write, field).eq(getattr(write, field))
