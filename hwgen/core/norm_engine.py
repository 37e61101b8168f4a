"""The norm engine: follows the residual stream and fills the buffer of normalised rows."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..delay import delayed
from ..ram import Ram
from ..units.ivit.dyadic import Requantizer31
from ..units.ivit.layernorm import INormLane
from ..units.ivit.row_spreads import RowSpreads
from ..units.layernorm import NormLane, NormScale
from .counters import COUNTER_BITS, reached
from .instruction import NORM_LAYOUT
from .machine import Machine
from .residual_stream import moments_layout
from .runner import Runner
from .scheme import SPREADS

__all__ = ["NormEngine", "norm_column_layout"]


def norm_column_layout(machine: Machine) -> data.ArrayLayout:
    """One word of the norm columns: the affine constants of ``cols`` columns."""
    return data.ArrayLayout(machine.arithmetic.norm_column, machine.cols)


class NormEngine(wiring.Component):
    """Runs the norm program.

    A row is taken up when ``drained`` has come to its threshold: its statistics go to the scale
    unit, its chunks follow at one a cycle. Reads statistics (``token`` -> ``moments``) and chunks
    (``residual_row`` -> ``chunk``) one cycle later, writes int8 chunks (``write``) in order.
    ``row_complete``: a pulse in the cycle in which a row's last chunk is written. ``quiet``: no row
    is on its way. ``active``: a chunk is read in this cycle.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        cols, lanes = machine.cols, machine.lanes
        program = {
            "enable": Out(1),
            "address": Out(range(machine.buffers.norms)),
            "data": Out(NORM_LAYOUT.size),
        }
        columns = {
            "enable": Out(1),
            "address": Out(range(machine.norm_column_words)),
            "data": Out(norm_column_layout(machine).size),
        }
        super().__init__(
            {
                "run": In(1),
                "images": In(16),
                "drained": In(COUNTER_BITS),
                "issued": In(COUNTER_BITS),
                "load_program": In(wiring.Signature(program)),
                "load_columns": In(wiring.Signature(columns)),
                "token": Out(12),
                "moments": In(moments_layout()),
                "residual_row": Out(24),
                "chunk": In(data.ArrayLayout(signed(16), cols)),
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
                "row_complete": Out(1),
                "active": Out(1),
                "quiet": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        machine = self.machine
        cols, lanes = machine.cols, machine.lanes
        m.submodules.program = program = Ram(width=NORM_LAYOUT.size, depth=machine.buffers.norms)
        m.submodules.runner = runner = Runner(NORM_LAYOUT, depth=machine.buffers.norms)
        m.submodules.columns = columns = Ram(
            width=norm_column_layout(machine).size, depth=machine.norm_column_words
        )
        ivit = machine.scheme == "ivit"
        scale = RowSpreads(copies=SPREADS) if ivit else NormScale()
        m.submodules.scale = scale
        for memory, load in ((program, self.load_program), (columns, self.load_columns)):
            m.d.comb += [
                memory.write_enable.eq(load.enable),
                memory.write_address.eq(load.address),
                memory.write_data.eq(load.data),
            ]
        m.d.comb += [
            program.read_address.eq(runner.address),
            runner.word.eq(program.read_data),
            runner.run.eq(self.run),
            runner.images.eq(self.images),
        ]

        # One normalisation at a time; what the counters stood at when the image began.
        ahead = runner.instruction
        i = Signal(NORM_LAYOUT)
        drained_base, issued_base = Signal(COUNTER_BITS), Signal(COUNTER_BITS)
        row_threshold = Signal(COUNTER_BITS)
        busy, start = Signal(), Signal()
        with m.If(self.run):
            m.d.sync += [drained_base.eq(self.drained), issued_base.eq(self.issued)]
        with m.Elif(runner.looping):
            m.d.sync += [
                drained_base.eq(drained_base + ahead.row_threshold),
                issued_base.eq(issued_base + ahead.start_threshold),
            ]
        m.d.comb += [
            start.eq(
                runner.valid & ~busy & reached(self.issued, issued_base + ahead.start_threshold)
            ),
            runner.take.eq(start),
        ]

        # Producer: fetch a row's statistics, offer them to the scale unit.
        rows_left = Signal(12)
        token = Signal(12)
        offering, fetch = Signal(), Signal()
        m.d.comb += [
            self.token.eq(token),
            fetch.eq(busy & (rows_left != 0) & reached(self.drained, row_threshold)),
            scale.i.valid.eq(offering),
            scale.i.payload.total.eq(self.moments.total),
            scale.i.payload.squares.eq(self.moments.squares),
            scale.i.payload.width.eq(i.width),
        ]
        if not ivit:
            m.d.comb += scale.i.payload.epsilon.eq(i.epsilon)
        with m.If(offering):
            with m.If(scale.i.ready):
                m.d.sync += [
                    offering.eq(0),
                    token.eq(token + 1),
                    rows_left.eq(rows_left - 1),
                    row_threshold.eq(row_threshold + i.row_step),
                ]
        with m.Elif(fetch):
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
            scale.o.ready.eq(busy & (~active | last_tile)),
            lane_after.eq(lane + cols),
            self.residual_row.eq(source_row),
            columns.read_address.eq(i.column_base + tile),
            self.active.eq(active),
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
        column_words = data.View(norm_column_layout(machine), columns.read_data)
        scale_of_chunk = Signal.like(current)
        m.d.sync += scale_of_chunk.eq(current)
        results = []
        for index in range(cols):
            lane_of = self._ivit_lane if ivit else self._edge_lane
            results.append(lane_of(m, index, i, scale_of_chunk, column_words[index]))
        late = machine.arithmetic.norm_late
        rows_inside = Signal(12)
        m.d.sync += rows_inside.eq(rows_inside + (offering & scale.i.ready) - self.row_complete)
        count = Signal(range(cols + 1))
        row_end, end = Signal(), Signal()
        m.d.comb += [
            count.eq(Mux(last_tile, i.last_count, cols)),
            row_end.eq(active & last_tile),
            end.eq(row_end & (consumed == i.tokens - 1)),
            self.write.valid.eq(delayed(m, active, late, name="active")),
            self.write.row.eq(delayed(m, row, late, name="row")),
            self.write.lane.eq(
                delayed(m, lane[: max(1, (lanes - 1).bit_length())], late, name="lane")
            ),
            self.write.count.eq(delayed(m, count, late, name="count")),
            self.row_complete.eq(delayed(m, row_end, late, name="row_end")),
            self.quiet.eq(~offering & ~fetch & (rows_inside == 0)),
        ]
        m.d.comb += [self.write.chunk[index].eq(results[index]) for index in range(cols)]

        # The lanes hold the width and the affine shift of one normalisation: it ends when it is
        # written.
        with m.If(delayed(m, end, late, name="end")):
            m.d.sync += busy.eq(0)

        with m.If(start):
            m.d.sync += [
                i.eq(ahead),
                busy.eq(1),
                rows_left.eq(ahead.tokens),
                token.eq(ahead.token_base),
                row_threshold.eq(drained_base + ahead.row_threshold),
                consumed.eq(0),
                source_row.eq(ahead.a_base),
                row_base.eq(ahead.dst_base),
            ]
        return m

    def _edge_lane(
        self, m: Module, index: int, i: data.View, row: data.View, column: data.View
    ) -> Value:
        """The int8 code of a lane of the chunk that is read."""
        m.submodules[f"lane{index}"] = unit = NormLane()
        m.d.comb += [
            unit.x.eq(self.chunk[index]),
            unit.width.eq(i.width),
            unit.total.eq(row.total),
            unit.mantissa.eq(row.mantissa),
            unit.shift.eq(row.shift),
            unit.gain.eq(column.gain),
            unit.offset.eq(column.offset),
            unit.affine_shift.eq(i.affine_shift),
        ]
        return unit.result

    def _ivit_lane(
        self, m: Module, index: int, i: data.View, row: data.View, column: data.View
    ) -> Value:
        """As `_edge_lane`: normalised to 32 bits, then requantized by the column's factor."""
        m.submodules[f"lane{index}"] = unit = INormLane()
        m.submodules[f"requantizer{index}"] = requantizer = Requantizer31(out_bits=8)
        factor = delayed(m, column, INormLane.LATENCY, name=f"column{index}")
        m.d.comb += [
            unit.x.eq(self.chunk[index]),
            unit.mean.eq(row.mean),
            unit.factor.eq(delayed(m, row.factor, 1, name=f"factor{index}")),
            unit.bias.eq(column.bias),
            unit.alive.eq(column.alive),
            requantizer.code.eq(unit.result),
            requantizer.multiplier.eq(factor.multiplier),
            requantizer.shift.eq(factor.shift),
        ]
        return requantizer.result
