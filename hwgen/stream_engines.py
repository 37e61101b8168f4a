"""The engines around the products: image in, residual constants, logits out."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .drain_path import column_layout
from .instruction import LAYOUT
from .machine import Machine

__all__ = ["InitEngine", "LoadEngine", "StoreEngine", "init_cycles", "load_cycles", "store_cycles"]


def load_cycles(*, tokens: int, words: int) -> int:
    """Cycles a `LoadEngine` is busy when every word of the image is there in time."""
    return tokens * words


class LoadEngine(wiring.Component):
    """Writes the image stream, ``depth`` bytes a beat, into ``tokens`` rows of ``words`` words of
    the token buffer.

    The host sends the patches row by row of the token matrix, each padded with zeros to whole
    words.
    ``stalled`` is high while the engine waits for the stream.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        super().__init__(
            {
                "start": In(1),
                "busy": Out(1),
                "stalled": Out(1),
                "instruction": In(LAYOUT),
                "image": In(stream.Signature(unsigned(8 * machine.depth))),
                "write": Out(
                    wiring.Signature(
                        {
                            "valid": Out(1),
                            "word": Out(24),
                            "data": Out(unsigned(8 * machine.depth)),
                        }
                    )
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = self.instruction
        rows_left, word = Signal(12), Signal(12)
        base, address = Signal(24), Signal(24)
        m.d.comb += [
            self.image.ready.eq(self.busy),
            self.stalled.eq(self.busy & ~self.image.valid),
            self.write.valid.eq(self.busy & self.image.valid),
            self.write.word.eq(address),
            self.write.data.eq(self.image.payload),
        ]
        with m.If(self.write.valid):
            m.d.sync += [word.eq(word + 1), address.eq(address + 1)]
            with m.If(word == i.words - 1):
                m.d.sync += [
                    word.eq(0),
                    base.eq(base + i.a_stride),
                    address.eq(base + i.a_stride),
                    rows_left.eq(rows_left - 1),
                ]
                with m.If(rows_left == 1):
                    m.d.sync += self.busy.eq(0)
        with m.If(self.start):
            m.d.sync += [
                self.busy.eq(1),
                word.eq(0),
                rows_left.eq(i.tokens),
                base.eq(i.a_base),
                address.eq(i.a_base),
            ]
        return m


def init_cycles(*, tokens: int, tiles: int) -> int:
    """Cycles an `InitEngine` is busy: one chunk a cycle, then the statistics of the last row
    settle.
    """
    return tokens * tiles + 1 + InitEngine.SETTLE


class InitEngine(wiring.Component):
    """Copies ``tokens`` x ``tiles`` words of the column buffer into the residual stream, one a
    cycle.
    """

    SETTLE = 6

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        cols = machine.cols
        super().__init__(
            {
                "start": In(1),
                "busy": Out(1),
                "instruction": In(LAYOUT),
                "column_address": Out(24),
                "column": In(column_layout(cols)),
                "write": Out(
                    wiring.Signature(
                        {
                            "valid": Out(1),
                            "row": Out(24),
                            "token": Out(12),
                            "count": Out(range(cols + 1)),
                            "first": Out(1),
                            "last": Out(1),
                            "chunk": Out(data.ArrayLayout(signed(16), cols)),
                        }
                    )
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cols = self.machine.cols
        i = self.instruction
        active = Signal()
        tile, token, row = Signal(12), Signal(12), Signal(24)
        settle = Signal(range(self.SETTLE + 1))
        last_tile = Signal()
        m.d.comb += [
            last_tile.eq(tile == i.tiles - 1),
            self.column_address.eq(i.column_base + row),
        ]
        m.d.sync += [
            self.write.valid.eq(active),
            self.write.row.eq(i.dst_base + row),
            self.write.token.eq(token),
            self.write.count.eq(Mux(last_tile, i.last_count, cols)),
            self.write.first.eq(tile == 0),
            self.write.last.eq(last_tile),
        ]
        m.d.comb += [
            self.write.chunk[lane].eq(self.column[lane].bias[:16].as_signed())
            for lane in range(cols)
        ]
        with m.If(active):
            m.d.sync += [row.eq(row + 1), tile.eq(tile + 1)]
            with m.If(last_tile):
                m.d.sync += [tile.eq(0), token.eq(token + 1)]
                with m.If(token == i.tokens - 1):
                    m.d.sync += [active.eq(0), settle.eq(self.SETTLE)]
        with m.Elif(self.busy):
            m.d.sync += settle.eq(settle - 1)
            with m.If(settle == 0):
                m.d.sync += self.busy.eq(0)
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), active.eq(1), tile.eq(0), token.eq(0), row.eq(0)]
        return m


def store_cycles(*, results: int, cols: int) -> int:
    """Cycles a `StoreEngine` is busy when the receiver is always ready: one fetch per word of
    ``cols``.
    """
    return results + -(-results // cols)


class StoreEngine(wiring.Component):
    """Sends ``instruction.results`` 16-bit results, one a beat, ``last`` with the final one.

    ``stalled`` is high while the receiver is not ready.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        super().__init__(
            {
                "start": In(1),
                "busy": Out(1),
                "stalled": Out(1),
                "instruction": In(LAYOUT),
                "row": Out(24),
                "chunk": In(data.ArrayLayout(signed(16), machine.cols)),
                "logits": Out(
                    stream.Signature(data.StructLayout({"value": signed(16), "last": unsigned(1)}))
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cols = self.machine.cols
        i = self.instruction
        row, lane, left = Signal(24), Signal(range(cols)), Signal(17)
        sending = Signal()
        m.d.comb += [
            self.row.eq(row),
            self.logits.valid.eq(sending),
            self.logits.payload.value.eq(Array(self.chunk[index] for index in range(cols))[lane]),
            self.logits.payload.last.eq(left == 1),
            self.stalled.eq(sending & ~self.logits.ready),
        ]
        with m.If(sending):
            with m.If(self.logits.ready):
                m.d.sync += [lane.eq(lane + 1), left.eq(left - 1)]
                with m.If(lane == cols - 1):
                    m.d.sync += [lane.eq(0), row.eq(row + 1), sending.eq(0)]
                with m.If(left == 1):
                    m.d.sync += [sending.eq(0), self.busy.eq(0)]
        with m.Elif(self.busy):
            m.d.sync += sending.eq(1)
        with m.If(self.start):
            m.d.sync += [
                self.busy.eq(1),
                sending.eq(0),
                row.eq(i.a_base),
                lane.eq(0),
                left.eq(i.results),
            ]
        return m
