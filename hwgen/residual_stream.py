"""The int16 residual stream with the row statistics that LayerNorm needs, gathered as it is
written.
"""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from .delay import delayed
from .machine import Machine
from .units.layernorm import RowMoments

__all__ = ["ResidualStream", "moments_layout"]


def moments_layout() -> data.StructLayout:
    """Sum and sum of squares of a row of up to 1024 16-bit codes."""
    return data.StructLayout({"total": signed(26), "squares": unsigned(41)})


class ResidualStream(wiring.Component):
    """Rows of ``cols``-wide chunks of int16, and per token the sum and the sum of squares of its
    row.

    ``write``: a chunk for ``row``; the chunks of one token come from one slot, the first with
    ``first``, the last with ``last`` (then the statistics of ``token`` are stored
    `RowMoments.LATENCY` + 1 cycles later). Lanes from ``count`` on are ignored. ``read_row`` ->
    ``chunk`` and ``token`` -> ``moments`` one cycle later.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        rows, cols = machine.residual_rows, machine.cols
        super().__init__(
            {
                "read_row": In(range(rows)),
                "chunk": Out(data.ArrayLayout(signed(16), cols)),
                "token": In(range(machine.buffers.tokens)),
                "moments": Out(moments_layout()),
                "write": In(
                    wiring.Signature(
                        {
                            "valid": Out(1),
                            "row": Out(range(rows)),
                            "slot": Out(range(machine.rows)),
                            "token": Out(range(machine.buffers.tokens)),
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
        m.submodules.chunks = chunks = memory.Memory(
            shape=unsigned(16 * cols), depth=self.machine.residual_rows, init=[]
        )
        reader, writer = chunks.read_port(), chunks.write_port()
        m.d.comb += [
            reader.addr.eq(self.read_row),
            self.chunk.as_value().eq(reader.data),
            writer.en.eq(self.write.valid),
            writer.addr.eq(self.write.row),
            writer.data.eq(self.write.chunk.as_value()),
        ]

        m.submodules.row_moments = row_moments = RowMoments(lanes=cols)
        m.d.comb += row_moments.count.eq(self.write.count)
        for lane in range(cols):
            m.d.comb += row_moments.values[lane].eq(self.write.chunk[lane])
        late = RowMoments.LATENCY
        valid = delayed(m, self.write.valid, late, name="valid")
        slot = delayed(m, self.write.slot, late, name="slot")
        token = delayed(m, self.write.token, late, name="token")
        first = delayed(m, self.write.first, late, name="first")
        last = delayed(m, self.write.last, late, name="last")

        sums = Array(
            Signal(moments_layout(), name=f"sums{slot}") for slot in range(self.machine.rows)
        )
        following = Signal(moments_layout())
        m.d.comb += [
            following.total.eq(Mux(first, 0, sums[slot].total) + row_moments.total),
            following.squares.eq(Mux(first, 0, sums[slot].squares) + row_moments.squares),
        ]
        with m.If(valid):
            m.d.sync += sums[slot].eq(following)

        m.submodules.statistics = statistics = memory.Memory(
            shape=unsigned(moments_layout().size), depth=self.machine.buffers.tokens, init=[]
        )
        stat_reader, stat_writer = statistics.read_port(), statistics.write_port()
        m.d.comb += [
            stat_writer.en.eq(valid & last),
            stat_writer.addr.eq(token),
            stat_writer.data.eq(following.as_value()),
            stat_reader.addr.eq(self.token),
            self.moments.as_value().eq(stat_reader.data),
        ]
        return m
