"""The drain path: what happens to a row of finished sums on its way to a buffer.

Bias, dyadic requantization, GELU, saturation, and the destination's address, `cols` lanes wide,
one row a cycle. It takes the issue signals of the `ProductEngine` and delays them beside the
compute unit.
"""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .delay import delayed
from .instruction import LAYOUT, Destination
from .machine import Machine
from .product_engine import slot_record
from .units.compute_array import LATENCY as ARRAY_LATENCY
from .units.gelu import Gelu
from .units.requantize import Requantizer

__all__ = ["COLUMN_BITS", "REQUANTIZED", "DrainPath", "column_layout", "tail_cycles"]

COLUMN_BITS = 54


def column_layout(cols: int) -> data.ArrayLayout:
    """One word of the column buffer: what each of ``cols`` columns needs in the drain path.

    A linear layer keeps bias, multiplier and shift; LayerNorm keeps its offset and its gain
    (signed, in the multiplier); the residual stream's constants lie in the low half of ``bias``.
    """
    return data.ArrayLayout(
        data.StructLayout({"bias": signed(32), "multiplier": unsigned(16), "shift": unsigned(6)}),
        cols,
    )


REQUANTIZED = 2 + Requantizer.LATENCY
"""Cycles from a row at the drain to its 16-bit codes: bias, factor, requantizer."""
_GELU = Gelu.LATENCY + Requantizer.LATENCY
"""Cycles from 16-bit codes to GELU's int8 codes."""


def tail_cycles(rows: int) -> int:
    """Cycles from the end of the issue of a product until its last row is certainly written."""
    return 1 + ARRAY_LATENCY + rows + REQUANTIZED + _GELU + 3


