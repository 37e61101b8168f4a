"""The rules of AXI4 that this design keeps or relies on, watched cycle by cycle.

A component without influence: simulations put it beside a port and look at ``violations``, proofs
assert the bits of `MASTER_RULES` and assume those of the other side.
"""

from __future__ import annotations

from enum import IntEnum

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .bus import BORDER_BYTES, INCR, ReadSignature, WriteSignature, beat_bytes

__all__ = ["MASTER_RULES", "ProtocolMonitor", "Rule"]

_DEPTH = 32


class Rule(IntEnum):
    """What can be violated; the number of its bit. Sections are those of ARM IHI 0022."""

    READ_ADDRESS_HELD = 0
    """ARVALID and its payload stay until ARREADY (A3.2.1)."""
    READ_BURST = 1
    """INCR, full-width aligned beats, inside 4 KB (A3.4.1), id 0."""
    READ_READY = 2
    """RREADY is 1: what is fetched has its place."""
    WRITE_ADDRESS_HELD = 3
    """AWVALID and its payload stay until AWREADY."""
    WRITE_BURST = 4
    """As READ_BURST."""
    WRITE_DATA_HELD = 5
    """WVALID and its payload stay until WREADY."""
    WRITE_LAST = 6
    """A beat belongs to a burst whose address was accepted before; WLAST is its last beat."""
    ANSWER_READY = 7
    """BREADY is 1."""
    READ_LAST = 8
    """A beat belongs to a burst accepted before; RLAST is its last beat; RID is 0."""
    ANSWER = 9
    """An answer belongs to a burst whose last beat was accepted before (A3.3.1); BID is 0."""


MASTER_RULES = tuple(rule for rule in Rule if rule < Rule.READ_LAST)
"""Those that the accelerator keeps; the others are memory's part."""


class ProtocolMonitor(wiring.Component):
    """Watches a master's reading and writing channels; up to 31 bursts of each in flight.

    Parameters
    ----------
    port_bits : 64, 128, 256 or 512.

    Members
    -------
    read_NAME, write_NAME : In, for every wire of `ReadSignature` and `WriteSignature`
    violations : Out, bit ``rule`` is 1 in a cycle that breaks it
    """

    def __init__(self, *, port_bits: int) -> None:
        self.bytes = beat_bytes(port_bits)
        self.sides: dict[str, wiring.Signature] = {
            "read": ReadSignature(port_bits),
            "write": WriteSignature(port_bits),
        }
        super().__init__(
            {
                **{
                    f"{side}_{name}": In(member.shape)
                    for side, signature in self.sides.items()
                    for name, member in signature.members.items()
                },
                "violations": Out(len(Rule)),
            }
        )

    def watch(self, m: Module, side: str, interface: wiring.PureInterface) -> None:
        """Connects the wires of one side, ``read`` or ``write``, in the module around both."""
        for name in self.sides[side].members:
            m.d.comb += getattr(self, f"{side}_{name}").eq(getattr(interface, name))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        broken = {rule: self.violations[rule] for rule in Rule}
        self._held(m, "read", "ar", broken[Rule.READ_ADDRESS_HELD])
        self._held(m, "write", "aw", broken[Rule.WRITE_ADDRESS_HELD])
        self._held(m, "write", "w", broken[Rule.WRITE_DATA_HELD])
        self._burst(m, "read", "ar", broken[Rule.READ_BURST])
        self._burst(m, "write", "aw", broken[Rule.WRITE_BURST])
        m.d.comb += [
            broken[Rule.READ_READY].eq(~self.read_rready),
            broken[Rule.ANSWER_READY].eq(~self.write_bready),
        ]

        beat = self.read_rvalid & self.read_rready
        known, last = self._beats(
            m, "read", self.read_arvalid & self.read_arready, self.read_arlen, beat
        )
        m.d.comb += broken[Rule.READ_LAST].eq(
            self.read_rvalid & (~known | (self.read_rlast != last) | self.read_rid)
        )
        beat = self.write_wvalid & self.write_wready
        known, last = self._beats(
            m, "write", self.write_awvalid & self.write_awready, self.write_awlen, beat
        )
        m.d.comb += broken[Rule.WRITE_LAST].eq(
            self.write_wvalid & (~known | (self.write_wlast != last))
        )
        due = Signal(range(_DEPTH))
        answered = self.write_bvalid & self.write_bready
        m.d.sync += due.eq(due + (beat & self.write_wlast) - answered)
        m.d.comb += broken[Rule.ANSWER].eq(self.write_bvalid & ((due == 0) | self.write_bid))
        return m

    def _held(self, m: Module, side: str, channel: str, broken: Value) -> None:
        names = [
            name
            for name in self.sides[side].members
            if name.startswith(channel) and not name.endswith(("ready", "valid"))
        ]
        payload = Cat(getattr(self, f"{side}_{name}") for name in names)
        valid = getattr(self, f"{side}_{channel}valid")
        ready = getattr(self, f"{side}_{channel}ready")
        waited, before = (
            Signal(name=f"{channel}_waited"),
            Signal(len(payload), name=f"{channel}_before"),
        )
        m.d.sync += [waited.eq(valid & ~ready), before.eq(payload)]
        m.d.comb += broken.eq(waited & (~valid | (payload != before)))

    def _burst(self, m: Module, side: str, channel: str, broken: Value) -> None:
        def wire(name: str) -> Value:
            return getattr(self, f"{side}_{channel}{name}")

        low = self.bytes.bit_length() - 1
        beat = wire("addr")[low : BORDER_BYTES.bit_length() - 1]
        m.d.comb += broken.eq(
            wire("valid")
            & (
                (wire("burst") != INCR)
                | (wire("size") != low)
                | (wire("addr")[:low] != 0)
                | (beat + wire("len") >= BORDER_BYTES // self.bytes)
                | wire("id")
            )
        )

    def _beats(
        self, m: Module, side: str, put: Value, length: Value, beat: Value
    ) -> tuple[Value, Value]:
        """(a burst is under way, its next beat is its last one), from the lengths put in."""
        lengths = Array(Signal(8, name=f"{side}_length{index}") for index in range(_DEPTH))
        head, tail = Signal(range(_DEPTH), name=f"{side}_head"), Signal(range(_DEPTH))
        given = Signal(8, name=f"{side}_given")
        last = Signal(name=f"{side}_last")
        m.d.comb += last.eq(given == lengths[head])
        with m.If(put):
            m.d.sync += [lengths[tail].eq(length), tail.eq(tail + 1)]
        with m.If(beat):
            m.d.sync += [given.eq(Mux(last, 0, given + 1)), head.eq(head + last)]
        return head != tail, last
