import os
import re
import subprocess
import sys

import pytest
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from vitruvius.hwgen.lint import waiver_file
from vitruvius.hwgen.units.gelu import Gelu
from vitruvius.hwgen.units.inverse_sqrt import InverseSqrt
from vitruvius.hwgen.units.layernorm import LayerNorm
from vitruvius.hwgen.units.online_softmax import OnlineSoftmax
from vitruvius.hwgen.units.reciprocal import Reciprocal
from vitruvius.hwgen.units.requantize import Requantizer
from vitruvius.hwgen.units.softmax import Softmax
from vitruvius.hwgen.verilog import to_verilog
from vitruvius.sim.verilator import toolchain_environment

UNITS = {
    "requantize": lambda: Requantizer(out_bits=8),
    "gelu": Gelu,
    "reciprocal": lambda: Reciprocal(width=18),
    "inverse_sqrt": lambda: InverseSqrt(width=53),
    "softmax": lambda: Softmax(slots=3, lanes=5, max_tiles=4, max_row=17),
    "online_softmax": lambda: OnlineSoftmax(max_length=129),
    "layernorm": lambda: LayerNorm(lanes=4, max_width=64),
}


@pytest.mark.parametrize("name", UNITS)
def test_units_are_free_of_lint(name, tmp_path):
    (tmp_path / f"{name}.v").write_text(to_verilog(UNITS[name](), name))
    (tmp_path / f"{name}.vlt").write_text(waiver_file(f"{name}.v"))
    completed = subprocess.run(
        ["verilator", "--lint-only", "-Wall", "--top-module", name, f"{name}.vlt", f"{name}.v"],
        cwd=tmp_path,
        env=toolchain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr


class Slots(wiring.Component):
    """Counts modulo ``slots``; with one slot the count has no bits."""

    def __init__(self, slots):
        self.slots = slots
        super().__init__({"first": Out(1)})

    def elaborate(self, platform):
        m = Module()
        slot = Signal(range(self.slots))
        m.d.sync += slot.eq(Mux(slot == self.slots - 1, 0, slot + 1))
        m.d.comb += self.first.eq(slot == 0)
        return m


def test_signals_of_no_bits_are_left_out():
    """Verilog would make ``wire [-1:0]`` two bits wide."""
    assert re.search(r"\[2:0\] slot\b", to_verilog(Slots(5), "slots"))
    text = to_verilog(Slots(1), "slots")
    assert "[-1:0]" not in text
    assert "slot;" not in text


def test_text_is_the_same_in_every_process_and_names_no_path():
    program = (
        "from vitruvius.hwgen.units.layernorm import LayerNorm\n"
        "from vitruvius.hwgen.verilog import to_verilog\n"
        "print(to_verilog(LayerNorm(lanes=4, max_width=64), 'layernorm'), end='')\n"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1] == to_verilog(UNITS["layernorm"](), "layernorm")
    assert re.search(r"^module layernorm\(", texts[0], re.MULTILINE)
    assert not re.search(r"\.py\b|src =", texts[0])
