"""Writes docs/ideas.md and its chart: what each of Edge-MoE's ideas is worth on the accelerator.

    .venv/bin/python benchmarks/ideas.py              # cycles, about two minutes
    .venv/bin/python benchmarks/ideas.py --synthesis  # and sim/ideas_cells.toml, ten minutes

Cycles are those of `vitruvius compare`. Cells are Yosys' for parts of a small machine; the command
reads them from the file, and synthesises nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from amaranth.lib import wiring

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.fpga_targets.device import load_device
from vitruvius.fpga_targets.synthesis import Resources, synthesize
from vitruvius.hwgen.core.machine import Machine, load_machine
from vitruvius.hwgen.generate import TOP, verilog_of
from vitruvius.hwgen.ram import Ram
from vitruvius.hwgen.units.compute_array import ComputeArray
from vitruvius.hwgen.units.gelu import Gelu
from vitruvius.hwgen.units.softmax import Softmax
from vitruvius.hwgen.verilog import to_verilog
from vitruvius.models.datasets import photographs
from vitruvius.models.integer.gelu import WIDTH
from vitruvius.models.integer.softmax import SCORE_BITS
from vitruvius.models.integer_model import IntegerModel
from vitruvius.models.quantize import quantize
from vitruvius.models.resolve import resolve_model
from vitruvius.models.tasks import trace_tasks
from vitruvius.reports.ideas import ideas_lines, ideas_plot
from vitruvius.sim.ideas import Comparison, compare
from vitruvius.sim.ideas_cells import CELLS_FILE, load_cells

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PLOT = DOCS / "ideas.md", DOCS / "ideas.svg"
BEGIN = "<!-- measured by benchmarks/ideas.py; nothing from here on is typed by hand -->"
END = "<!-- end of what was measured -->"
COMMAND = ".venv/bin/python benchmarks/ideas.py --synthesis"
MODEL, MACHINE = "m3vit_tiny", "experts"
DEVICE = "zcu102"
EXPERTS = 8
_HEADER = f"""\
# Cells of parts of a small accelerator, as Yosys counts them before placement. Not typed by hand:
# {COMMAND}
"""


def machines() -> list[tuple[str, str, Machine]]:
    """Accelerators to synthesise: the idea, in words what it is, the machine."""
    small = load_machine("small")
    buffers = small.buffers.model_copy(update={"experts": EXPERTS})
    return [
        ("", f"the accelerator, with a router for {EXPERTS} experts",
         small.model_copy(update={"buffers": buffers})),
        ("expert-by-expert order", "the accelerator without a router", small),
        ("attention order", "without a router, all slots begin together",
         small.model_copy(update={"order": "naive"})),
    ]  # fmt: skip


def units(machine: Machine) -> list[tuple[str, str, wiring.Component, int]]:
    """Units to synthesise, with how many of them ``machine`` has or would have."""
    softmax = Softmax(slots=machine.rows, lanes=machine.cols, max_tiles=machine.score_tiles,
                      max_row=machine.row_indices)  # fmt: skip
    scores = Ram(width=SCORE_BITS * machine.cols, depth=machine.row_indices * machine.score_tiles)
    return [
        ("single-pass softmax", "the softmax unit alone", softmax, 1),
        ("single-pass softmax", "three passes: the memory alone, scores of two heads", scores, 1),
        ("GELU table", f"{machine.cols} lanes of GELU by the table of delta", Gelu(), machine.cols),
        # A block memory has two ports; what writes the table takes the place of the second reader.
        ("GELU table", f"{machine.cols} lanes of GELU by tables of all codes",
         Ram(width=WIDTH, depth=1 << WIDTH), machine.cols // 2),
        ("shared unit", "the compute unit alone: each further one",
         ComputeArray(rows=machine.rows, cols=machine.cols, depth=machine.depth), 1),
    ]  # fmt: skip


def entry(idea: str, text: str, used: Resources, copies: int = 1) -> str:
    """A table of the TOML file."""
    found = (
        f'[[cells]]\nidea = "{idea}"\ntext = "{text}"\nlut = {copies * used.lut}\n'
        f"ff = {copies * used.ff}\ndsp = {copies * used.dsp}\nbram36 = {copies * used.bram:g}\n"
    )
    print(found, flush=True)
    return found


def synthesis() -> str:
    """The text of the file of cells."""
    device = load_device(DEVICE)
    small = load_machine("small")
    parts = []

    def run(verilog: str, top: str) -> Resources:
        with tempfile.TemporaryDirectory() as folder:
            return synthesize(verilog, top, device, workdir=Path(folder))

    for idea, text, machine in machines():
        parts.append(entry(idea, text, run(verilog_of(machine), TOP)))
    for idea, text, unit, copies in units(small):
        parts.append(entry(idea, text, run(to_verilog(unit, "unit"), "unit"), copies))
    size = f"{small.rows} x {small.cols} x {small.depth}"
    head = (
        f'device = "{device.name}"\nmachine = "parts of machine small, {size} multipliers"\n'
        f'command = "{COMMAND}"\n'
    )
    return "\n".join([_HEADER + head, *parts])


def model() -> IntegerModel:
    """M3ViT-Tiny; cycles depend on its sizes alone."""
    workload = resolve_model(MODEL)
    graph = trace_tasks(workload.module, workload.example_inputs, name=workload.name)
    height, width = workload.example_inputs[0].shape[2:]
    return quantize(graph, photographs(1, (height, width)))


def content(found: Comparison) -> list[str]:
    """All lines between the marks."""
    return ideas_lines(found, load_cells())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--synthesis", action="store_true", help="count the cells too")
    if parser.parse_args().synthesis:
        CELLS_FILE.write_text(synthesis(), encoding="utf-8")
    found = compare(model(), load_machine(MACHINE))
    ideas_plot(found, PLOT)
    page = replaced(PAGE.read_text(encoding="utf-8"), BEGIN, END, content(found))
    PAGE.write_text(page, encoding="utf-8")
    print(PAGE.name, PLOT.name)


if __name__ == "__main__":
    main()
