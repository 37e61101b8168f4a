"""The drain path: what happens to a row of finished sums on its way to a buffer.

Bias, dyadic requantization, GELU, saturation, and the destination's address, `cols` lanes wide,
one row a cycle. It takes the issue signals of the `ProductEngine` and delays them beside the
compute unit. What a lane computes depends on the machine's scheme; where it goes does not.
"""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..delay import delayed
from ..units.compute_array import LATENCY as ARRAY_LATENCY
from ..units.gelu import Gelu
from ..units.ivit.dyadic import Requantizer31
from ..units.ivit.gelu_table import ShiftGeluTables
from ..units.requantize import Requantizer
from ..units.rounding import saturated
from .instruction import Destination, product_layout
from .machine import TABLE_WORD, Machine
from .product_engine import CONTEXTS, slot_record

__all__ = ["DrainPath", "column_layout"]


def column_layout(machine: Machine) -> data.ArrayLayout:
    """One word of the column buffer: what each of ``cols`` columns needs in the drain path.

    Bias, multiplier and shift of a linear layer.
    """
    return data.ArrayLayout(machine.arithmetic.column, machine.cols)


class DrainPath(wiring.Component):
    """Requantizes drained rows and addresses their destination.

    Inputs: the issue signals of the product engine in the cycle of issue, its ``contexts`` at all
    times, the drain port of the compute unit, the row scale read for the row at the drain
    (``scale_mantissa``, ``scale_length`` one cycle after ``scale_token``), the column word one
    cycle after ``column_enable``.

    Outputs: ``narrow`` (int8 chunk with destination row, lane, bank) for the int8 destinations;
    ``wide`` (chunk of the width of results with destination, slot, token, tile, first, last) for
    RESIDUAL, EMBED, SCORE, GATE and RESULT, with the ``weight`` that it is ``scaled`` by, whether
    it is of the ``results``, and in scheme ivit the factors of an addition, of its own codes
    (``own``) and of what is there (``stream``); ``residual_row`` addresses the chunk to add to one
    cycle before ``wide`` needs it. ``row_complete`` and ``product_complete``, with ``final`` (the
    last product of an image): pulses ``machine.arithmetic.complete`` cycles after a row's last
    chunk was at the drain. ``load_tables``: in scheme ivit, words of GELU's tables.
    ``chunk_valid``: a chunk of a row is at the drain.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        rows, cols, lanes = machine.rows, machine.cols, machine.lanes
        self.record_layout = slot_record(machine)
        self.instruction_layout = product_layout(machine.scheme)
        self.result_bits = machine.arithmetic.result_bits
        factor = data.StructLayout({"multiplier": unsigned(31), "shift": unsigned(6)})
        factors = {"own": Out(factor), "stream": Out(factor)} if machine.scheme == "ivit" else {}
        tables = {
            "enable": Out(1),
            "address": Out(range(machine.table_words)),
            "data": Out(8 * TABLE_WORD),
        }
        super().__init__(
            {
                "contexts": In(data.ArrayLayout(self.instruction_layout, CONTEXTS)),
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
                "column": In(column_layout(machine)),
                "scale_token": Out(12),
                "scale_mantissa": In(16),
                "scale_length": In(5),
                "load_tables": In(wiring.Signature(tables)),
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
                            "chunk": Out(data.ArrayLayout(signed(self.result_bits), cols)),
                            **factors,
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
        arithmetic = self.machine.arithmetic
        control = delayed(m, second_stage, arithmetic.requantized - 2, name="control")
        m.d.comb += self.residual_row.eq(control.row)  # the old chunk arrives with the codes
        control = delayed(m, control, 1, name="control_codes")

        compute = self._ivit_lanes if self.machine.scheme == "ivit" else self._edge_lanes
        codes, narrow = compute(m, contexts, first_stage, second_stage, control, here.void)

        # 16-bit destinations, and wider ones
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
        late = delayed(m, control, arithmetic.activated, name="control_late")
        late_wide = delayed(m, wide_destination, arithmetic.activated, name="late_wide")
        m.d.comb += [
            self.narrow.valid.eq(late.valid & ~late_wide),
            self.narrow.destination.eq(late.destination),
            self.narrow.row.eq(late.row),
            self.narrow.lane.eq(late.lane),
            self.narrow.bank.eq(late.bank),
            self.narrow.count.eq(late.count),
        ]
        through_gelu = late.destination == Destination.GELU
        for lane, (activated, beside) in enumerate(narrow):
            m.d.comb += self.narrow.chunk[lane].eq(Mux(through_gelu, activated, beside))

        done = arithmetic.complete - arithmetic.requantized - arithmetic.activated
        complete = delayed(m, late, done, name="control_complete")
        m.d.comb += [
            self.row_complete.eq(complete.valid & complete.last),
            self.product_complete.eq(self.row_complete & complete.end),
            self.final.eq(self.product_complete & contexts[complete.context].final),
        ]
        return m

    def _edge_lanes(
        self,
        m: Module,
        contexts: Array,
        first_stage: data.View,
        second_stage: data.View,
        control: data.View,
        void: Value,
    ) -> tuple[list[Value], list[tuple[Value, Value]]]:
        """Of each lane its 16-bit codes, and its int8 codes behind GELU and beside it."""
        # Stages 1 and 2: bias, then the factor of the column, of the layer or of the row.
        first_context = contexts[first_stage.context]
        second_context = contexts[second_stage.context]
        unbiased, scores, weighted = Signal(), Signal(), Signal()
        m.d.comb += [
            scores.eq(first_stage.destination == Destination.SCORE),
            unbiased.eq(scores | (first_stage.destination == Destination.APPLY) | void),
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
        activated = self.machine.arithmetic.activated
        codes: list[Value] = []
        narrow: list[tuple[Value, Value]] = []
        for lane in range(self.machine.cols):
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
            limited = saturated(m, requantizer.result, 8, name=f"narrow{lane}")
            narrow.append((second.result, delayed(m, limited, activated, name=f"beside{lane}")))
        return codes, narrow

    def _ivit_lanes(
        self,
        m: Module,
        contexts: Array,
        first_stage: data.View,
        second_stage: data.View,
        control: data.View,
        void: Value,
    ) -> tuple[list[Value], list[tuple[Value, Value]]]:
        """As `_edge_lanes`, with codes of 32 bits that are within 16 but for RESULT and within 8
        where they are scores.
        """
        first_context = contexts[first_stage.context]
        by_layer, unbiased, eight_bits = Signal(), Signal(), Signal()
        m.d.comb += [
            by_layer.eq(
                (first_stage.destination == Destination.SCORE)
                | (first_stage.destination == Destination.APPLY)
            ),
            unbiased.eq(by_layer | void),
            eight_bits.eq(
                (second_stage.destination != Destination.RESIDUAL)
                & (second_stage.destination != Destination.EMBED)
                & (second_stage.destination != Destination.RESULT)
            ),
        ]
        m.submodules.tables = tables = ShiftGeluTables(
            lanes=self.machine.cols, tables=self.machine.buffers.tables, word=TABLE_WORD
        )
        context = contexts[control.context]
        m.d.comb += [
            tables.table.eq(context.table),
            tables.write_enable.eq(self.load_tables.enable),
            tables.write_address.eq(self.load_tables.address),
            tables.write_data.eq(self.load_tables.data),
            self.wide.own.multiplier.eq(context.multiplier),
            self.wide.own.shift.eq(context.shift),
            self.wide.stream.multiplier.eq(context.stream_multiplier),
            self.wide.stream.shift.eq(context.stream_shift),
        ]
        of_result = control.destination == Destination.RESULT
        activated = self.machine.arithmetic.activated
        codes: list[Value] = []
        narrow: list[tuple[Value, Value]] = []
        for lane in range(self.machine.cols):
            column = self.column[lane]
            m.submodules[f"requantizer{lane}"] = requantizer = Requantizer31(out_bits=32)
            biased = Signal(signed(32), name=f"biased{lane}")
            multiplier, shift = Signal(31, name=f"m{lane}"), Signal(6, name=f"s{lane}")
            m.d.sync += [
                biased.eq(self.drain[lane] + Mux(unbiased, 0, column.bias)),
                multiplier.eq(Mux(by_layer, first_context.multiplier, column.multiplier)),
                shift.eq(Mux(by_layer, first_context.shift, column.shift)),
                requantizer.code.eq(biased),
                requantizer.multiplier.eq(multiplier),
                requantizer.shift.eq(shift),
                requantizer.narrow.eq(eight_bits),
            ]
            sixteen = saturated(m, requantizer.result, 16, name=f"limited{lane}")
            code = Signal(signed(32), name=f"code{lane}")
            kept = Signal(signed(8), name=f"narrow{lane}")
            m.d.comb += [
                code.eq(Mux(of_result, requantizer.result, sixteen)),
                kept.eq(requantizer.result),
                tables.codes[lane].eq(kept),
            ]
            codes.append(code)
            narrow.append((tables.out[lane], delayed(m, kept, activated, name=f"beside{lane}")))
        return codes, narrow
