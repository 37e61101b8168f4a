"""The drain path: what happens to a row of finished sums on its way to a buffer.

Bias, dyadic requantization, GELU, saturation, and the destination's address, `cols` lanes wide,
one row a cycle. It takes the issue signals of the `ProductEngine` and delays them beside the
compute unit.
"""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..delay import delayed
from ..units.compute_array import LATENCY as ARRAY_LATENCY
from ..units.gelu import Gelu
from ..units.requantize import Requantizer
from .instruction import PRODUCT_LAYOUT, Destination
from .machine import Machine
from .product_engine import CONTEXTS, slot_record

__all__ = ["COLUMN_BITS", "COMPLETE", "REQUANTIZED", "DrainPath", "column_layout"]

COLUMN_BITS = 54


def column_layout(cols: int) -> data.ArrayLayout:
    """One word of the column buffer: what each of ``cols`` columns needs in the drain path.

    Bias, multiplier and shift of a linear layer.
    """
    return data.ArrayLayout(
        data.StructLayout({"bias": signed(32), "multiplier": unsigned(16), "shift": unsigned(6)}),
        cols,
    )


REQUANTIZED = 2 + Requantizer.LATENCY
"""Cycles from a row at the drain to its 16-bit codes: bias, factor, requantizer."""
_GELU = Gelu.LATENCY + Requantizer.LATENCY
"""Cycles from 16-bit codes to GELU's int8 codes."""


COMPLETE = REQUANTIZED + _GELU
"""Cycles from a row at the drain to the one in which its codes are written, at the latest, and in
which it counts as drained."""


