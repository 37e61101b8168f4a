import os
import re
import subprocess
import sys

import pytest

from vitruvius.hwgen.units.gelu import Gelu
from vitruvius.hwgen.units.inverse_sqrt import InverseSqrt
from vitruvius.hwgen.units.layernorm import LayerNorm
from vitruvius.hwgen.units.online_softmax import OnlineSoftmax
from vitruvius.hwgen.units.reciprocal import Reciprocal
from vitruvius.hwgen.units.requantize import Requantizer
from vitruvius.hwgen.units.softmax import Softmax
from vitruvius.hwgen.verilog import to_verilog
from vitruvius.sim.verilator import toolchain_environment

# What Yosys's Verilog writer always does: registers with an initial value and a process, cases
# without default, logical not of a vector, operands of unequal width; signals nobody reads.
WRITER_STYLE = ("PROCASSINIT", "CASEINCOMPLETE", "WIDTHTRUNC", "WIDTHEXPAND", "UNUSEDSIGNAL")

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
    path = tmp_path / f"{name}.v"
    path.write_text(to_verilog(UNITS[name](), name))
    options = [f"-Wno-{kind}" for kind in WRITER_STYLE]
    completed = subprocess.run(
        ["verilator", "--lint-only", "-Wall", "-Wno-DECLFILENAME", *options, str(path)],
        env=toolchain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr


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
