"""The int16 residual stream with the row statistics that LayerNorm needs, gathered as it is
written.
"""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..delay import delayed
from ..ram import Ram
from ..units.layernorm import RowMoments
from .machine import Machine

__all__ = ["ResidualStream", "moments_layout"]


def moments_layout() -> data.StructLayout:
    """Sum and sum of squares of a row of up to 1024 16-bit codes."""
    return data.StructLayout({"total": signed(26), "squares": unsigned(41)})


class ResidualStream(wiring.Component):
    """Rows of ``cols``-wide chunks of int16, and per token the sum and the sum of squares of its
    row.

    ``write``: a chunk for ``row``; the chunks of one token come from one slot, the first with
    ``first``, the last with ``last`` (then the statistics of ``token`` are stored
    `RowMoments.LATENCY` cycles later). With ``accumulate`` they add to those that are stored.
    Lanes from ``count`` on are ignored. ``read_row`` -> ``chunk``, ``add_row`` -> ``addend`` and
    ``token`` -> ``moments`` one cycle later: two readers, so everything is stored twice.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        rows, cols = machine.residual_rows, machine.cols
        super().__init__(
            {
                "read_row": In(range(rows)),
                "chunk": Out(data.ArrayLayout(signed(16), cols)),
                "add_row": In(range(rows)),
                "addend": Out(data.ArrayLayout(signed(16), cols)),
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
                            "accumulate": Out(1),
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
        for name, address, chunk in (
            ("chunks", self.read_row, self.chunk),
            ("addends", self.add_row, self.addend),
        ):
            m.submodules[name] = copy = Ram(width=16 * cols, depth=self.machine.residual_rows)
            m.d.comb += [
                copy.read_address.eq(address),
                chunk.as_value().eq(copy.read_data),
                copy.write_enable.eq(self.write.valid),
                copy.write_address.eq(self.write.row),
                copy.write_data.eq(self.write.chunk.as_value()),
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
        following, stored = Signal(moments_layout()), Signal(moments_layout())
        accumulate = delayed(m, self.write.accumulate, late, name="accumulate")
        started = Signal(moments_layout())
        m.d.comb += [
            started.as_value().eq(
                Mux(first, Mux(accumulate, stored.as_value(), 0), sums[slot].as_value())
            ),
            following.total.eq(started.total + row_moments.total),
            following.squares.eq(started.squares + row_moments.squares),
        ]
        with m.If(valid):
            m.d.sync += sums[slot].eq(following)

        earlier = delayed(m, self.write.token, late - 1, name="token_before")
        for name, address, moments in (
            ("statistics", self.token, self.moments),
            ("partial_statistics", earlier, stored),
        ):
            m.submodules[name] = copy = Ram(
                width=moments_layout().size, depth=self.machine.token_slots
            )
            m.d.comb += [
                copy.write_enable.eq(valid & last),
                copy.write_address.eq(token),
                copy.write_data.eq(following.as_value()),
                copy.read_address.eq(address),
                moments.as_value().eq(copy.read_data),
            ]
        return m
