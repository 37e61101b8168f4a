"""The fetch engine: executes the descriptors that bring programs, weights and images on chip."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..ram import Ram
from .bus import ReadSignature, check_outstanding, check_port_bits
from .descriptor import (
    DESCRIPTOR_BITS,
    DESCRIPTOR_LAYOUT,
    HEADER_BYTES,
    HEADER_LAYOUT,
    MAGIC,
    TASKS,
    Opcode,
    Space,
    Target,
    beats_per_word,
)
from .reader import BEATS_BITS, BurstReader
from .register_map import ErrorCode

__all__ = ["COMPLETION", "FetchEngine"]

COMPLETION = 2
"""Cycles from a fetch's last beat to the first cycle in which it is counted and can be read."""

_HEADER = 15
"""The target of the header's beats; no memory has this number."""


class FetchEngine(wiring.Component):
    """Boots, then executes the fetches of one image after another from a memory of its own.

    A start with nothing loaded, or with ``reload``, boots: it reads the header at ``parameters``,
    checks it, loads the fetch program and runs it from 0. STOP waits until all words are written
    and raises ``booted``. Any other start begins behind STOP. At LOOP the next image begins at
    once, until there have been ``count``; then ``busy`` falls when the last word is written.

    A FETCH goes to the reader as soon as the one before has put its last burst into the AR
    register, while its beats are still to come, and (with ``wait``) ``products`` has reached the
    threshold. Words are written in order: the last beat of a word arrives in cycle r, ``write_*``
    show it in r + 1, and a read in r + 2 finds it; ``fetches`` counts the fetch from r + 2 on.
    `fetch_timeline` states all cycles.

    With ``experts``, a FETCH with an expert also waits until ``routed`` has reached its threshold.
    From the cycle p in which all that it waits for is there until it leaves, its expert's bit of
    ``queue_used`` must stay. If the queue is empty it is skipped: it leaves in p, whatever the
    reader does, asks memory for nothing, and is counted as if its last beat came in p, but no
    earlier than any fetch before it. So fetches are counted in order, several at once where one
    that completes has skipped ones behind it, and no later fetch is held up. A FETCH ``by_task``
    goes to the reader no earlier than in its second cycle at the head; in the first one its beats
    are multiplied by ``task``. If there is no such task, that is an error.

    An error stops the engine: nothing is fetched or counted any more, what is outstanding is
    drained, ``error`` and ``error_address`` stay. ``soft_reset`` ends any state: outstanding beats
    are taken, then it is ``quiet``, with nothing loaded; a start before that waits for it.

    Parameters
    ----------
    port_bits : 64, 128, 256 or 512.
    widths : bits per word of each target but FETCH_PROGRAM. A word takes whole beats.
    depths : words of each target, FETCH_PROGRAM included.
    machine_digest : 32 bits that the header must carry.
    outstanding : bursts in flight, 1 to 16.
    experts : queues of tokens that fetches can depend on, 0 to 255. With 0 a descriptor's expert,
        routed_threshold and by_task are ignored, and routed, queue_used and task do not exist.

    Members
    -------
    start, soft_reset : In, strobes; reload : In, sampled with start
    parameters, images (byte addresses), image_pitch (bytes), count : In, stable while busy
    products : In, products issued; 0 from the cycle after start, then it only grows, modulo 2**24
    routed : In, tokens routed; as ``products``
    queue_used : In, one bit per expert: its queue is not empty; looked at as said above
    task : In, sampled with start, as reload
    memory : Out, `ReadSignature`
    write_enable (one bit per target), write_address, write_data : Out, shared by the memories,
        which take the low bits they need
    fetches : Out, fetches of images completed since start, modulo 2**24
    booted, busy, quiet : Out, levels
    error (`ErrorCode`), error_address, program_digest : Out
    outstanding, beat, waiting_address : Out, bursts in flight, a beat arrives, address of the burst
    read_beats, product_waits, memory_waits : Out, since start: beats read; cycles in which the
        fetch at the head waits for ``products`` or ``routed``; cycles with bursts in flight and no
        beat

    Raises
    ------
    ValueError
        A parameter is out of range or a target lacks a width or a depth.
    """

    def __init__(
        self,
        *,
        port_bits: int,
        widths: Mapping[int, int],
        depths: Mapping[int, int],
        machine_digest: int,
        outstanding: int = 8,
        experts: int = 0,
    ) -> None:
        self.port_bits = check_port_bits(port_bits)
        self.widths = {int(target): width for target, width in sorted(widths.items())}
        self.widths[int(Target.FETCH_PROGRAM)] = DESCRIPTOR_BITS
        self.depths = {int(target): depth for target, depth in sorted(depths.items())}
        if set(self.widths) != set(self.depths):
            raise ValueError(
                f"depths: expected targets {sorted(self.widths)}, got {sorted(self.depths)}"
            )
        if not set(self.widths) <= set(range(_HEADER)):
            raise ValueError(f"widths: expected targets 0 to 14, got {sorted(self.widths)}")
        if min(self.widths.values()) < 1:
            raise ValueError(f"widths: expected at least 1 bit each, got {self.widths}")
        if not 0 <= machine_digest < 1 << 32:
            raise ValueError(f"machine_digest: expected 32 bits, got {machine_digest!r}")
        if not 0 <= experts <= 255:
            raise ValueError(f"experts: expected 0 to 255, got {experts!r}")
        self.experts = experts
        self.machine_digest, self.limit = machine_digest, check_outstanding(outstanding)
        self.word_beats = {
            **{target: beats_per_word(width, port_bits) for target, width in self.widths.items()},
            _HEADER: beats_per_word(8 * HEADER_BYTES, port_bits),
        }
        self.parts = max(self.word_beats.values())
        conditions = {"routed": In(24), "queue_used": In(experts), "task": In(8)}
        super().__init__(
            {
                "start": In(1),
                "soft_reset": In(1),
                "reload": In(1),
                "parameters": In(64),
                "images": In(64),
                "image_pitch": In(32),
                "count": In(32),
                "products": In(24),
                **(conditions if experts else {}),
                "memory": Out(ReadSignature(port_bits)),
                "write_enable": Out(max(self.widths) + 1),
                "write_address": Out(range(max(2, *self.depths.values()))),
                "write_data": Out(self.parts * port_bits),
                "fetches": Out(24),
                "booted": Out(1),
                "busy": Out(1),
                "quiet": Out(1),
                "error": Out(4),
                "error_address": Out(64),
                "program_digest": Out(32),
                "outstanding": Out(1),
                "beat": Out(1),
                "waiting_address": Out(64),
                "read_beats": Out(32),
                "product_waits": Out(32),
                "memory_waits": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = {"target": unsigned(4), "destination": unsigned(24)}
        if self.experts:
            # The number of the fetch among the images' fetches.
            fields["number"] = unsigned(24)
        tag_layout = data.StructLayout(fields)
        m.submodules.reader = reader = BurstReader(
            port_bits=self.port_bits, tag_bits=tag_layout.size, outstanding=self.limit
        )
        wiring.connect(m, reader.memory, wiring.flipped(self.memory))
        failure, stop = Signal(), Signal()
        m.d.comb += [
            failure.eq(reader.valid & reader.failed),
            stop.eq(self.soft_reset | failure),
            reader.soft_reset.eq(stop),
            self.outstanding.eq(reader.outstanding),
            self.beat.eq(reader.memory.rvalid),
            self.waiting_address.eq(reader.burst_address),
        ]

        header_done, request_done = self._assemble(
            m, reader, data.View(tag_layout, reader.tag), stop
        )
        written = Signal()
        m.d.comb += [
            written.eq(reader.quiet & ~request_done),
            self.quiet.eq(written),
        ]

        # The program: `head` is the descriptor to execute, `following` the address behind it.
        depth = max(2, self.depths[Target.FETCH_PROGRAM])
        m.submodules.program = program = Ram(width=DESCRIPTOR_BITS, depth=depth)
        following, first_of_image = Signal(range(depth)), Signal(range(depth))
        head = Signal(DESCRIPTOR_LAYOUT)
        known, fresh, jump, pop, load = Signal(), Signal(), Signal(), Signal(), Signal()
        base, limit = Signal(24), Signal(24)
        coming = data.View(DESCRIPTOR_LAYOUT, program.read_data)
        wrong, missing = Signal(), Signal()
        task = Signal(8)
        m.d.comb += [
            program.write_enable.eq(self.write_enable[Target.FETCH_PROGRAM]),
            program.write_address.eq(self.write_address),
            program.write_data.eq(self.write_data),
            program.read_address.eq(following),
            load.eq(fresh & (~known | pop)),
        ]
        m.d.sync += fresh.eq(~load & ~jump)
        with m.If(pop | jump):
            m.d.sync += known.eq(0)
        with m.If(load & ~jump):
            m.d.sync += [
                known.eq(1),
                head.eq(coming),
                limit.eq(base + coming.threshold),
                wrong.eq(self._refused(coming)),
                following.eq(following + 1),
            ]
            if self.experts:
                m.d.sync += missing.eq(coming.by_task & (task > coming.last_task))

        image_address, index = Signal(64), Signal(32)
        header = data.View(HEADER_LAYOUT, self.write_data[: HEADER_LAYOUT.size])
        program_beats, program_offset = Signal(BEATS_BITS), Signal(32)
        reached, blocked = Signal(), Signal()
        request, tag = reader.requests, Signal(tag_layout)
        low = reader.low_bits
        m.d.comb += [
            reached.eq(~(self.products - limit)[23]),
            request.payload.tag.eq(tag),
        ]
        loaded, pending = Signal(), Signal()
        begin = Signal()
        waits: Value = head.wait & ~reached
        asks: Value = ~blocked
        leaves: Value = ~blocked & request.ready
        offset: Value = head.offset
        if self.experts:
            routed_base, routed_limit = Signal(24), Signal(24)
            late, used = Signal(), Signal()
            displacement = Signal(32)
            with m.If(load & ~jump):
                m.d.sync += routed_limit.eq(routed_base + coming.routed_threshold)
            m.d.comb += [
                late.eq((head.expert != 0) & (self.routed - routed_limit)[23]),
                used.eq((Cat(1, self.queue_used) >> head.expert)[0]),
            ]
            m.d.sync += displacement.eq(task[: (TASKS - 1).bit_length()] * head.beats)
            waits |= late
            # `fresh` is low in the head's first cycle, in which there is no displacement yet.
            asks &= used & (fresh | ~head.by_task)
            leaves = ~blocked & ~used | asks & request.ready
            offset = head.offset + Mux(head.by_task, displacement, 0)

        def end_of_state() -> None:
            """What ends any state, and wins over what the state says itself."""
            with m.If(failure):
                m.d.sync += [
                    self.error.eq(ErrorCode.READ),
                    self.error_address.eq(reader.burst_address),
                ]
                m.next = "ERROR"
            with m.If(self.soft_reset):
                m.d.sync += [
                    self.error.eq(ErrorCode.NONE),
                    self.booted.eq(0),
                    loaded.eq(0),
                    pending.eq(self.start),
                ]
                m.next = "DRAIN"

        with m.FSM() as fsm:
            with m.State("IDLE"):
                with m.If(self.start | pending):
                    m.d.comb += [begin.eq(1), jump.eq(1)]
                    m.d.sync += [pending.eq(0), following.eq(first_of_image)]
                    m.next = "RUN"
                    with m.If(~loaded | self.reload):
                        m.d.sync += [loaded.eq(0), self.booted.eq(0)]
                        m.next = "HEADER"
                end_of_state()
            with m.State("HEADER"):
                m.d.comb += [
                    request.valid.eq(1),
                    request.payload.address.eq(self.parameters[low:]),
                    request.payload.beats.eq(self.word_beats[_HEADER]),
                    tag.target.eq(_HEADER),
                ]
                with m.If(request.ready):
                    m.next = "CHECK"
                end_of_state()
            with m.State("CHECK"):
                m.d.sync += [
                    program_beats.eq(header.beats),
                    program_offset.eq(header.offset),
                    self.program_digest.eq(header.program),
                ]
                with m.If(header_done):
                    m.next = "PROGRAM"
                    with m.If(
                        (header.magic != MAGIC)
                        | (header.machine != self.machine_digest)
                        | (header.beats == 0)
                        | (header.beats[BEATS_BITS:] != 0)
                    ):
                        m.d.sync += [
                            self.error.eq(ErrorCode.FOREIGN),
                            self.error_address.eq(self.parameters),
                        ]
                        m.next = "ERROR"
                end_of_state()
            with m.State("PROGRAM"):
                m.d.comb += [
                    request.valid.eq(1),
                    request.payload.address.eq(self.parameters[low:] + program_offset),
                    request.payload.beats.eq(program_beats),
                    tag.target.eq(Target.FETCH_PROGRAM),
                ]
                with m.If(request.ready):
                    m.next = "LOAD"
                end_of_state()
            with m.State("LOAD"):
                with m.If(request_done):
                    m.d.comb += jump.eq(1)
                    m.d.sync += following.eq(0)
                    m.next = "RUN"
                end_of_state()
            with m.State("RUN"):
                m.d.comb += [
                    request.payload.address.eq(
                        Mux(
                            head.space == Space.IMAGE,
                            image_address[low:],
                            self.parameters[low:],
                        )
                        + offset
                    ),
                    request.payload.beats.eq(head.beats),
                    tag.target.eq(head.target),
                    tag.destination.eq(head.destination),
                ]
                with m.If(known):
                    with m.If(wrong | missing):
                        m.d.sync += [
                            self.error.eq(Mux(wrong, ErrorCode.FOREIGN, ErrorCode.TASK)),
                            self.error_address.eq(self.parameters),
                        ]
                        m.next = "ERROR"
                    with m.Elif(head.opcode == Opcode.FETCH):
                        m.d.comb += [
                            blocked.eq(waits),
                            request.valid.eq(asks),
                            pop.eq(leaves),
                        ]
                    with m.Elif(head.opcode == Opcode.LOOP):
                        m.d.comb += jump.eq(1)
                        m.d.sync += [
                            following.eq(first_of_image),
                            base.eq(base + head.threshold),
                            image_address.eq(image_address + self.image_pitch),
                            index.eq(index + 1),
                        ]
                        if self.experts:
                            m.d.sync += routed_base.eq(routed_base + head.routed_threshold)
                        with m.If(index + 1 >= self.count):
                            m.next = "FINISH"
                    with m.Elif(written):
                        m.d.comb += pop.eq(1)
                        m.d.sync += [
                            loaded.eq(1),
                            self.booted.eq(1),
                            first_of_image.eq(following),
                        ]
                end_of_state()
            with m.State("FINISH"):
                with m.If(written):
                    m.next = "IDLE"
                end_of_state()
            with m.State("ERROR"):
                end_of_state()
            with m.State("DRAIN"):
                with m.If(self.start):
                    m.d.sync += pending.eq(1)
                with m.If(written):
                    m.next = "IDLE"
                end_of_state()
        m.d.comb += self.busy.eq(
            pending | ~(fsm.ongoing("IDLE") | fsm.ongoing("ERROR") | fsm.ongoing("DRAIN"))
        )

        if self.experts:
            # What is in front of the oldest request that is not complete.
            number, held_number = Signal(24), Signal(24)
            m.d.comb += tag.number.eq(number)
            with m.If(pop & self.booted):
                m.d.sync += number.eq(number + 1)
            with m.If(request.valid & request.ready):
                m.d.sync += held_number.eq(number)
            with m.If(fsm.ongoing("RUN") | fsm.ongoing("FINISH")):
                m.d.sync += self.fetches.eq(number)
                with m.If(~request.ready):
                    m.d.sync += self.fetches.eq(held_number)
                with m.If(reader.outstanding):
                    m.d.sync += self.fetches.eq(data.View(tag_layout, reader.tag).number)
            with m.If(begin):
                m.d.sync += [number.eq(0), routed_base.eq(0), task.eq(self.task)]
        else:
            with m.If(request_done & self.booted):
                m.d.sync += self.fetches.eq(self.fetches + 1)
        for counter, event in (
            (self.read_beats, reader.valid),
            (self.product_waits, blocked),
            (self.memory_waits, self.busy & self.outstanding & ~self.beat),
        ):
            with m.If(event):
                m.d.sync += counter.eq(counter + 1)
        with m.If(begin):
            m.d.sync += [
                register.eq(0)
                for register in (
                    self.fetches, self.read_beats, self.product_waits, self.memory_waits,
                    base, index,
                )
            ]  # fmt: skip
            m.d.sync += image_address.eq(self.images)
        return m

    def _refused(self, descriptor: data.View) -> Value:
        """Whether a descriptor is one that this engine cannot execute."""
        known = Cat(descriptor.target == target for target in self.widths).any()
        fetch = descriptor.opcode == Opcode.FETCH
        bad = ~known | (descriptor.beats == 0)
        if 0 < self.experts < 255:
            bad |= descriptor.expert > self.experts
        return (descriptor.opcode > Opcode.LOOP) | (fetch & bad)

    def _assemble(
        self, m: Module, reader: BurstReader, tag: data.View, stop: Signal
    ) -> tuple[Signal, Signal]:
        """Puts beats into words and drives the write port.

        Returns strobes beside ``write_enable``: the header is complete; a request is complete.
        """
        index, expected, last = (
            Signal(range(self.parts), name=name) for name in ("index", "expected", "last")
        )
        address, next_address = Signal(24), Signal(24)
        complete = Signal()
        with m.Switch(tag.target):
            for target, beats in self.word_beats.items():
                with m.Case(target):
                    m.d.comb += last.eq(beats - 1)
        m.d.comb += [
            index.eq(Mux(reader.first, 0, expected)),
            address.eq(Mux(reader.first, tag.destination, next_address)),
            complete.eq(reader.valid & (index == last) & ~stop),
        ]
        parts = [Signal(self.port_bits, name=f"part{number}") for number in range(self.parts)]
        m.d.comb += self.write_data.eq(Cat(*parts))
        with m.If(reader.valid):
            for number, part in enumerate(parts):
                with m.If(index == number):
                    m.d.sync += part.eq(reader.data)
            m.d.sync += [
                expected.eq(Mux(index == last, 0, index + 1)),
                next_address.eq(address + (index == last)),
                self.write_address.eq(address),
            ]
        for target in self.widths:
            m.d.sync += self.write_enable[target].eq(complete & (tag.target == target))
        header_done, request_done = Signal(), Signal()
        m.d.sync += [
            header_done.eq(complete & (tag.target == _HEADER)),
            request_done.eq(reader.valid & reader.last & ~stop),
        ]
        return header_done, request_done
