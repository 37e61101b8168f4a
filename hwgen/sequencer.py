"""The sequencer: fetches instructions, starts engines, counts cycles, and answers the register
port.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .drain_path import tail_cycles
from .instruction import INSTRUCTION_BITS, LAYOUT, Opcode
from .machine import Machine
from .ram import Ram
from .registers import ADDRESS_BITS, register

__all__ = ["END_CYCLES", "OVERHEAD", "Sequencer"]

OVERHEAD = 4
"""Cycles of a step beside its engine's: fetch, decode, start, and the cycle that sees the engine
idle.
"""

END_CYCLES = 3
"""Cycles of the END step: fetch, decode, stop."""


class Sequencer(wiring.Component):
    """Executes the program memory from address 0 to END.

    A step is: fetch, decode, start the engine of its opcode, wait while it is busy; for a product
    also wait for the drain path (`tail_cycles`) and, for scores, for the softmax. ``resting``:
    idle or paused, the debug window may read memories.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        depth = machine.buffers.instructions
        super().__init__(
            {
                "instruction": Out(LAYOUT),
                "start": Out(1),
                "engine_busy": In(1),
                "softmax_busy": In(1),
                "done": Out(1),
                "paused": Out(1),
                "resting": Out(1),
                "load": In(
                    wiring.Signature(
                        {
                            "enable": Out(1),
                            "address": Out(range(depth)),
                            "data": Out(INSTRUCTION_BITS),
                        }
                    )
                ),
                # events to count
                "image_stalled": In(1),
                "logits_stalled": In(1),
                "weight_stalled": In(1),
                "issue": In(1),
                "load_word": In(1),
                # register port
                "address": In(ADDRESS_BITS),
                "write": In(1),
                "write_data": In(32),
                "read_data": Out(32),
                "debug_select": Out(2),
                "debug_word": Out(24),
                "debug_slice": Out(8),
                "debug_data": In(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.machine.buffers.instructions
        m.submodules.program = program = Ram(width=INSTRUCTION_BITS, depth=depth)
        m.submodules.steps = steps = Ram(width=32, depth=depth)
        pc = Signal(range(depth))
        held = Signal(LAYOUT)
        m.d.comb += [
            program.write_enable.eq(self.load.enable),
            program.write_address.eq(self.load.address),
            program.write_data.eq(self.load.data),
            program.read_address.eq(pc),
            self.instruction.eq(held),
        ]

        begin, resume = Signal(), Signal()
        break_step = Signal(16)
        debug = Signal(26)
        with m.If(self.write):
            with m.Switch(self.address):
                with m.Case(register("CONTROL")):
                    m.d.comb += [begin.eq(self.write_data[0]), resume.eq(self.write_data[1])]
                with m.Case(register("BREAK")):
                    m.d.sync += break_step.eq(self.write_data)
                with m.Case(register("DEBUG_ADDRESS")):
                    m.d.sync += debug.eq(self.write_data)

        cycles, step_cycles = Signal(32), Signal(32)
        running = Signal()
        counters = {
            name: Signal(32, name=name.lower())
            for name in (
                "IMAGE_STALLED", "LOGITS_STALLED", "WEIGHT_STALLED", "PRODUCT_CYCLES",
                "TOKEN_WORDS", "OTHER_WORDS",
            )
        }  # fmt: skip
        events = {
            "IMAGE_STALLED": self.image_stalled,
            "LOGITS_STALLED": self.logits_stalled,
            "WEIGHT_STALLED": self.weight_stalled,
            "PRODUCT_CYCLES": self.issue,
            "TOKEN_WORDS": self.load_word,
            "OTHER_WORDS": self.issue,
        }
        with m.If(running):
            m.d.sync += [cycles.eq(cycles + 1), step_cycles.eq(step_cycles + 1)]
            for name, counter in counters.items():
                with m.If(events[name]):
                    m.d.sync += counter.eq(counter + 1)

        tail = Signal(range(tail_cycles(self.machine.rows) + 1))
        product = Signal()
        m.d.comb += product.eq(held.opcode == Opcode.PRODUCT)
        record = Signal()
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.resting.eq(1)
                with m.If(begin):
                    m.d.sync += [pc.eq(0), cycles.eq(0), step_cycles.eq(0), self.done.eq(0)]
                    m.d.sync += [counter.eq(0) for counter in counters.values()]
                    m.next = "FETCH"
            with m.State("PAUSED"):
                m.d.comb += [self.paused.eq(1), self.resting.eq(1)]
                with m.If(resume):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += running.eq(1)
                m.next = "DECODE"
            with m.State("DECODE"):
                m.d.comb += running.eq(1)
                m.d.sync += held.eq(program.read_data)
                m.next = "START"
            with m.State("START"):
                m.d.comb += [running.eq(1), self.start.eq(1)]
                m.d.sync += tail.eq(tail_cycles(self.machine.rows))
                m.next = "RUN"
                with m.If(held.opcode == Opcode.END):
                    m.d.comb += record.eq(1)
                    m.d.sync += self.done.eq(1)
                    m.next = "IDLE"
            with m.State("RUN"):
                m.d.comb += running.eq(1)
                with m.If(~self.engine_busy):
                    with m.If(product & (tail != 0)):
                        m.d.sync += tail.eq(tail - 1)
                    with m.Elif(~(product & self.softmax_busy)):
                        m.d.comb += record.eq(1)
                        m.d.sync += pc.eq(pc + 1)
                        m.next = "FETCH"
                        with m.If((break_step != 0) & (pc + 1 == break_step)):
                            m.next = "PAUSED"
        m.d.comb += [
            steps.write_enable.eq(record),
            steps.write_address.eq(pc),
            steps.write_data.eq(step_cycles + 1),
        ]
        with m.If(record):
            m.d.sync += step_cycles.eq(0)

        # Register reads: registers and the step memory answer after one cycle.
        m.d.comb += [
            steps.read_address.eq(self.address),
            self.debug_select.eq(debug[24:]),
            self.debug_word.eq(debug),
            self.debug_slice.eq(self.address),
        ]
        from_steps = Signal()
        answer = Signal(32)
        m.d.sync += from_steps.eq(self.address >= register("STEP_CYCLES"))
        m.d.comb += self.read_data.eq(Mux(from_steps, steps.read_data, answer))
        with m.If(self.address >= register("DEBUG_DATA")):
            m.d.sync += answer.eq(self.debug_data)
        with m.Else(), m.Switch(self.address):
            with m.Case(register("STATUS")):
                m.d.sync += answer.eq(running | self.done << 1 | self.paused << 2 | pc << 16)
            with m.Case(register("CYCLES")):
                m.d.sync += answer.eq(cycles)
            with m.Case(register("BREAK")):
                m.d.sync += answer.eq(break_step)
            with m.Case(register("DEBUG_ADDRESS")):
                m.d.sync += answer.eq(debug)
            with m.Case(register("MACHINE")):
                m.d.sync += answer.eq(int(self.machine.digest[:8], 16))
            for name, counter in counters.items():
                with m.Case(register(name)):
                    m.d.sync += answer.eq(counter)
            with m.Default():
                m.d.sync += answer.eq(0)
        return m
