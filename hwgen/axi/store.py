"""Writes the results of an image to memory, and when it does so."""

from __future__ import annotations

from collections import deque
from math import gcd

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from .bus import WriteSignature, beat_bytes, border_beats, check_outstanding
from .memory_model import MemoryModel
from .register_map import ErrorCode

__all__ = ["CODE_BITS", "COUNT_BITS", "ResultStore", "StoreTimeline"]

CODE_BITS = 16
COUNT_BITS = 24


def _group(port_bits: int, cols: int, code_bits: int) -> int:
    """Codes that move in a cycle: both a row of the result memory and a beat hold whole groups."""
    return gcd(cols, port_bits // code_bits)


def _checked(code_bits: int) -> int:
    if code_bits not in (16, 32):
        raise ValueError(f"code_bits: expected 16 or 32, got {code_bits!r}")
    return code_bits


class ResultStore(wiring.Component):
    """Reads rows of `cols` codes, packs them into beats, writes those as bursts.

    Results of the first image of a run go to ``results_address``, each next image's ``pitch``
    further. A group of gcd(cols, codes per beat) codes moves in a cycle, so that where one of the
    two divides the other either a row or a beat moves in each. Codes behind the last one in its
    beat are not written (wstrb). The data of a burst are offered from the second cycle after its
    address was accepted; the address of the next burst follows when the last beat is in the data
    register. `StoreTimeline` states all cycles.

    An error response sets ``error``; what is begun of bursts is completed without writing (wstrb 0)
    and ``done`` does not come. So it is with ``soft_reset``, which also clears the error. A start
    is ignored while ``busy`` or in error.

    Parameters
    ----------
    port_bits : 64, 128, 256 or 512.
    cols : codes per row of the result memory.
    rows : rows of the result memory.
    outstanding : bursts whose answer is awaited, 1 to 16.
    code_bits : 16 or 32.

    Members
    -------
    start, soft_reset : In, strobes
    first (the run's first image), row (the memory's first row), results_address, pitch (bytes,
        multiples of a beat), count (codes) : In, sampled with start
    memory : Out, `WriteSignature`
    row_address, row_enable : Out; row_data : In, one cycle later, held while not enabled
    taken : Out, strobe: the last row has been read and may be written from the next cycle on
    done : Out, strobe: memory has answered for all bursts
    busy, quiet : Out, levels; quiet: nothing is outstanding
    error (`ErrorCode`), error_address : Out
    outstanding, beat, waiting_address : Out, for the watchdog: bursts are in flight; one of them
        went on in this cycle; the address of the oldest
    written_beats : Out, of this run

    Raises
    ------
    ValueError
        A parameter is out of range.
    """

    def __init__(
        self,
        *,
        port_bits: int,
        cols: int,
        rows: int,
        outstanding: int = 4,
        code_bits: int = CODE_BITS,
    ) -> None:
        if cols < 1:
            raise ValueError(f"cols: expected at least 1, got {cols!r}")
        if rows < 2:
            raise ValueError(f"rows: expected at least 2, got {rows!r}")
        self.limit = check_outstanding(outstanding)
        self.code_bits = _checked(code_bits)
        self.port_bits, self.cols, self.rows = port_bits, cols, rows
        self.group = _group(port_bits, cols, code_bits)
        self.low_bits = beat_bytes(port_bits).bit_length() - 1
        super().__init__(
            {
                "start": In(1),
                "soft_reset": In(1),
                "first": In(1),
                "row": In(range(rows)),
                "results_address": In(64),
                "pitch": In(32),
                "count": In(COUNT_BITS),
                "memory": Out(WriteSignature(port_bits)),
                "row_address": Out(range(rows)),
                "row_enable": Out(1),
                "row_data": In(cols * code_bits),
                "taken": Out(1),
                "done": Out(1),
                "busy": Out(1),
                "quiet": Out(1),
                "error": Out(4),
                "error_address": Out(64),
                "outstanding": Out(1),
                "beat": Out(1),
                "waiting_address": Out(64),
                "written_beats": Out(32),
            }
        )
        # What proofs look at.
        self._left, self._asks, self._opens = Signal(COUNT_BITS), Signal(), Signal()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.memory
        address_bits = 64 - self.low_bits
        border = border_beats(self.port_bits)
        within = border.bit_length() - 1
        codes = self.port_bits // self.code_bits
        code_bits = codes.bit_length() - 1
        byte_bits = self.code_bits.bit_length() - 4  # of a code's bytes

        flush, failed = Signal(), Signal()
        accepted = Signal()
        begin = Signal()
        m.d.comb += [
            bus.awsize.eq(self.low_bits),
            bus.bready.eq(1),
            accepted.eq(bus.wvalid & bus.wready),
            failed.eq(bus.bvalid & bus.bresp[1]),
        ]

        # Bursts.
        base, address = Signal(64), Signal(address_bits)
        left = self._left
        room, length, burst_left = Signal(within + 1), Signal(within + 1), Signal(within + 1)
        last_codes = Signal(code_bits)
        flight = Signal(range(self.limit + 1))
        issue, load, group_last = Signal(), Signal(), Signal()
        m.d.comb += [
            room.eq(border - address[:within]),
            length.eq(Mux(left <= room, left, room)),
        ]
        start_base = Signal(64)
        m.d.comb += start_base.eq(Mux(self.first, self.results_address, base + self.pitch))
        free, in_burst = Signal(), Signal()
        m.d.comb += free.eq(~bus.wvalid | bus.wready)
        with m.FSM() as fsm:
            with m.State("IDLE"):
                with m.If(self.start & (self.error == 0) & ~self.soft_reset):
                    m.d.comb += begin.eq(1)
                    m.d.sync += [
                        base.eq(start_base),
                        address.eq(start_base[self.low_bits :]),
                        left.eq((self.count + (codes - 1)) >> code_bits),
                        last_codes.eq(self.count),
                        flush.eq(0),
                    ]
                    m.next = "FINISH"
                    with m.If(self.count != 0):
                        m.next = "ADDRESS"
            with m.State("ADDRESS"):
                with m.If(flush):
                    m.next = "FINISH"
                with m.Elif(flight < self.limit):
                    m.d.comb += issue.eq(1)
                    m.d.sync += [
                        bus.awvalid.eq(1),
                        bus.awaddr.eq(Cat(Const(0, self.low_bits), address)),
                        bus.awlen.eq(length - 1),
                        burst_left.eq(length),
                        left.eq(left - length),
                        # What follows begins at a border.
                        address.eq(Cat(Const(0, within), address[within:] + 1)),
                    ]
                    m.next = "OPEN"
            with m.State("OPEN"):
                with m.If(bus.awready):
                    m.d.sync += bus.awvalid.eq(0)
                    m.next = "BURST"
            with m.State("BURST"):
                m.d.comb += in_burst.eq(1)
                with m.If(load):
                    m.d.sync += burst_left.eq(burst_left - 1)
                    with m.If(burst_left == 1):
                        m.next = "ADDRESS"
                        with m.If(left == 0):
                            m.next = "FINISH"
            with m.State("FINISH"):
                with m.If((flight == 0) & ~bus.wvalid):
                    m.d.comb += self.done.eq(~flush)
                    m.next = "IDLE"
        m.d.sync += flight.eq(flight + issue - bus.bvalid)
        idle = fsm.ongoing("IDLE")
        m.d.comb += [
            self.busy.eq(~idle),
            self.quiet.eq(idle),
            self._asks.eq(fsm.ongoing("ADDRESS")),
            self._opens.eq(fsm.ongoing("OPEN")),
        ]

        # Groups of codes on their way from rows to beats.
        parts, slots = self.cols // self.group, codes // self.group
        next_row, part, slot = Signal(range(self.rows)), Signal(range(parts)), Signal(range(slots))
        groups = Signal(COUNT_BITS)
        known, advance, full = Signal(), Signal(), Signal()
        group = Signal(self.group * self.code_bits)
        group_shift = self.group.bit_length() - 1
        m.d.comb += [
            group_last.eq(groups == 1),
            full.eq((slot == slots - 1) | group_last),
            advance.eq(known & ~flush & (~full | (in_burst & free))),
            load.eq(in_burst & free & (flush | (known & full))),
            group.eq(self.row_data.word_select(part, len(group))),
            self.row_address.eq(next_row),
            self.row_enable.eq(
                (groups != 0) & (~known | (advance & (part == parts - 1) & ~group_last))
            ),
            self.taken.eq(advance & group_last),
        ]
        with m.If(advance):
            m.d.sync += [
                groups.eq(groups - 1),
                part.eq(Mux(part == parts - 1, 0, part + 1)),
                slot.eq(Mux(full, 0, slot + 1)),
            ]
            with m.If((part == parts - 1) | group_last):
                m.d.sync += known.eq(0)
        with m.If(self.row_enable):
            m.d.sync += [known.eq(1), next_row.eq(next_row + 1)]
        with m.If(begin):
            m.d.sync += [
                groups.eq((self.count + (self.group - 1)) >> group_shift),
                next_row.eq(self.row),
                part.eq(0),
                slot.eq(0),
                known.eq(0),
            ]

        # The data register.
        strobes = Signal(self.port_bits // 8)
        m.d.comb += strobes.eq(~0)
        with m.If(group_last & (last_codes != 0)):
            m.d.comb += strobes.eq((1 << Cat(Const(0, byte_bits), last_codes)) - 1)
        with m.If(accepted):
            m.d.sync += [bus.wvalid.eq(0), self.written_beats.eq(self.written_beats + 1)]
        for number in range(slots):
            kept = Signal(len(group), name=f"group{number}")
            place = bus.wdata.word_select(number, len(group))
            with m.If(advance & (slot == number)):
                m.d.sync += kept.eq(group)
            with m.If(load):
                m.d.sync += place.eq(Mux(slot == number, group, kept))
        with m.If(load):
            m.d.sync += [
                bus.wvalid.eq(1),
                bus.wlast.eq(burst_left == 1),
                bus.wstrb.eq(Mux(flush, 0, strobes)),
            ]
        with m.If(begin & self.first):
            m.d.sync += self.written_beats.eq(0)

        # The addresses of the bursts in flight, in order.
        entry = data.StructLayout({"address": unsigned(address_bits)})
        m.submodules.bursts = bursts = memory.Memory(shape=entry, depth=16, init=[])
        write, read = bursts.write_port(), bursts.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(issue),
            write.data.address.eq(address),
            self.waiting_address.eq(Cat(Const(0, self.low_bits), read.data.address)),
            self.outstanding.eq(flight != 0),
            self.beat.eq(accepted | (bus.awvalid & bus.awready) | bus.bvalid),
        ]
        with m.If(issue):
            m.d.sync += write.addr.eq(write.addr + 1)
        with m.If(bus.bvalid):
            m.d.sync += read.addr.eq(read.addr + 1)
        with m.If(failed & (self.error == 0) & ~flush):
            m.d.sync += [
                self.error.eq(ErrorCode.WRITE),
                self.error_address.eq(self.waiting_address),
                flush.eq(1),
            ]
        with m.If(self.soft_reset):
            m.d.sync += [self.error.eq(ErrorCode.NONE), flush.eq(1)]
        return m


class StoreTimeline:
    """The cycles of `ResultStore` on a memory with the rules of `MemoryModel`.

    Parameters
    ----------
    memory : the rules of the memory.
    port_bits, cols, outstanding, code_bits : as the store's.
    """

    def __init__(
        self,
        memory: MemoryModel,
        *,
        port_bits: int,
        cols: int,
        outstanding: int = 4,
        code_bits: int = CODE_BITS,
    ) -> None:
        self.memory = memory
        self.limit = check_outstanding(outstanding)
        self.bytes = beat_bytes(port_bits)
        self.border = border_beats(port_bits)
        self.codes = port_bits // _checked(code_bits)
        self.group = _group(port_bits, cols, code_bits)
        window = max(self.limit, memory.outstanding)
        self._answers = deque([-(1 << 62)] * window, maxlen=window)
        self._sent = -(1 << 62)
        self.taken = 0
        """The cycle of ``taken`` of the latest store."""

    def store(self, start: int, address: int, results: int) -> int:
        """``start`` in cycle ``start`` for an image whose results go to ``address``.

        Returns the cycle of ``done``; the next start is possible one cycle later.
        """
        if not results:
            return start + 1
        codes = self.codes
        slots = codes // self.group
        groups = -(-results // self.group)
        beats = -(-results // codes)
        gap, latency = self.memory.gap, self.memory.latency
        # The address register is loaded in the cycle after start, or after a burst's last beat.
        ready = start + 1
        loaded, sent = start + 1, self._sent
        room = self.border - address // self.bytes % self.border
        while beats:
            length = min(beats, room)
            issued = max(ready, self._answers[-self.limit] + 1)
            opened = max(issued + 1, self._answers[-self.memory.outstanding] + 1) + 1
            for _ in range(length):
                moved = min(slots, groups)
                groups -= moved
                loaded = max(loaded + moved, sent, opened)
                sent = max(loaded + 1, sent + gap + 1)
            self._answers.append(max(sent + latency, self._answers[-1] + 1))
            beats, room, ready = beats - length, self.border, loaded + 1
        self._sent = sent
        self.taken = loaded
        return self._answers[-1] + 1