class DrainPath(wiring.Component):
    """Requantizes drained rows and addresses their destination.

    Inputs: the issue signals of the product engine in the cycle of issue, its ``contexts`` at all
    times, the drain port of the compute unit, the row scale read for the row at the drain
    (``scale_mantissa``, ``scale_length`` one cycle after ``scale_token``), the column word one
    cycle after ``column_enable``.

    Outputs: ``narrow`` (int8 chunk with destination row, lane, bank) for the int8 destinations;
    ``wide`` (16-bit chunk with destination, slot, token, tile, first, last) for RESIDUAL, EMBED,
    SCORE, GATE and RESULT, with the ``weight`` that it is ``scaled`` by, and whether it is of the
    ``results``; ``residual_row`` addresses the chunk to add to one cycle before ``wide`` needs
    it. ``row_complete`` and ``product_complete``, with ``final`` (the last product of an image):
    pulses `COMPLETE` cycles after a row's last chunk was at the drain. ``chunk_valid``: a chunk of
    a row is at the drain.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        rows, cols, lanes = machine.rows, machine.cols, machine.lanes
        self.record_layout = slot_record(machine)
        super().__init__(
            {
                "contexts": In(data.ArrayLayout(PRODUCT_LAYOUT, CONTEXTS)),
                # issue
                "context": In(range(CONTEXTS)),
                "last": In(1),
                "load_first": In(machine.loads),
                "load_slot": In(range(rows)),
                "record": In(data.ArrayLayout(self.record_layout, machine.loads)),
                "active": In(rows),
                "row_first": In(rows),
                "row_last": In(rows),
                "tile": In(12),
                "tile_row": In(24),
                "tile_lane": In(range(lanes)),
                "tile_count": In(range(cols + 1)),
                # compute unit
                "drain_valid": In(1),
                "drain_row": In(range(rows)),
                "drain": In(data.ArrayLayout(signed(32), cols)),
                # column buffer and row scales
                "column_enable": Out(1),
                "column_address": Out(24),
                "column": In(column_layout(cols)),
                "scale_token": Out(12),
                "scale_mantissa": In(16),
                "scale_length": In(5),
                # destinations
                "residual_row": Out(24),
                "chunk_valid": Out(1),
                "row_complete": Out(1),
                "product_complete": Out(1),
                "final": Out(1),
                "narrow": Out(
                    wiring.Signature(
                        {
                            "valid": Out(1),
                            "destination": Out(4),
                            "row": Out(24),
                            "lane": Out(range(lanes)),
                            "bank": Out(8),
                            "count": Out(range(cols + 1)),
                            "chunk": Out(data.ArrayLayout(unsigned(8), cols)),
                        }
                    )
                ),
                "wide": Out(
                    wiring.Signature(
                        {
                            "valid": Out(1),
                            "destination": Out(4),
                            "accumulate": Out(1),
                            "results": Out(1),
                            "scaled": Out(1),
                            "weight": Out(16),
                            "row": Out(24),
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
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, cols, lanes = self.machine.rows, self.machine.cols, self.machine.lanes
        loads, routed = self.machine.loads, self.machine.buffers.experts > 0
        contexts = Array(self.contexts[index] for index in range(CONTEXTS))
        to_capture = ARRAY_LATENCY  # memory read, then the array up to its drain registers

        # Slot records follow the words through the array and are frozen while their rows drain.
        load_first = delayed(m, self.load_first, to_capture - 1, name="load_first")
        load_slot = delayed(m, self.load_slot, to_capture - 1, name="load_slot")
        record = delayed(m, self.record, to_capture - 1, name="record")
        capture = delayed(m, self.last, to_capture, name="last")
        table = [Signal(self.record_layout, name=f"record_{slot}") for slot in range(rows)]
        frozen = [Signal(self.record_layout, name=f"frozen_{slot}") for slot in range(rows)]
        for slot in range(rows):
            load = 0 if loads == 1 else slot
            with m.If(load_first[load] & ((loads > 1) | (load_slot == slot))):
                m.d.sync += table[slot].eq(record[load])
            with m.If(capture):
                m.d.sync += frozen[slot].eq(table[slot])
        step: dict[str, Signal] = {}
        at_capture: dict[str, Signal] = {}
        for name in (
            "active", "row_first", "row_last", "tile", "tile_row", "tile_lane", "tile_count",
            "context",
        ):  # fmt: skip
            at_capture[name] = delayed(m, getattr(self, name), to_capture, name=name)
            step[name] = Signal.like(at_capture[name], name=f"drain_{name}")
            with m.If(capture):
                m.d.sync += step[name].eq(at_capture[name])
        m.d.comb += [
            self.column_enable.eq(capture),
            self.column_address.eq(
                contexts[at_capture["context"]].column_base + at_capture["tile"]
            ),
        ]

        # Stage 0: the row at the drain.
        fields = {
            "valid": unsigned(1),
            "context": range(CONTEXTS),
            "destination": unsigned(4),
            "end": unsigned(1),
            "slot": range(rows),
            "token": unsigned(12),
            "row": unsigned(24),
            "bank": unsigned(8),
            "tile": unsigned(12),
            "lane": range(lanes),
            "count": range(cols + 1),
            "first": unsigned(1),
            "last": unsigned(1),
        }
        if routed:
            fields["weight"] = unsigned(16)
        control_layout = data.StructLayout(fields)
        here = Signal(self.record_layout)
        control = Signal(control_layout)
        by_tile = Signal()
        i = contexts[step["context"]]
        m.d.comb += [
            here.eq(Array(frozen)[self.drain_row]),
            by_tile.eq(
                (i.destination == Destination.VALUE)
                | (i.destination == Destination.RESIDUAL)
                | (i.destination == Destination.EMBED)
                | (i.destination == Destination.RESULT)
            ),
            control.context.eq(step["context"]),
            control.destination.eq(i.destination),
            control.end.eq(here.end),
            control.valid.eq(self.drain_valid & step["active"].bit_select(self.drain_row, 1)),
            control.slot.eq(self.drain_row),
            control.token.eq(here.token),
            control.row.eq(here.row + Mux(by_tile, step["tile"], step["tile_row"])),
            control.bank.eq(here.bank),
            control.tile.eq(step["tile"]),
            control.lane.eq(step["tile_lane"]),
            control.count.eq(step["tile_count"]),
            control.first.eq(step["row_first"].bit_select(self.drain_row, 1)),
            control.last.eq(step["row_last"].bit_select(self.drain_row, 1)),
            self.scale_token.eq(here.token),
            self.chunk_valid.eq(control.valid),
        ]
        if routed:
            m.d.comb += control.weight.eq(here.weight)
        first_stage = control
        second_stage = delayed(m, control, 1, name="control_biased")
        control = delayed(m, second_stage, REQUANTIZED - 2, name="control")
        m.d.comb += self.residual_row.eq(control.row)  # the old chunk arrives with the codes
        control = delayed(m, control, 1, name="control_codes")

        # Stages 1 and 2: bias, then the factor of the column, of the layer or of the row.
        first_context = contexts[first_stage.context]
        second_context = contexts[second_stage.context]
        unbiased, scores, weighted = Signal(), Signal(), Signal()
        m.d.comb += [
            scores.eq(first_stage.destination == Destination.SCORE),
            unbiased.eq(scores | (first_stage.destination == Destination.APPLY) | here.void),
            weighted.eq(second_stage.destination == Destination.APPLY),
        ]
        row_product = Signal(32)
        row_multiplier, row_shift = Signal(16), Signal(6)
        m.d.comb += [
            row_product.eq(self.scale_mantissa * second_context.multiplier),
            row_multiplier.eq(row_product >> 16),
            row_shift.eq(self.scale_length + second_context.shift - 1),
        ]
        gelu_context = contexts[delayed(m, control.context, Gelu.LATENCY, name="gelu_context")]
        codes = []
        gelu_codes = []
        for lane in range(cols):
            column = self.column[lane]
            biased, accumulator = (
                Signal(signed(32), name=f"biased{lane}"),
                Signal(signed(32), name=f"accumulator{lane}"),
            )
            multiplier1, shift1 = Signal(16, name=f"m1_{lane}"), Signal(6, name=f"s1_{lane}")
            multiplier2, shift2 = Signal(16, name=f"m2_{lane}"), Signal(6, name=f"s2_{lane}")
            m.d.sync += [
                biased.eq(self.drain[lane] + Mux(unbiased, 0, column.bias)),
                multiplier1.eq(Mux(scores, first_context.multiplier, column.multiplier)),
                shift1.eq(Mux(scores, first_context.shift, column.shift)),
                accumulator.eq(biased),
                multiplier2.eq(Mux(weighted, row_multiplier, multiplier1)),
                shift2.eq(Mux(weighted, row_shift, shift1)),
            ]
            m.submodules[f"requantizer{lane}"] = requantizer = Requantizer(
                accumulator_bits=32, out_bits=16
            )
            m.d.comb += [
                requantizer.accumulator.eq(accumulator),
                requantizer.multiplier.eq(multiplier2),
                requantizer.shift.eq(shift2),
            ]
            codes.append(requantizer.result)

            m.submodules[f"gelu{lane}"] = gelu = Gelu()
            m.submodules[f"gelu_requantizer{lane}"] = second = Requantizer(
                accumulator_bits=16, out_bits=8
            )
            m.d.comb += [
                gelu.x.eq(requantizer.result),
                second.accumulator.eq(gelu.result),
                second.multiplier.eq(gelu_context.multiplier),
                second.shift.eq(gelu_context.shift),
            ]
            gelu_codes.append(second.result)

        # 16-bit destinations
        wide_destination = Signal()
        m.d.comb += [
            wide_destination.eq(
                (control.destination == Destination.RESIDUAL)
                | (control.destination == Destination.EMBED)
                | (control.destination == Destination.SCORE)
                | (control.destination == Destination.RESULT)
                | (control.destination == Destination.GATE)
            ),
            self.wide.valid.eq(control.valid & wide_destination),
            self.wide.accumulate.eq(contexts[control.context].accumulate),
            self.wide.results.eq(contexts[control.context].results != 0),
            self.wide.scaled.eq(contexts[control.context].scatter),
        ]
        if routed:
            m.d.comb += self.wide.weight.eq(control.weight)
        for name in ("destination", "row", "slot", "token", "tile", "count", "first", "last"):
            m.d.comb += getattr(self.wide, name).eq(getattr(control, name))
        m.d.comb += [self.wide.chunk[lane].eq(codes[lane]) for lane in range(cols)]

        # 8-bit destinations: through GELU, or as late beside it
        late = delayed(m, control, _GELU, name="control_late")
        late_wide = delayed(m, wide_destination, _GELU, name="late_wide")
        through_gelu = Signal()
        m.d.comb += [
            through_gelu.eq(late.destination == Destination.GELU),
            self.narrow.valid.eq(late.valid & ~late_wide),
            self.narrow.destination.eq(late.destination),
            self.narrow.row.eq(late.row),
            self.narrow.lane.eq(late.lane),
            self.narrow.bank.eq(late.bank),
            self.narrow.count.eq(late.count),
            self.row_complete.eq(late.valid & late.last),
            self.product_complete.eq(self.row_complete & late.end),
            self.final.eq(self.product_complete & contexts[late.context].final),
        ]
        for lane in range(cols):
            narrow = Signal(signed(8), name=f"narrow{lane}")
            with m.If(codes[lane] > 127):
                m.d.comb += narrow.eq(127)
            with m.Elif(codes[lane] < -128):
                m.d.comb += narrow.eq(-128)
            with m.Else():
                m.d.comb += narrow.eq(codes[lane])
            beside = delayed(m, narrow, _GELU, name=f"beside{lane}")
            m.d.comb += self.narrow.chunk[lane].eq(Mux(through_gelu, gelu_codes[lane], beside))
        return m
