"""Brings the two operands of an issued word to the compute unit, one cycle after its addresses."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..delay import delayed
from ..ram import Ram
from .instruction import Source, product_layout
from .machine import Machine

__all__ = ["OperandFeed"]


class OperandFeed(wiring.Component):
    """Slot buffers and operand selection.

    A word that is loaded from the token side (``token_words`` and its like, one cycle after
    ``load``) goes to its slot's buffer and straight to the compute unit; the other slots read
    theirs. Lanes beyond the row's end are zero on this side, so whatever the other side holds there
    does not count; of a void row all are. int8 is sign-extended to 9 bits, softmax weights are not.

    All ``..._words`` follow their address by one cycle. ``instruction`` is the product engine's.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        rows, cols, depth, loads = machine.rows, machine.cols, machine.depth, machine.loads
        word = data.ArrayLayout(unsigned(8), depth)
        super().__init__(
            {
                "instruction": In(product_layout(machine.scheme)),
                "issue": In(1),
                "first": In(1),
                "last": In(1),
                "partial": In(1),
                "word": In(range(machine.slot_words)),
                "load": In(loads),
                "load_void": In(loads),
                "load_slot": In(range(rows)),
                "token_words": In(data.ArrayLayout(word, loads)),
                "attention_words": In(data.ArrayLayout(word, loads)),
                "normal_words": In(data.ArrayLayout(word, loads)),
                "image_words": In(data.ArrayLayout(word, loads)),
                "key_words": In(data.ArrayLayout(word, cols)),
                "value_words": In(data.ArrayLayout(data.ArrayLayout(unsigned(8), cols), depth)),
                "weight_words": In(data.ArrayLayout(word, cols)),
                "a": Out(data.ArrayLayout(data.ArrayLayout(signed(9), depth), rows)),
                "b": Out(data.ArrayLayout(data.ArrayLayout(signed(8), depth), cols)),
                "valid": Out(1),
                "a_first": Out(1),
                "a_last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        machine = self.machine
        rows, cols, depth, loads = machine.rows, machine.cols, machine.depth, machine.loads
        i = self.instruction
        loaded = delayed(m, self.load, 1, name="loaded")
        load_void = delayed(m, self.load_void, 1, name="load_void")
        load_slot = delayed(m, self.load_slot, 1, name="load_slot")
        word = delayed(m, self.word, 1, name="word")
        partial = delayed(m, self.partial, 1, name="partial")
        m.d.sync += [
            self.valid.eq(self.issue),
            self.a_first.eq(self.first),
            self.a_last.eq(self.last),
        ]

        weighted = Signal()
        chosen = Signal(self.token_words.shape())
        fresh = Signal(self.token_words.shape())
        m.d.comb += weighted.eq(i.a_source == Source.ATTENTION)
        with m.Switch(i.a_source):
            for source, operand in (
                (Source.ATTENTION, self.attention_words),
                (Source.NORMAL, self.normal_words),
                (Source.IMAGE, self.image_words),
            ):
                with m.Case(source):
                    m.d.comb += chosen.eq(operand)
            with m.Default():
                m.d.comb += chosen.eq(self.token_words)
        for lane in range(depth):
            beyond = partial & (i.last_lanes <= lane)
            for load in range(loads):
                m.d.comb += fresh[load][lane].eq(
                    Mux(load_void[load] | beyond, 0, chosen[load][lane])
                )
        for slot in range(rows):
            m.submodules[f"slot{slot}"] = buffer = Ram(
                width=8 * depth, depth=self.machine.slot_words
            )
            mine = Signal(name=f"mine{slot}")
            load = 0 if loads == 1 else slot
            operand = Signal(data.ArrayLayout(unsigned(8), depth), name=f"operand{slot}")
            m.d.comb += [
                mine.eq(loaded[load] & ((loads > 1) | (load_slot == slot))),
                buffer.write_enable.eq(mine),
                buffer.write_address.eq(word),
                buffer.write_data.eq(fresh[load].as_value()),
                buffer.read_address.eq(self.word),
                operand.as_value().eq(Mux(mine, fresh[load].as_value(), buffer.read_data)),
            ]
            for lane in range(depth):
                sign = operand[lane][7] & ~weighted
                m.d.comb += self.a[slot][lane].eq(Cat(operand[lane], sign).as_signed())

        with m.Switch(i.b_source):
            with m.Case(Source.KEY):
                for col in range(cols):
                    for lane in range(depth):
                        m.d.comb += self.b[col][lane].eq(self.key_words[col][lane].as_signed())
            with m.Case(Source.VALUE):
                for col in range(cols):
                    for lane in range(depth):
                        m.d.comb += self.b[col][lane].eq(self.value_words[lane][col].as_signed())
            with m.Default():
                for col in range(cols):
                    for lane in range(depth):
                        m.d.comb += self.b[col][lane].eq(self.weight_words[col][lane].as_signed())
        return m
