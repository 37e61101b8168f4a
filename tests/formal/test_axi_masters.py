"""Reader and store keep the rules of AXI4, whatever memory and core do.

Memory is free but for its own rules. That beats belong to bursts (`Rule.WRITE_LAST`) is left to
simulation: the induction would need the monitor's count of beats beside the store's.
"""

from __future__ import annotations

import pytest
from amaranth.hdl import Assert, Assume, Cover, Module
from amaranth.lib.wiring import In

from vitruvius.hwgen.axi.bus import border_beats
from vitruvius.hwgen.axi.protocol import ProtocolMonitor, Rule
from vitruvius.hwgen.axi.reader import BurstReader
from vitruvius.hwgen.axi.store import ResultStore

from .prove import Proof, prove, refuted


class Master(Proof):
    """A unit with a port on memory; its other inputs are free."""

    side: str
    rules: tuple[Rule, ...]
    memorys_rule: Rule

    def __init__(self, unit, port_bits):
        super().__init__()
        self.unit, self.port_bits = unit, port_bits

    def state(self, m: Module) -> None:
        m.submodules.unit = unit = self.unit
        m.submodules.monitor = monitor = ProtocolMonitor(port_bits=self.port_bits)
        monitor.watch(m, self.side, unit.memory)
        for interface in (unit, unit.memory):
            for name, member in interface.signature.members.items():
                if member.is_port and member.flow == In:
                    wire = getattr(interface, name)
                    m.d.comb += wire.eq(self.free(wire.shape(), name))
        m.d.comb += [
            Assume(~monitor.violations[self.memorys_rule]),
            *(Assert(~monitor.violations[rule]) for rule in self.rules),
        ]


class Reading(Master):
    side = "read"
    rules = (Rule.READ_ADDRESS_HELD, Rule.READ_BURST, Rule.READ_READY)
    memorys_rule = Rule.READ_LAST

    def __init__(self, port_bits, *, least=1):
        unit = BurstReader(port_bits=port_bits, tag_bits=1, outstanding=3)
        super().__init__(unit, port_bits)
        self.least = least

    def state(self, m: Module) -> None:
        super().state(m)
        requests, bus = self.unit.requests, self.unit.memory
        beats = self.free(24, "beats")
        m.d.comb += [
            requests.valid.eq(self.free(1, "request")),
            requests.payload.address.eq(self.free(len(requests.payload.address), "address")),
            requests.payload.beats.eq(beats),
            Assume(beats >= self.least),
            Cover(bus.arvalid & (bus.arlen == border_beats(self.port_bits) - 1)),
            Cover(bus.arvalid & (bus.arlen == 0) & self.unit.valid & self.unit.last),
        ]
        if self.least:
            m.d.comb += Assert(~self.unit._held | (self.unit._left != 0))


class Writing(Master):
    side = "write"
    rules = (
        Rule.WRITE_ADDRESS_HELD,
        Rule.WRITE_BURST,
        Rule.WRITE_DATA_HELD,
        Rule.ANSWER_READY,
    )
    memorys_rule = Rule.ANSWER

    def __init__(self, port_bits, cols):
        unit = ResultStore(port_bits=port_bits, cols=cols, rows=4, outstanding=2)
        super().__init__(unit, port_bits)

    def state(self, m: Module) -> None:
        super().state(m)
        unit = self.unit
        m.d.comb += [
            Assert(unit.memory.awvalid == unit._opens),
            Assert(~unit._asks | (unit._left != 0)),
            Cover(unit.done & unit.memory.bready),
        ]


@pytest.mark.parametrize("port_bits", [64, pytest.param(512, marks=pytest.mark.slow)])
def test_the_reader_keeps_the_rules(tmp_path, port_bits):
    prove(Reading(port_bits), tmp_path, depth=6)


def test_a_request_of_no_beats_would_break_them(tmp_path):
    refuted(Reading(64, least=0), tmp_path, depth=6)


@pytest.mark.parametrize("cols", [4, pytest.param(6, marks=pytest.mark.slow)])
def test_the_store_keeps_the_rules(tmp_path, cols):
    prove(Writing(64, cols), tmp_path, depth=10)