class DrainPath(wiring.Component):
    """Requantizes drained rows and addresses their destination.

    Inputs: the issue signals of the product engine in the cycle of issue, the drain port of the
    compute unit, the row scale read for the row at the drain (``scale_mantissa``,
    ``scale_length`` one cycle after ``scale_token``), the column word one cycle after
    ``column_enable``.

    Outputs: ``narrow`` (int8 chunk with destination row, lane, bank) for the int8 destinations;
    ``wide`` (16-bit chunk with slot, token, tile, first, last) for RESIDUAL, SCORE and RESULT;
    ``residual_row`` addresses the old residual chunk one cycle before ``wide`` needs it.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        rows, cols, lanes = machine.rows, machine.cols, machine.lanes
        self.record_layout = slot_record(machine)
        super().__init__(
            {
                "instruction": In(LAYOUT),
                # issue
                "last": In(1),
                "load_first": In(1),
                "load_slot": In(range(rows)),
                "record": In(self.record_layout),
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
                "narrow": Out(
                    wiring.Signature(
                        {
                            "valid": Out(1),
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
        i = self.instruction
        to_capture = ARRAY_LATENCY  # memory read, then the array up to its drain registers

        # Slot records follow the words through the array and are frozen while their rows drain.
        load_first = delayed(m, self.load_first, to_capture - 1, name="load_first")
        load_slot = delayed(m, self.load_slot, to_capture - 1, name="load_slot")
        record = delayed(m, self.record, to_capture - 1, name="record")
        capture = delayed(m, self.last, to_capture, name="last")
        table = [Signal(self.record_layout, name=f"record_{slot}") for slot in range(rows)]
        frozen = [Signal(self.record_layout, name=f"frozen_{slot}") for slot in range(rows)]
        for slot in range(rows):
            with m.If(load_first & (load_slot == slot)):
                m.d.sync += table[slot].eq(record)
            with m.If(capture):
                m.d.sync += frozen[slot].eq(table[slot])
        step: dict[str, Signal] = {}
        at_capture: dict[str, Signal] = {}
        for name in (
            "active", "row_first", "row_last", "tile", "tile_row", "tile_lane", "tile_count",
        ):  # fmt: skip
            at_capture[name] = delayed(m, getattr(self, name), to_capture, name=name)
            step[name] = Signal.like(at_capture[name], name=f"drain_{name}")
            with m.If(capture):
                m.d.sync += step[name].eq(at_capture[name])
        m.d.comb += [
            self.column_enable.eq(capture),
            self.column_address.eq(i.column_base + at_capture["tile"]),
        ]

        # Stage 0: the row at the drain.
        control_layout = data.StructLayout(
            {
                "valid": unsigned(1),
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
        )
        here = Signal(self.record_layout)
        control = Signal(control_layout)
        by_tile = Signal()
        m.d.comb += [
            here.eq(Array(frozen)[self.drain_row]),
            by_tile.eq(
                (i.destination == Destination.VALUE)
                | (i.destination == Destination.RESIDUAL)
                | (i.destination == Destination.RESULT)
            ),
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
        ]
        control = delayed(m, control, REQUANTIZED - 1, name="control")
        m.d.comb += self.residual_row.eq(control.row)  # the old chunk arrives with the codes
        control = delayed(m, control, 1, name="control_codes")

        # Stages 1 and 2: bias, then the factor of the column, of the layer or of the row.
        scores = Signal()
        weighted = Signal()
        m.d.comb += [
            scores.eq(i.destination == Destination.SCORE),
            weighted.eq(i.destination == Destination.APPLY),
        ]
        row_product = Signal(32)
        row_multiplier, row_shift = Signal(16), Signal(6)
        m.d.comb += [
            row_product.eq(self.scale_mantissa * i.multiplier),
            row_multiplier.eq(row_product >> 16),
            row_shift.eq(self.scale_length + i.shift - 1),
        ]
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
                biased.eq(self.drain[lane] + Mux(scores | weighted, 0, column.bias)),
                multiplier1.eq(Mux(scores, i.multiplier, column.multiplier)),
                shift1.eq(Mux(scores, i.shift, column.shift)),
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
                second.multiplier.eq(i.multiplier),
                second.shift.eq(i.shift),
            ]
            gelu_codes.append(second.result)

        # 16-bit destinations
        wide_destination = Signal()
        m.d.comb += [
            wide_destination.eq(
                (i.destination == Destination.RESIDUAL)
                | scores
                | (i.destination == Destination.RESULT)
            ),
            self.wide.valid.eq(control.valid & wide_destination),
            self.wide.row.eq(control.row),
            self.wide.slot.eq(control.slot),
            self.wide.token.eq(control.token),
            self.wide.tile.eq(control.tile),
            self.wide.count.eq(control.count),
            self.wide.first.eq(control.first),
            self.wide.last.eq(control.last),
        ]
        m.d.comb += [self.wide.chunk[lane].eq(codes[lane]) for lane in range(cols)]

        # 8-bit destinations: directly, or after GELU
        late = delayed(m, control, _GELU, name="control_gelu")
        through_gelu = Signal()
        m.d.comb += through_gelu.eq(i.destination == Destination.GELU)
        chosen = Signal(control_layout)
        m.d.comb += chosen.eq(Mux(through_gelu, late, control))
        m.d.comb += [
            self.narrow.valid.eq(chosen.valid & ~wide_destination),
            self.narrow.row.eq(chosen.row),
            self.narrow.lane.eq(chosen.lane),
            self.narrow.bank.eq(chosen.bank),
            self.narrow.count.eq(chosen.count),
        ]
        for lane in range(cols):
            narrow = Signal(signed(8), name=f"narrow{lane}")
            with m.If(codes[lane] > 127):
                m.d.comb += narrow.eq(127)
            with m.Elif(codes[lane] < -128):
                m.d.comb += narrow.eq(-128)
            with m.Else():
                m.d.comb += narrow.eq(codes[lane])
            m.d.comb += self.narrow.chunk[lane].eq(Mux(through_gelu, gelu_codes[lane], narrow))
        return m
