"""Generated Verilog that several tests read, each machine's made once."""

from __future__ import annotations

import pytest

from vitruvius.benchmarks.random_pairs import random_machine
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.hwgen.generate import TOP, verilog_of
from vitruvius.hwgen.lint import waiver_file
from vitruvius.hwgen.units.layernorm import LayerNorm
from vitruvius.hwgen.verilog import to_verilog


def _small(**changes):
    return load_machine("small").model_copy(update=changes)


# The shipped ones, the ways to build parts of them otherwise, and sizes that divide nothing.
MACHINES = {
    "small": _small,
    "chip": lambda: _small(memory=512, packing=True),
    "memory": lambda: _small(memory=512),
    "packing": lambda: _small(packing=True),
    "medium": lambda: load_machine("medium"),
    "large": lambda: load_machine("large"),
    "experts": lambda: load_machine("experts"),
    "naive": lambda: _small(order="naive"),
    "ivit": lambda: load_machine("small").for_scheme("ivit"),
    "ivit_naive": lambda: _small(order="naive", packing=True).for_scheme("ivit"),
    # Numbers 13, 14 and 16 have routers; 20 is of scheme ivit.
    **{
        f"random{number}": lambda number=number: random_machine(number)
        for number in (*range(8), 13, 14, 16)
    },
    "random20": lambda: random_machine(20).for_scheme("ivit"),
}
FEW = ("small", "chip")


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in MACHINES],
)
def design(request, tmp_path_factory):
    """The folder of an accelerator's ``vitruvius.v`` and ``vitruvius.vlt``."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / f"{TOP}.v").write_text(verilog_of(MACHINES[request.param]()))
    (folder / f"{TOP}.vlt").write_text(waiver_file(f"{TOP}.v"))
    return folder


@pytest.fixture(scope="session")
def unit():
    """Verilog of a unit, for faults to be put into: memories, a state machine, units inside."""
    return to_verilog(LayerNorm(lanes=4, max_width=64), TOP)
