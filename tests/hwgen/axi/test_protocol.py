"""The monitor finds each rule broken, and nothing in traffic that keeps them."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from vitruvius.hwgen.axi.protocol import ProtocolMonitor, Rule


class Bench(wiring.Component):
    def __init__(self):
        self.monitor = ProtocolMonitor(port_bits=128)
        inputs = {
            name: member
            for name, member in self.monitor.signature.members.items()
            if name != "violations"
        }
        self.inputs = list(inputs)
        super().__init__({**inputs, "violations_before": Out(len(Rule))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.monitor = monitor = self.monitor
        for name in self.inputs:
            m.d.comb += getattr(monitor, name).eq(getattr(self, name))
        m.d.sync += self.violations_before.eq(monitor.violations)
        return m


def ar(address=0x1000, beats=2, ready=1, **more):
    return {"read_arvalid": 1, "read_araddr": address, "read_arlen": beats - 1,
            "read_arready": ready, **more}  # fmt: skip


def aw(address=0x1000, beats=2, ready=1, **more):
    return {"write_awvalid": 1, "write_awaddr": address, "write_awlen": beats - 1,
            "write_awready": ready, **more}  # fmt: skip


def r(last=0, **more):
    return {"read_rvalid": 1, "read_rlast": last, **more}


def w(last=0, data=7, ready=1, **more):
    return {"write_wvalid": 1, "write_wlast": last, "write_wdata": data, "write_wready": ready,
            **more}  # fmt: skip


B = {"write_bvalid": 1}
SEQUENCES = [
    # Kept.
    ([ar(), r(), r(1), ar(beats=1), r(1)], []),
    ([ar(ready=0), ar(ready=0), ar(), ar(0x2FF0, 1), r(), r(1), r(1)], []),
    ([aw(ready=0), aw(), w(ready=0), w(), w(1), B], []),
    ([aw(), aw(0x1FE0, 2), w(), w(1), w() | B, w(1), B], []),
    ([ar(0, 256), *[r()] * 255, r(1)], []),
    # Broken.
    ([ar(ready=0), {}], [Rule.READ_ADDRESS_HELD]),
    ([ar(ready=0), ar(0x1010), r(), r(1)], [Rule.READ_ADDRESS_HELD]),
    ([ar(ready=0), ar(beats=1), r(1)], [Rule.READ_ADDRESS_HELD]),
    ([ar(0x1FF0)], [Rule.READ_BURST]),
    ([ar(0x0010, 256)], [Rule.READ_BURST]),
    ([ar(0x1008)], [Rule.READ_BURST]),
    ([ar(read_arsize=3)], [Rule.READ_BURST]),
    ([ar(read_arburst=2)], [Rule.READ_BURST]),
    ([ar(read_arid=1)], [Rule.READ_BURST]),
    ([{"read_rready": 0}], [Rule.READ_READY]),
    ([aw(ready=0), {}], [Rule.WRITE_ADDRESS_HELD]),
    ([aw(ready=0), aw(0x1010)], [Rule.WRITE_ADDRESS_HELD]),
    ([aw(0x1FF0)], [Rule.WRITE_BURST]),
    ([aw(write_awid=1)], [Rule.WRITE_BURST]),
    ([aw(), w(ready=0), w(data=8), w(1)], [Rule.WRITE_DATA_HELD]),
    ([aw(), w(ready=0), {}], [Rule.WRITE_DATA_HELD]),
    ([aw(), w(ready=0), w(write_wstrb=1), w(1)], [Rule.WRITE_DATA_HELD]),
    ([w(1)], [Rule.WRITE_LAST]),
    ([aw() | w()], [Rule.WRITE_LAST]),
    ([aw(), w(1)], [Rule.WRITE_LAST]),
    ([aw(), w(), w()], [Rule.WRITE_LAST]),
    ([{"write_bready": 0}], [Rule.ANSWER_READY]),
    ([r(1)], [Rule.READ_LAST]),
    ([ar(), r(), r(1), r(1)], [Rule.READ_LAST]),
    ([ar(), r(1)], [Rule.READ_LAST]),
    ([ar(), r(), r()], [Rule.READ_LAST]),
    ([ar(), r(), r(1, read_rid=1)], [Rule.READ_LAST]),
    ([B], [Rule.ANSWER]),
    ([aw(), w(), B], [Rule.ANSWER]),
    ([aw(), w(), w(1), B, B], [Rule.ANSWER]),
    ([aw(), w(), w(1), {**B, "write_bid": 1}], [Rule.ANSWER]),
]


def test_each_rule_is_found_broken_and_nothing_else(bench):
    found = bench(Bench(), "bench_protocol", "sequences", [cycles for cycles, _ in SEQUENCES])
    for (cycles, rules), got in zip(SEQUENCES, found, strict=True):
        assert got == [int(rule) for rule in rules], cycles
    assert {rule for _, rules in SEQUENCES for rule in rules} == set(Rule)
