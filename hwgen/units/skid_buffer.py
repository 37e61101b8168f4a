"""A register slice for streams: both directions registered, a transfer every cycle."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, ShapeLike, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SkidBuffer"]


class SkidBuffer(wiring.Component):
    """Cuts the paths of valid, payload and ready between two sides of a stream.

    A payload taken in cycle t is offered in t + 1. ``i.ready`` comes from a register too: when the
    other side stops, one payload more is taken and kept aside, so the flow never pauses by itself.
    Proven in ``tests/formal/test_skid_buffer.py``: nothing lost, doubled or reordered, and what is
    offered stays until it is taken.

    Parameters
    ----------
    shape : of the payload.

    Members
    -------
    i : In stream
    o : Out stream
    """

    def __init__(self, shape: ShapeLike) -> None:
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})
        self._aside = Signal(shape)
        """The payload that came when the output was taken; held while ``i.ready`` is low."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i, o = self.i, self.o
        empty = Signal(init=1)  # nothing is kept aside
        m.d.comb += i.ready.eq(empty)
        moving = Signal()
        m.d.comb += moving.eq(o.ready | ~o.valid)
        with m.If(moving):
            m.d.sync += [
                o.valid.eq(i.valid | ~empty),
                o.payload.eq(Mux(empty, i.payload, self._aside)),
                empty.eq(1),
            ]
        with m.Elif(i.valid & empty):
            m.d.sync += [self._aside.eq(i.payload), empty.eq(0)]
        return m
