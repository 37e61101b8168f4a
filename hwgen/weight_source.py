"""Weights as a stream: tiles in the order in which the compute unit consumes them, around and
around.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .ram import Ram

__all__ = ["START_LATENCY", "WeightSource"]

START_LATENCY = 2
"""Cycles from ``start`` to the first word of the stream."""


class WeightSource(wiring.Component):
    """Streams ``count`` words from ``base`` of an on-chip weight memory, again and again until
    ``stop``.

    Rows of tokens visit all tiles of a matrix once each, so a matrix leaves the memory once for
    every batch of token slots. One word a cycle; the stream stalls with its reader.

    Parameters
    ----------
    width : bits per word (cols * depth * 8).
    depth : words of the memory.
    """

    def __init__(self, *, width: int, depth: int) -> None:
        if width < 8 or width % 8:
            raise ValueError(f"width: expected a multiple of 8 bits, got {width}")
        if depth < 2:
            raise ValueError(f"depth: expected at least 2 words, got {depth}")
        self.width, self.depth = width, depth
        super().__init__(
            {
                "start": In(1),
                "stop": In(1),
                "base": In(range(depth)),
                "count": In(range(depth + 1)),
                "words": Out(stream.Signature(unsigned(width))),
                "load": In(
                    wiring.Signature(
                        {
                            "enable": Out(1),
                            "address": Out(range(depth)),
                            "data": Out(unsigned(width)),
                        }
                    )
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.storage = storage = Ram(width=self.width, depth=self.depth)
        m.d.comb += [
            storage.write_enable.eq(self.load.enable),
            storage.write_address.eq(self.load.address),
            storage.write_data.eq(self.load.data),
        ]

        running = Signal()
        address = Signal(range(self.depth))
        left = Signal(range(self.depth + 1))
        advance = Signal()
        m.d.comb += [
            advance.eq(running & (~self.words.valid | self.words.ready)),
            storage.read_address.eq(address),
            storage.read_enable.eq(advance),
            self.words.payload.eq(storage.read_data),
        ]
        with m.If(self.start):
            m.d.sync += [running.eq(1), address.eq(self.base), left.eq(self.count)]
        with m.Elif(self.stop):
            m.d.sync += [running.eq(0), self.words.valid.eq(0)]
        with m.Elif(advance):
            m.d.sync += [
                self.words.valid.eq(1),
                address.eq(Mux(left == 1, self.base, address + 1)),
                left.eq(Mux(left == 1, self.count, left - 1)),
            ]
        return m
