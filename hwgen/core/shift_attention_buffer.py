"""Scores in, probabilities of 16 bits out: Shiftmax with the buffer behind it, for scheme ivit."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..delay import delayed
from ..lane_memory import LaneAligner, LaneMemory, write_copies
from ..units.ivit.shift_exp import STEP_BITS
from ..units.ivit.shiftmax import SCORE_BITS, Shiftmax
from .machine import Machine
from .row_placement import row_placement

__all__ = ["ShiftAttentionBuffer"]

_BYTE = 8


class ShiftAttentionBuffer(wiring.Component):
    """Holds the probabilities of two heads, tokens x tokens, in two planes of bytes.

    ``write``, ``row_complete``, ``chunk_valid`` and ``start`` as of the `AttentionBuffer`, with
    ``step`` and ``octaves`` beside ``start``: as of the `Shiftmax`. ``word`` -> ``data`` (``depth``
    bytes, for each of ``machine.loads``) one cycle later; words of lower and of upper bytes lie by
    turns.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        rows, cols, depth, loads = machine.rows, machine.cols, machine.depth, machine.loads
        super().__init__(
            {
                "start": In(1),
                "step": In(STEP_BITS),
                "octaves": In(4),
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
                            "chunk": Out(data.ArrayLayout(signed(SCORE_BITS), cols)),
                        }
                    )
                ),
                "row_complete": Out(1),
                "chunk_valid": Out(1),
                "word": In(data.ArrayLayout(24, loads)),
                "data": Out(data.ArrayLayout(data.ArrayLayout(unsigned(_BYTE), depth), loads)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        machine = self.machine
        cols, lanes = machine.cols, machine.lanes
        tiles, last_count, pitch = Signal(12), Signal(8), Signal(16)
        step, octaves = Signal(STEP_BITS), Signal(4)
        with m.If(self.start):
            m.d.sync += [
                tiles.eq(self.tiles),
                last_count.eq(self.last_count),
                pitch.eq(self.pitch),
                step.eq(self.step),
                octaves.eq(self.octaves),
            ]
        m.submodules.shiftmax = shiftmax = Shiftmax(
            slots=machine.rows,
            lanes=cols,
            max_tiles=machine.score_tiles,
            max_row=machine.row_indices,
        )
        m.d.comb += [
            shiftmax.valid.eq(self.write.valid),
            shiftmax.slot.eq(self.write.slot),
            shiftmax.tile.eq(self.write.tile),
            shiftmax.count.eq(self.write.count),
            shiftmax.first.eq(self.write.first),
            shiftmax.last.eq(self.write.last),
            shiftmax.row.eq(self.write.token),
            shiftmax.scores.eq(self.write.chunk),
            shiftmax.tiles.eq(tiles),
            shiftmax.last_count.eq(last_count),
            shiftmax.step.eq(step),
            shiftmax.octaves.eq(octaves),
            # A chunk is written in the cycle after it leaves.
            self.row_complete.eq(delayed(m, shiftmax.row_complete, 1, name="row_complete")),
            self.chunk_valid.eq(shiftmax.weights_valid),
        ]

        row, lane = row_placement(m, machine, shiftmax.weights_valid, shiftmax.weights_tile)
        planes: list[list[LaneMemory]] = []
        for plane in ("lower", "upper"):
            m.submodules[f"{plane}_aligner"] = aligner = LaneAligner(
                cols=cols, lanes=lanes, rows=machine.attention_rows
            )
            m.d.sync += [
                aligner.valid.eq(shiftmax.weights_valid),
                aligner.row.eq(shiftmax.weights_row * pitch + row),
                aligner.lane.eq(lane),
                aligner.count.eq(Mux(shiftmax.weights_tile == tiles - 1, last_count, cols)),
            ]
            for index in range(cols):
                m.d.sync += aligner.chunk[index].eq(
                    shiftmax.weights[index] >> (_BYTE * len(planes))
                )
            copies = [
                LaneMemory(
                    rows=machine.attention_rows,
                    lanes=lanes,
                    depth=machine.depth,
                    straddle=lanes % cols != 0,
                )
                for _ in range(machine.loads)
            ]
            write_copies(m, aligner.write, copies, name=plane)
            planes.append(copies)
        for load, (lower, upper) in enumerate(zip(*planes, strict=True)):
            of_upper = Signal(name=f"of_upper{load}")
            m.d.sync += of_upper.eq(self.word[load][0])
            m.d.comb += [
                lower.word.eq(self.word[load] >> 1),
                upper.word.eq(self.word[load] >> 1),
                self.data[load]
                .as_value()
                .eq(Mux(of_upper, upper.data.as_value(), lower.data.as_value())),
            ]
        return m
