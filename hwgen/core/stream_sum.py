"""What a product adds to the residual stream: the sum of a chunk with the codes that are there."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring

from ...models.integer.gate import GATE_FRACTION
from ..delay import delayed
from ..units.ivit.dyadic import Requantizer31
from ..units.requantize import Requantizer
from ..units.rounding import saturated
from .instruction import Destination
from .machine import Machine

__all__ = ["scaling", "stream_sums"]


def scaling(machine: Machine) -> int:
    """Cycles that an addition to the stream takes longer, beside those of the sum itself: scheme
    ivit requantizes both addends, experts scale their shares.
    """
    if machine.scheme == "ivit":
        return Requantizer31.LATENCY
    return Requantizer.LATENCY if machine.buffers.experts else 0


def stream_sums(
    m: Module, machine: Machine, wide: wiring.PureInterface, there: data.View, constants: data.View
) -> Signal:
    """Saturated sums of the drain path's ``wide`` chunk, `scaling` + 1 cycles behind it.

    ``there``: the codes of the stream, ``constants``: those of the embedding, which EMBED takes in
    their place; with the chunk in scheme ivit, else with the result of the scaling.
    """
    late = scaling(machine)
    sums = Signal(data.ArrayLayout(signed(16), machine.cols))
    destination, scaled = wide.destination, wide.scaled
    if machine.scheme != "ivit":
        destination = delayed(m, destination, late, name="add_destination")
        scaled = delayed(m, scaled, late, name="scaled")
    embedding = Signal()
    m.d.comb += embedding.eq(destination == Destination.EMBED)

    def requantized(code: Value, factor: data.View, name: str) -> Value:
        m.submodules[name] = unit = Requantizer31(out_bits=32)
        m.d.comb += [
            unit.code.eq(code),
            unit.multiplier.eq(factor.multiplier),
            unit.shift.eq(factor.shift),
        ]
        return unit.result

    for lane in range(machine.cols):
        own: Value = wide.chunk[lane]
        addend: Value = Mux(embedding, constants[lane], there[lane]).as_signed()
        if machine.scheme == "ivit":
            own = requantized(own, wide.own, f"own{lane}")
            addend = requantized(addend, wide.stream, f"stream{lane}")
        elif machine.buffers.experts:
            m.submodules[f"share{lane}"] = unit = Requantizer(accumulator_bits=16, out_bits=16)
            m.d.comb += [
                unit.accumulator.eq(own),
                unit.multiplier.eq(wide.weight),
                unit.shift.eq(GATE_FRACTION),
            ]
            whole = delayed(m, wide.chunk[lane], late, name=f"unscaled{lane}")
            own = Mux(scaled, unit.result, whole).as_signed()
        total = own + addend
        m.d.sync += sums[lane].eq(saturated(m, total, 16, name=f"sum{lane}"))
    return sums
