"""The host's side: registers behind an AXI4-Lite slave, and the interrupt."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .bus import LiteSignature
from .register_map import (
    ADDRESS_BITS,
    COUNTERS_AT,
    DEBUG_DATA_AT,
    MAX_COUNTERS,
    ErrorCode,
    register,
    register_map,
)

__all__ = ["DEBUG_LATENCY", "ControlPort"]

DEBUG_LATENCY = 4
"""Cycles from the first one in which the debug outputs name a slice to the one that takes it."""

_POINTERS = {"parameters": "PARAMETERS", "images": "IMAGES", "results": "RESULTS"}
_VALUES = {
    "count": "COUNT",
    "image_pitch": "IMAGE_PITCH",
    "result_pitch": "RESULT_PITCH",
    "task": "TASK",
    "watchdog": "WATCHDOG",
    "break_product": "BREAK",
    "options": "RUN_OPTIONS",
}


class ControlPort(wiring.Component):
    """Registers of `register_map`; the core sees their values and strobes.

    A write happens in the cycle after both its channels have been taken, in whichever order they
    come; ``bvalid`` shows in the cycle after that. A read taken in cycle t answers in t + 2, of
    DEBUG_DATA in t + 2 + ``DEBUG_LATENCY``, of MEMORY_DATA in t + 4. One write and one read are
    under way at a time. Every answer is OKAY: an address without a register reads 0 and ignores
    what is written. Byte strobes are honoured.

    ``start``, ``resume`` and ``soft_reset`` are strobes in the cycle of the write. A start while
    ``busy`` is not passed on, except together with a soft reset: STATUS then shows
    `ErrorCode.BUSY`, unless there is another error, until the next start or soft reset. INTERRUPT
    is set in the cycle after the one in which ``done``, ``paused`` or an error first shows.

    Parameters
    ----------
    counters : names of the performance counters, at most 64.
    machine_digest : 32 bits.
    memory_window : whether there is an on-chip memory behind MEMORY_DATA.

    Members
    -------
    bus : In, `LiteSignature` (this side is the slave)
    interrupt : Out
    start, resume, soft_reset : Out, strobes
    parameters, images, results (64 bits), count, image_pitch, result_pitch, task, watchdog,
    break_product, options (32 bits) : Out
    busy, done, paused, error (4), product (16), error_address (64), program_digest (32) : In
    counters : In, 32 bits each, counter 0 in the lowest bits
    debug_memory (3), debug_word (24), debug_slice (8) : Out; debug_data (32) : In
    window_address (32, bytes), window_write (32), window_enable, window_read : Out, strobes of one
        cycle; window_data (32) : In, two cycles after window_read

    Raises
    ------
    ValueError
        Counters or digest are out of range.
    """

    def __init__(
        self, *, counters: Sequence[str], machine_digest: int, memory_window: bool = False
    ) -> None:
        register_map(counters)
        if not 0 <= machine_digest < 1 << 32:
            raise ValueError(f"machine_digest: expected 32 bits, got {machine_digest!r}")
        self.names, self.machine_digest = tuple(counters), machine_digest
        self.memory_window = memory_window
        super().__init__(
            {
                "bus": In(LiteSignature(ADDRESS_BITS)),
                "interrupt": Out(1),
                "start": Out(1),
                "resume": Out(1),
                "soft_reset": Out(1),
                **{name: Out(64) for name in _POINTERS},
                **{name: Out(32) for name in _VALUES},
                "busy": In(1),
                "done": In(1),
                "paused": In(1),
                "error": In(4),
                "product": In(16),
                "error_address": In(64),
                "program_digest": In(32),
                "counters": In(32 * max(1, len(self.names))),
                "debug_memory": Out(3),
                "debug_word": Out(24),
                "debug_slice": Out(8),
                "debug_data": In(32),
                "window_address": Out(32),
                "window_write": Out(32),
                "window_enable": Out(1),
                "window_read": Out(1),
                "window_data": In(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        write, write_address, write_data, mask = self._writes(m)

        plain: dict[int, Value] = {}
        for name, title in _POINTERS.items():
            plain[register(title)] = getattr(self, name)[:32]
            plain[register(f"{title}_HIGH")] = getattr(self, name)[32:]
        plain |= {register(title): getattr(self, name) for name, title in _VALUES.items()}
        debug, window_address = Signal(32), Signal(32)
        plain[register("DEBUG_ADDRESS")] = debug
        plain[register("MEMORY_ADDRESS")] = window_address
        enable = Signal()
        plain[register("INTERRUPT_ENABLE")] = enable

        pending, refused, clear = Signal(), Signal(), Signal()
        command = Signal(3)
        m.d.comb += [
            self.start.eq(command[0] & (~self.busy | command[2])),
            self.resume.eq(command[1]),
            self.soft_reset.eq(command[2]),
            self.window_address.eq(window_address),
            self.window_write.eq(write_data),
        ]
        with m.If(write):
            with m.Switch(write_address):
                with m.Case(register("CONTROL")):
                    m.d.comb += command.eq(write_data & mask)
                with m.Case(register("INTERRUPT")):
                    m.d.comb += clear.eq(write_data[0] & mask[0])
                with m.Case(register("MEMORY_DATA")):
                    if self.memory_window:
                        m.d.comb += self.window_enable.eq(1)
                        m.d.sync += window_address.eq(window_address + 4)
                for address, value in plain.items():
                    with m.Case(address):
                        m.d.sync += value.eq((value & ~mask) | (write_data & mask))
        with m.If(command[0] | command[2]):
            m.d.sync += refused.eq(command[0] & self.busy & ~command[2])

        event, before = Signal(3), Signal(3)
        m.d.comb += [
            event.eq(Cat(self.done, self.paused, self.error != 0)),
            self.interrupt.eq(pending & enable),
        ]
        m.d.sync += [before.eq(event), pending.eq((pending & ~clear) | (event & ~before).any())]

        status = Cat(
            self.busy,
            self.done,
            self.paused,
            Const(0, 1),
            Mux((self.error == 0) & refused, ErrorCode.BUSY, self.error),
            Const(0, 8),
            self.product,
        )
        shown: dict[int, Value] = {
            **plain,
            register("STATUS"): status,
            register("ERROR_ADDRESS"): self.error_address[:32],
            register("ERROR_ADDRESS_HIGH"): self.error_address[32:],
            register("INTERRUPT"): pending,
            register("MACHINE"): Const(self.machine_digest, 32),
            register("PROGRAM"): self.program_digest,
        }
        m.d.comb += [self.debug_memory.eq(debug[24:27]), self.debug_word.eq(debug)]
        self._reads(m, shown, window_address)
        return m

    def _writes(self, m: Module) -> tuple[Signal, Signal, Signal, Signal]:
        """The write channels: (a write happens, its byte address, its data, mask of its bits)."""
        bus = self.bus
        address, data, strobes = Signal(ADDRESS_BITS), Signal(32), Signal(4)
        has_address, has_data = Signal(), Signal()
        write, mask = Signal(), Signal(32)
        m.d.comb += [
            write.eq(has_address & has_data & (~bus.bvalid | bus.bready)),
            bus.awready.eq(~has_address),
            bus.wready.eq(~has_data),
            mask.eq(Cat(strobe.replicate(8) for strobe in strobes)),
        ]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(write):
            m.d.sync += [bus.bvalid.eq(1), has_address.eq(0), has_data.eq(0)]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [has_address.eq(1), address.eq(bus.awaddr & ~3)]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [has_data.eq(1), data.eq(bus.wdata), strobes.eq(bus.wstrb)]
        return write, address, data, mask

    def _reads(self, m: Module, shown: dict[int, Value], window_address: Signal) -> None:
        """The read channels."""
        bus = self.bus
        address = Signal(ADDRESS_BITS)
        countdown = Signal(range(DEBUG_LATENCY + 1))
        from_debug, from_window, from_counter = Signal(), Signal(), Signal()
        answer = Signal(32)
        counted = Signal(32)
        counters = [self.counters.word_select(index, 32) for index in range(len(self.names))]
        m.d.comb += [
            from_debug.eq(address[10:] == DEBUG_DATA_AT >> 10),
            from_counter.eq(address[8:] == COUNTERS_AT >> 8),
            self.debug_slice.eq(address[2:]),
        ]
        if self.memory_window:
            m.d.comb += from_window.eq(address == register("MEMORY_DATA"))
        with m.Switch(address[2 : 2 + (MAX_COUNTERS - 1).bit_length()]):
            for index, counter in enumerate(counters):
                with m.Case(index):
                    m.d.comb += counted.eq(counter)
        with m.If(from_debug):
            m.d.comb += answer.eq(self.debug_data)
        with m.Elif(from_window):
            m.d.comb += answer.eq(self.window_data)
        with m.Elif(from_counter):
            m.d.comb += answer.eq(counted)
        with m.Else(), m.Switch(address):
            for where, value in shown.items():
                with m.Case(where):
                    m.d.comb += answer.eq(value)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += bus.arready.eq(1)
                m.d.sync += [address.eq(bus.araddr & ~3), countdown.eq(0)]
                with m.If(bus.arvalid):
                    m.next = "READ"
            with m.State("READ"):
                m.d.sync += [countdown.eq(countdown + 1), bus.rdata.eq(answer)]
                if self.memory_window:
                    m.d.comb += self.window_read.eq(from_window & (countdown == 0))
                with m.If(
                    Mux(
                        from_debug,
                        countdown == DEBUG_LATENCY,
                        Mux(from_window, countdown == 2, 1),
                    )
                ):
                    m.d.sync += bus.rvalid.eq(1)
                    m.next = "ANSWER"
                    with m.If(from_window):
                        m.d.sync += window_address.eq(window_address + 4)
            with m.State("ANSWER"):
                with m.If(bus.rready):
                    m.d.sync += bus.rvalid.eq(0)
                    m.next = "IDLE"
