"""GELU as ``relu(x) - delta(|x|)`` with an interpolated table of delta; one value a cycle."""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ...models.integer.gelu import (
    DELTA_FRACTION,
    DELTA_LIMIT,
    FRACTION,
    STEP_FRACTION,
    WIDTH,
    delta_table,
)

__all__ = ["Gelu", "cycles"]

_INTERVAL = FRACTION - STEP_FRACTION
_DROP = _INTERVAL + DELTA_FRACTION - FRACTION
_ENTRY = data.StructLayout({"base": 13, "slope": signed(10)})
"""delta at the start of an interval, and its change over the interval (at most 2**14 / 64)."""


def cycles(values: int) -> int:
    """Cycles from the first of ``values`` inputs, one a cycle, to the last result."""
    return Gelu.LATENCY + values - 1


class Gelu(wiring.Component):
    """GELU of a 16-bit code with 10 fraction bits, same format out, a fixed pipeline.

    No flow control: the result of the input in cycle t stands at the output in cycle
    t + ``LATENCY``. Three stages: table, interpolate, subtract. Golden: `models.integer.gelu.gelu`.

    Members
    -------
    x : In, signed 16
    result : Out, signed 16
    """

    LATENCY = 3

    def __init__(self) -> None:
        super().__init__({"x": In(signed(WIDTH)), "result": Out(signed(WIDTH))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        deltas = delta_table()
        entries = [{"base": start, "slope": end - start} for start, end in pairwise(deltas)]
        m.submodules.table = table = memory.Memory(shape=_ENTRY, depth=DELTA_LIMIT, init=entries)
        reader = table.read_port()

        magnitude = Signal(WIDTH)
        index = Signal(WIDTH - _INTERVAL)
        m.d.comb += [
            magnitude.eq(Mux(self.x < 0, -self.x, self.x)),
            index.eq(magnitude[_INTERVAL:]),
            reader.addr.eq(index),
        ]
        part, inside, relu = Signal(_INTERVAL), Signal(), Signal(WIDTH - 1)
        m.d.sync += [
            part.eq(magnitude[:_INTERVAL]),
            inside.eq(index < DELTA_LIMIT),
            relu.eq(Mux(self.x < 0, 0, self.x)),
        ]

        mix = Signal(len(reader.data.base) + _INTERVAL)
        mix_inside, mix_relu = Signal(), Signal.like(relu)
        entry = reader.data
        m.d.sync += [
            mix.eq((entry.base << _INTERVAL) + entry.slope * part),
            mix_inside.eq(inside),
            mix_relu.eq(relu),
        ]

        delta = Signal(len(mix) - _DROP + 1)
        m.d.comb += delta.eq((mix + (1 << (_DROP - 1))) >> _DROP)
        m.d.sync += self.result.eq(mix_relu - Mux(mix_inside, delta, 0))
        return m
