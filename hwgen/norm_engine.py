"""LayerNorm over rows of the residual stream: scales run ahead, chunks follow at one a cycle."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .delay import delayed
from .drain_path import column_layout
from .instruction import LAYOUT
from .machine import Machine
from .residual_stream import moments_layout
from .units.layernorm import NormLane, NormScale

__all__ = ["NormEngine", "cycles"]


def cycles(*, tokens: int, tiles: int) -> int:
    """Cycles in which a `NormEngine` is busy with ``tokens`` rows of ``tiles`` chunks.

    The scale of the first row takes 2 cycles to fetch and ``NormScale.cycles()`` to compute; then
    a row takes its chunks, or the next scale if that takes longer; then the last chunk leaves the
    lanes.
    """
    scale = NormScale.cycles()
    taken = 2 + scale
    for _ in range(tokens - 1):
        # The producer offers the next row right after a scale has been taken.
        taken = max(taken + 1 + scale, taken + tiles)
    return taken + tiles + 1 + NormLane.LATENCY


class NormEngine(wiring.Component):
    """Normalises ``instruction.tokens`` rows of ``instruction.tiles`` chunks of the residual
    stream.

    Reads statistics (``token`` -> ``moments``), chunks (``residual_row`` -> ``chunk``) and affine
    constants (``column_address`` -> ``column``), each one cycle later, and writes int8 chunks
    (``write``).
    Rows are in order; chunk addresses count up from a_base, the destination goes by rows of the
    token buffer.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        cols, lanes = machine.cols, machine.lanes
        super().__init__(
            {
                "start": In(1),
                "busy": Out(1),
                "instruction": In(LAYOUT),
                "token": Out(12),
                "moments": In(moments_layout()),
                "residual_row": Out(24),
                "chunk": In(data.ArrayLayout(signed(16), cols)),
                "column_address": Out(24),
                "column": In(column_layout(cols)),
                "write": Out(
                    wiring.Signature(
                        {
                            "valid": Out(1),
                            "row": Out(24),
                            "lane": Out(range(lanes)),
                            "count": Out(range(cols + 1)),
                            "chunk": Out(data.ArrayLayout(unsigned(8), cols)),
                        }
                    )
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cols, lanes = self.machine.cols, self.machine.lanes
        i = self.instruction
        m.submodules.scale = scale = NormScale()

        # Producer: fetch a row's statistics, offer them to the scale unit.
        rows_left = Signal(12)
        token = Signal(12)
        offering = Signal()
        m.d.comb += [
            self.token.eq(token),
            scale.i.valid.eq(offering),
            scale.i.payload.total.eq(self.moments.total),
            scale.i.payload.squares.eq(self.moments.squares),
            scale.i.payload.width.eq(i.width),
            scale.i.payload.epsilon.eq(i.epsilon),
        ]
        with m.If(offering):
            with m.If(scale.i.ready):
                m.d.sync += [offering.eq(0), token.eq(token + 1), rows_left.eq(rows_left - 1)]
        with m.Elif(self.busy & (rows_left != 0)):
            m.d.sync += offering.eq(1)

        # Consumer: one scale, then the chunks of its row.
        active = Signal()
        tile = Signal(12)
        last_tile = Signal()
        consumed = Signal(12)
        current = Signal.like(scale.o.payload)
        source_row, row_base, row = Signal(24), Signal(24), Signal(24)
        lane = Signal(range(2 * lanes))
        lane_after = Signal(range(2 * lanes))
        m.d.comb += [
            last_tile.eq(tile == i.tiles - 1),
            scale.o.ready.eq(self.busy & (~active | last_tile)),
            lane_after.eq(lane + cols),
            self.residual_row.eq(source_row),
            self.column_address.eq(i.column_base + tile),
        ]
        with m.If(active):
            m.d.sync += [
                source_row.eq(source_row + 1),
                tile.eq(tile + 1),
                lane.eq(Mux(lane_after >= lanes, lane_after - lanes, lane_after)),
                row.eq(row + (lane_after >= lanes)),
            ]
            with m.If(last_tile):
                m.d.sync += [
                    active.eq(0),
                    consumed.eq(consumed + 1),
                    row_base.eq(row_base + i.dst_stride),
                ]
        with m.If(scale.o.valid & scale.o.ready):
            m.d.sync += [
                active.eq(1),
                tile.eq(0),
                current.eq(scale.o.payload),
                lane.eq(0),
                row.eq(Mux(active, row_base + i.dst_stride, row_base)),
            ]

        # The chunk and its constants arrive one cycle after their addresses, then pass the lanes.
        scale_of_chunk = Signal.like(current)
        m.d.sync += scale_of_chunk.eq(current)
        results = []
        for index in range(cols):
            m.submodules[f"lane{index}"] = unit = NormLane()
            column = self.column[index]
            m.d.comb += [
                unit.x.eq(self.chunk[index]),
                unit.width.eq(i.width),
                unit.total.eq(scale_of_chunk.total),
                unit.mantissa.eq(scale_of_chunk.mantissa),
                unit.shift.eq(scale_of_chunk.shift),
                unit.gain.eq(column.multiplier.as_signed()),
                unit.offset.eq(column.bias),
                unit.affine_shift.eq(i.affine_shift),
            ]
            results.append(unit.result)
        late = 1 + NormLane.LATENCY
        count = Signal(range(cols + 1))
        m.d.comb += count.eq(Mux(last_tile, i.last_count, cols))
        final = Signal()
        m.d.comb += final.eq(active & last_tile & (consumed == i.tokens - 1))
        m.d.comb += [
            self.write.valid.eq(delayed(m, active, late, name="active")),
            self.write.row.eq(delayed(m, row, late, name="row")),
            self.write.lane.eq(
                delayed(m, lane[: max(1, (lanes - 1).bit_length())], late, name="lane")
            ),
            self.write.count.eq(delayed(m, count, late, name="count")),
        ]
        m.d.comb += [self.write.chunk[index].eq(results[index]) for index in range(cols)]
        with m.If(delayed(m, final, late, name="final")):
            m.d.sync += self.busy.eq(0)

        with m.If(self.start):
            m.d.sync += [
                self.busy.eq(1),
                rows_left.eq(i.tokens),
                token.eq(i.token_base),
                consumed.eq(0),
                source_row.eq(i.a_base),
                row_base.eq(i.dst_base),
            ]
        return m
