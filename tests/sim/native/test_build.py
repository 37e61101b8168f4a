"""A build is known by its text and refused for ports that are not the accelerator's."""

from __future__ import annotations

import re

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.sim.native import build as native
from vitruvius.sim.native.build import build_native, port_bits_of


def test_the_same_text_is_built_once(copier, copier_verilog):
    first = copier().build
    again = build_native(copier_verilog(128))
    assert again.cached
    assert again.directory == first.directory
    assert again.build_s == first.build_s > 0
    assert again.port_bits == 128


def test_the_harness_and_the_processor_are_part_of_the_key(copier, copier_verilog, monkeypatch):
    """A program built for another processor, or with an older harness, must not be found."""
    copier()

    def attempted(name, value):
        with monkeypatch.context() as patch:
            patch.setattr(native, name, value)
            patch.setattr(native, "call_tool", lambda *_: (_ for _ in ()).throw(RuntimeError(name)))
            with pytest.raises(RuntimeError, match=name):
                build_native(copier_verilog(128))

    attempted("_harness", lambda: {"harness.cpp": "int main() {}"})
    attempted("_processor", lambda path: "another")


@pytest.mark.parametrize("port_bits", [64, 128, 256, 512])
def test_the_port_width_is_read_from_the_text(copier_verilog, port_bits):
    assert port_bits_of(copier_verilog(port_bits)) == port_bits


def test_an_accelerator_may_have_no_memory_port(copier_verilog):
    lines = [line for line in copier_verilog(64).splitlines() if "put memory_" not in line]
    ports = [line for line in lines if not re.match(r"  (in|out)put \[.*\] memory_", line)]
    assert port_bits_of("\n".join(ports)) == 0


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("module vitruvius ", "module other ", "expected a module 'vitruvius' in the Verilog"),
        ("output memory_wlast,", "", "ports on module 'vitruvius', found no output memory_wlast$"),
        ("input rst,", "input rst, input irq,", "found an input irq too many$"),
        ("input rst,", "output rst,", "found no input rst, an output rst too many$"),
        ("[127:0] memory_rdata", "[99:0] memory_rdata", "64, 128, 256 or 512 bits, got 100"),
    ],
)
def test_other_ports_are_refused(copier_verilog, old, new, text):
    verilog = copier_verilog(128)
    assert old in verilog
    with pytest.raises(VitruviusError, match=text):
        build_native(verilog.replace(old, new, 1))


def test_bad_verilog_is_refused_with_the_reason(copier_verilog):
    with pytest.raises(VitruviusError, match=r"(?s)verilator failed.*syntax error"):
        build_native(copier_verilog(64).replace("wire refuse", "wire wire"))
