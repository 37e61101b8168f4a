"""Reads runs of beats from memory: splits them into bursts, keeps several in flight."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from .bus import ReadSignature, beat_bytes, border_beats, check_outstanding

__all__ = ["BEATS_BITS", "BurstReader"]

BEATS_BITS = 24


class BurstReader(wiring.Component):
    """Turns requests into bursts and gives their beats in order; the taker has room for all.

    Bursts end at borders of `bus.border_beats` beats. A request taken in cycle t puts its first
    burst into the AR register at the end of cycle t + 1 at the earliest, so ``arvalid`` shows in
    t + 2; its other bursts follow in the cycles in which the AR before them is accepted. A burst
    enters the AR register only while fewer than ``outstanding`` bursts are in flight, which they
    are from the cycle after that until the cycle of their last beat. The next request is taken in
    the cycle after the one that puts in the last burst, at the earliest.

    A beat is given in its own cycle of R. After ``soft_reset`` the request is forgotten; a burst in
    the AR register is still issued, and beats of bursts in flight are taken and not given, until
    ``quiet``; no request is taken before.

    Parameters
    ----------
    port_bits : 64, 128, 256 or 512.
    tag_bits : width of what a request carries to its beats, at least 1.
    outstanding : bursts in flight, 1 to 16.

    Members
    -------
    requests : In, stream of ``address`` (in beats), ``beats`` (at least 1) and ``tag``
    soft_reset : In, strobe
    memory : Out, `ReadSignature`
    valid, data, tag, first, last : Out, a beat; whether it is its request's first or last one
    failed : Out, the beat given carries an error response
    outstanding : Out, bursts are in flight
    burst_address : Out, byte address of the burst whose beat comes next, while outstanding
    quiet : Out, nothing is outstanding and no request is held

    Raises
    ------
    ValueError
        A parameter is out of range.
    """

    def __init__(self, *, port_bits: int, tag_bits: int, outstanding: int) -> None:
        if tag_bits < 1:
            raise ValueError(f"tag_bits: expected at least 1, got {tag_bits!r}")
        self.limit = check_outstanding(outstanding)
        self.port_bits, self.tag_bits = port_bits, tag_bits
        self.low_bits = beat_bytes(port_bits).bit_length() - 1
        self.address_bits = 64 - self.low_bits
        request = data.StructLayout(
            {
                "address": unsigned(self.address_bits),
                "beats": unsigned(BEATS_BITS),
                "tag": unsigned(tag_bits),
            }
        )
        super().__init__(
            {
                "requests": In(stream.Signature(request)),
                "soft_reset": In(1),
                "memory": Out(ReadSignature(port_bits)),
                "valid": Out(1),
                "data": Out(port_bits),
                "tag": Out(tag_bits),
                "first": Out(1),
                "last": Out(1),
                "failed": Out(1),
                "outstanding": Out(1),
                "burst_address": Out(64),
                "quiet": Out(1),
            }
        )
        # What proofs look at.
        self._held, self._left = Signal(), Signal(BEATS_BITS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.memory
        border = border_beats(self.port_bits)
        within = border.bit_length() - 1

        # The request that is being split.
        held, first, left = self._held, Signal(), self._left
        address = Signal(self.address_bits)
        tag = Signal(self.tag_bits)
        room, length = Signal(within + 1), Signal(within + 1)
        final = Signal()
        flight = Signal(range(self.limit + 1))
        discarding = Signal()
        issue, arrived = Signal(), Signal()
        m.d.comb += [
            room.eq(border - address[:within]),
            final.eq(left <= room),
            length.eq(Mux(final, left, room)),
            issue.eq(held & (~bus.arvalid | bus.arready) & (flight < self.limit)),
            arrived.eq(bus.rvalid & bus.rlast),
            self.requests.ready.eq(~held & ~discarding),
            bus.arsize.eq(self.low_bits),
            bus.rready.eq(1),
        ]
        with m.If(self.requests.valid & self.requests.ready):
            m.d.sync += [
                held.eq(1),
                first.eq(1),
                address.eq(self.requests.payload.address),
                left.eq(self.requests.payload.beats),
                tag.eq(self.requests.payload.tag),
            ]
        with m.If(bus.arready):
            m.d.sync += bus.arvalid.eq(0)
        with m.If(issue):
            m.d.sync += [
                bus.arvalid.eq(1),
                bus.araddr.eq(Cat(Const(0, self.low_bits), address)),
                bus.arlen.eq(length - 1),
                # What follows begins at a border.
                address.eq(Cat(Const(0, within), address[within:] + 1)),
                left.eq(left - length),
                first.eq(0),
                held.eq(~final),
            ]
        m.d.sync += flight.eq(flight + issue - arrived)

        # What is known of each burst in flight, in order.
        entry = data.StructLayout(
            {
                "address": unsigned(self.address_bits),
                "first": unsigned(1),
                "last": unsigned(1),
                "tag": unsigned(self.tag_bits),
            }
        )
        m.submodules.bursts = bursts = memory.Memory(shape=entry, depth=16, init=[])
        write, read = bursts.write_port(), bursts.read_port(domain="comb")
        begun = Signal()
        m.d.comb += [
            write.en.eq(issue),
            write.data.address.eq(address),
            write.data.first.eq(first),
            write.data.last.eq(final),
            write.data.tag.eq(tag),
        ]
        with m.If(issue):
            m.d.sync += write.addr.eq(write.addr + 1)
        with m.If(arrived):
            m.d.sync += read.addr.eq(read.addr + 1)
        with m.If(bus.rvalid):
            m.d.sync += begun.eq(~bus.rlast)
        m.d.comb += [
            self.valid.eq(bus.rvalid & ~discarding),
            self.data.eq(bus.rdata),
            self.tag.eq(read.data.tag),
            self.first.eq(read.data.first & ~begun),
            self.last.eq(read.data.last & bus.rlast),
            self.failed.eq(bus.rresp[1]),
            self.outstanding.eq(flight != 0),
            self.burst_address.eq(Cat(Const(0, self.low_bits), read.data.address)),
            self.quiet.eq(~held & ~self.outstanding),
        ]

        with m.If(discarding & self.quiet):
            m.d.sync += discarding.eq(0)
        with m.If(self.soft_reset):
            m.d.sync += [discarding.eq(1), held.eq(0)]
            # The request of this cycle is forgotten too, but not a burst that is just put in.
        return m
