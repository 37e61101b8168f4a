"""Scores in, softmax weights and row scales out: the softmax with the buffers behind it."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..lane_memory import LaneAligner, LaneMemory, write_copies
from ..ram import Ram
from ..units.softmax import Softmax
from .machine import Machine
from .row_placement import row_placement

__all__ = ["AttentionBuffer"]


class AttentionBuffer(wiring.Component):
    """Holds the softmax weights of two heads, tokens x tokens, and the reciprocal sum of each row.

    ``write``: chunks of scores as the drain path sends them; ``token`` counts the rows of both
    heads. ``word`` -> ``data`` (``depth`` weights, for each of ``machine.loads``) and ``token``
    -> ``mantissa``, ``length`` one cycle later. ``row_complete``: a pulse in the cycle in which the
    last part of a row is written. ``chunk_valid``: a chunk of weights leaves the softmax.
    With ``row_complete`` come the row (``scale_row``) and its reciprocal sum (``scale_mantissa``,
    ``scale_length``).
    ``start``: scores of ``tiles`` chunks a row follow, the last with ``last_count`` of them, and
    go to rows that lie ``pitch`` apart; constant while rows are inside. With ``gate`` they are a
    gate's (``routing`` from then on): no weights are kept.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        rows, cols, depth, loads = machine.rows, machine.cols, machine.depth, machine.loads
        super().__init__(
            {
                "start": In(1),
                "gate": In(1),
                "tiles": In(12),
                "last_count": In(8),
                "pitch": In(16),
                "write": In(
                    wiring.Signature(
                        {
                            "valid": Out(1),
                            "slot": Out(range(rows)),
                            "token": Out(12),
                            "tile": Out(12),
                            "count": Out(range(cols + 1)),
                            "first": Out(1),
                            "last": Out(1),
                            "chunk": Out(data.ArrayLayout(signed(16), cols)),
                        }
                    )
                ),
                "row_complete": Out(1),
                "chunk_valid": Out(1),
                "word": In(data.ArrayLayout(24, loads)),
                "data": Out(data.ArrayLayout(data.ArrayLayout(unsigned(8), depth), loads)),
                "token": In(12),
                "mantissa": Out(16),
                "length": Out(5),
                "routing": Out(1),
                "scale_row": Out(range(machine.row_indices)),
                "scale_mantissa": Out(16),
                "scale_length": Out(5),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        machine = self.machine
        cols, lanes = machine.cols, machine.lanes
        tiles, last_count, pitch = Signal(12), Signal(8), Signal(16)
        with m.If(self.start):
            m.d.sync += [
                tiles.eq(self.tiles),
                last_count.eq(self.last_count),
                pitch.eq(self.pitch),
                self.routing.eq(self.gate),
            ]
        m.submodules.softmax = softmax = Softmax(
            slots=machine.rows,
            lanes=cols,
            max_tiles=machine.score_tiles,
            max_row=machine.row_indices,
        )
        m.d.comb += [
            softmax.valid.eq(self.write.valid),
            softmax.slot.eq(self.write.slot),
            softmax.tile.eq(self.write.tile),
            softmax.count.eq(self.write.count),
            softmax.first.eq(self.write.first),
            softmax.last.eq(self.write.last),
            softmax.row.eq(self.write.token),
            softmax.tiles.eq(tiles),
            softmax.last_count.eq(last_count),
            self.row_complete.eq(softmax.scale_valid),
            self.chunk_valid.eq(softmax.weights_valid),
            self.scale_row.eq(softmax.scale_row),
            self.scale_mantissa.eq(softmax.mantissa),
            self.scale_length.eq(softmax.length),
        ]
        m.d.comb += [softmax.scores[lane].eq(self.write.chunk[lane]) for lane in range(cols)]

        weights = [
            LaneMemory(
                rows=machine.attention_rows,
                lanes=lanes,
                depth=machine.depth,
                straddle=lanes % cols != 0,
            )
            for _ in range(machine.loads)
        ]
        m.submodules.aligner = aligner = LaneAligner(
            cols=cols, lanes=lanes, rows=machine.attention_rows
        )
        row, lane = row_placement(m, machine, softmax.weights_valid, softmax.weights_tile)
        m.d.sync += [
            aligner.valid.eq(softmax.weights_valid & ~self.routing),
            aligner.row.eq(softmax.weights_row * pitch + row),
            aligner.lane.eq(lane),
            aligner.count.eq(Mux(softmax.weights_tile == tiles - 1, last_count, cols)),
            aligner.chunk.eq(softmax.weights),
        ]
        write_copies(m, aligner.write, weights, name="weights")
        for load, copy in enumerate(weights):
            m.d.comb += [copy.word.eq(self.word[load]), self.data[load].eq(copy.data)]

        m.submodules.scales = scales = Ram(width=21, depth=machine.row_indices)
        m.d.comb += [
            scales.write_enable.eq(softmax.scale_valid),
            scales.write_address.eq(softmax.scale_row),
            scales.write_data.eq(Cat(softmax.mantissa, softmax.length)),
            scales.read_address.eq(self.token),
            self.mantissa.eq(scales.read_data[:16]),
            self.length.eq(scales.read_data[16:]),
        ]
        return m
