"""The accelerator: the core with external memory on one side and a host on the other."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from ..axi.bus import LiteSignature, ReadSignature, WriteSignature, connect_flat, flat_members
from ..axi.control import ControlPort
from ..axi.descriptor import Target as FetchTarget
from ..axi.fetch import FetchEngine
from ..axi.onchip import OnChipMemory
from ..axi.register_map import ADDRESS_BITS, ErrorCode
from ..axi.store import ResultStore
from ..axi.watchdog import Watchdog
from .core import EVENTS, Core, target_depths, target_widths
from .machine import Machine

__all__ = ["COUNTERS", "PEAKS", "Accelerator"]

PEAKS = {
    f"PEAK_{port}_WORDS": f"{port}_WORDS" for port in ("TOKEN", "QUERY", "WEIGHT", "KEY", "VALUE")
}
"""Registers that show the most of an event that one cycle of a run has brought."""

COUNTERS = (
    "CYCLES", *EVENTS, "READ_BEATS", "FETCH_WAITS", "MEMORY_WAITS", "WRITTEN_BEATS", *PEAKS,
)  # fmt: skip
"""Performance counters of a run, in the order of the register map."""


class Accelerator(wiring.Component):
    """AXI4 master ``memory_*``, AXI4-Lite slave ``control_*``, and an interrupt.

    With ``machine.memory`` KiB of memory on the chip there is no master; the host fills that memory
    through the slave.

    A start boots if nothing is loaded, then takes images from memory, one behind the other, and
    sends the results of each. A Machine fixes sizes and cycles, never results.

    The start is cycle 0 of a run. The programs run from the cycle in which boot is over, or from
    cycle 1; CYCLES counts up to the one in which memory has acknowledged the last results.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        members = (
            {}
            if machine.memory
            else flat_members(
                "memory", ReadSignature(machine.port_bits), WriteSignature(machine.port_bits)
            )
        )
        control = flat_members("control", LiteSignature(ADDRESS_BITS))
        super().__init__(
            {
                **members,
                **{name: member.flip() for name, member in control.items()},
                "interrupt": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        machine = self.machine
        digest = int(machine.digest[:8], 16)
        m.submodules.control = control = ControlPort(
            counters=COUNTERS, machine_digest=digest, memory_window=bool(machine.memory)
        )
        m.submodules.fetch = fetch = FetchEngine(
            port_bits=machine.port_bits,
            widths={int(target): width for target, width in target_widths(machine).items()},
            depths={
                int(FetchTarget.FETCH_PROGRAM): machine.buffers.fetches,
                **{int(target): depth for target, depth in target_depths(machine).items()},
            },
            machine_digest=digest,
            outstanding=machine.outstanding,
            experts=machine.buffers.experts,
        )
        m.submodules.store = store = ResultStore(
            port_bits=machine.port_bits,
            cols=machine.cols,
            rows=machine.result_words,
            code_bits=machine.arithmetic.result_bits,
        )
        core = Core(machine)
        m.submodules.core = ResetInserter(control.soft_reset)(core)
        connect_flat(m, self, "control", control.bus)
        m.submodules.watchdog = watchdog = Watchdog()
        m.d.comb += [watchdog.limit.eq(control.watchdog), watchdog.clear.eq(control.soft_reset)]
        for port, engine in (("read", fetch), ("write", store)):
            m.d.comb += [
                getattr(watchdog, f"{port}_outstanding").eq(engine.outstanding),
                getattr(watchdog, f"{port}_beat").eq(engine.beat),
                getattr(watchdog, f"{port}_address").eq(engine.waiting_address),
            ]
        if machine.memory:
            m.submodules.memory = memory = OnChipMemory(
                size=machine.memory * 1024, port_bits=machine.port_bits
            )
            wiring.connect(m, fetch.memory, memory.read)
            wiring.connect(m, store.memory, memory.write)
            m.d.comb += [
                memory.window_address.eq(control.window_address),
                memory.window_write.eq(control.window_write),
                memory.window_enable.eq(control.window_enable),
                memory.window_read.eq(control.window_read),
                control.window_data.eq(memory.window_data),
            ]
        else:
            connect_flat(m, self, "memory", fetch.memory)
            connect_flat(m, self, "memory", store.memory)

        # A run: from the start to the last acknowledgement, an error or a soft reset.
        running, armed, start = Signal(), Signal(), Signal()
        error, error_address = Signal(4), Signal(64)
        stored = Signal(16)
        last = Signal()
        m.d.comb += [
            error.eq(fetch.error | store.error),
            error_address.eq(fetch.error_address),
            start.eq(control.start & ((error == ErrorCode.NONE) | control.soft_reset)),
            last.eq(store.done & (stored + 1 >= control.count)),
            core.run.eq(armed & fetch.booted),
            core.clear.eq(start),
            core.images.eq(control.count),
        ]
        with m.If(store.error != ErrorCode.NONE):
            m.d.comb += [error.eq(store.error), error_address.eq(store.error_address)]
        with m.Elif(watchdog.expired & (fetch.error == ErrorCode.NONE)):
            m.d.comb += [error.eq(ErrorCode.WATCHDOG), error_address.eq(watchdog.address)]
        done = Signal()
        with m.If(store.done):
            m.d.sync += stored.eq(stored + 1)
        with m.If(core.run):
            m.d.sync += armed.eq(0)
        with m.If(last):
            m.d.sync += [running.eq(0), done.eq(1)]
        with m.If(control.soft_reset | (error != ErrorCode.NONE)):
            m.d.sync += [running.eq(0), armed.eq(0)]
        with m.If(control.soft_reset):
            m.d.sync += done.eq(0)
        with m.If(start):
            m.d.sync += [running.eq(1), armed.eq(1), done.eq(0), stored.eq(0)]

        if machine.buffers.experts:
            task, kept = Signal(8), Signal(8)
            with m.If(start):
                m.d.sync += kept.eq(control.task)
            m.d.comb += [
                task.eq(Mux(start, control.task, kept)),
                fetch.routed.eq(core.routed),
                fetch.queue_used.eq(core.queue_used),
                fetch.task.eq(task),
                core.task.eq(task),
            ]
        m.d.comb += [
            fetch.start.eq(start),
            fetch.soft_reset.eq(control.soft_reset),
            fetch.reload.eq(control.options[0]),
            fetch.parameters.eq(control.parameters),
            fetch.images.eq(control.images),
            fetch.image_pitch.eq(control.image_pitch),
            fetch.count.eq(control.count),
            fetch.products.eq(core.issued),
            core.fetched.eq(fetch.fetches),
            core.write.enable.eq(fetch.write_enable),
            core.write.address.eq(fetch.write_address),
            core.write.data.eq(fetch.write_data),
            store.start.eq(core.results_ready),
            store.soft_reset.eq(control.soft_reset),
            store.first.eq(stored == 0),
            store.row.eq(0),
            store.results_address.eq(control.results),
            store.pitch.eq(control.result_pitch),
            store.count.eq(core.results),
            store.row_data.eq(core.result_chunk),
            core.result_row.eq(store.row_address),
            core.result_enable.eq(store.row_enable),
            core.hold.eq(store.busy),
            control.busy.eq(running),
            control.done.eq(done),
            control.paused.eq(core.paused),
            control.error.eq(error),
            control.error_address.eq(error_address),
            control.product.eq(core.product),
            control.program_digest.eq(fetch.program_digest),
            core.break_at.eq(control.break_product),
            core.resume.eq(control.resume),
            core.debug_memory.eq(control.debug_memory),
            core.debug_word.eq(control.debug_word),
            control.debug_data.eq(core.debug_data.word_select(control.debug_slice, 32)),
            self.interrupt.eq(control.interrupt),
        ]

        # Performance counters.
        counted = {"CYCLES": running} | {
            name: Mux(running, core.events[name], 0) for name in EVENTS
        }
        counters = {
            "READ_BEATS": fetch.read_beats,
            "FETCH_WAITS": fetch.product_waits,
            "MEMORY_WAITS": fetch.memory_waits,
            "WRITTEN_BEATS": store.written_beats,
        }
        for name, amount in counted.items():
            counters[name] = Signal(32, name=name.lower())
            with m.If(start):
                m.d.sync += counters[name].eq(0)
            with m.Else():
                m.d.sync += counters[name].eq(counters[name] + amount)
        for name, event in PEAKS.items():
            peak = Signal(len(counted[event]), name=name.lower())
            counters[name] = Signal(32, name=f"{name.lower()}_register")
            m.d.comb += counters[name].eq(peak)
            with m.If(start):
                m.d.sync += peak.eq(0)
            with m.Elif(counted[event] > peak):
                m.d.sync += peak.eq(counted[event])
        m.d.comb += control.counters.eq(Cat(counters[name] for name in COUNTERS))
        return m
