"""Where the cycles of vit_digits go on the shipped machines, as a ratio to the ideal array.

    .venv/bin/python benchmarks/utilisation.py

Cycles are the cycle simulator's, which the RTL's counters equal (docs/validation.md), of four
images back to back, the first with what is loaded once. The ideal does one useful product per
multiplier and cycle.
"""

from __future__ import annotations

import time

from rich.console import Console
from rich.table import Table

from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import load_machine, machine_names
from vitruvius.models.quantize import quantize
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.sim.cycle import simulate
from vitruvius.sim.lost_cycles import lost_cycles

IMAGES = 4


def main() -> None:
    workload = resolve_model("vit_digits")
    graph = trace(workload.module, workload.example_inputs, name=workload.name)
    model = quantize(graph, workload.dataset.calibration_images)
    table = Table("machine", "multipliers", "cycles", "ideal", "ratio", "simulated in", "lost to")
    for name in sorted(machine_names(), key=lambda name: load_machine(name).multipliers):
        machine = load_machine(name)
        began = time.perf_counter()
        program = compile_model(model, machine)
        report = simulate(program, images=IMAGES)
        spent = time.perf_counter() - began
        ideal = program.macs / machine.multipliers
        lost = lost_cycles(report)
        parts = sorted(lost.parts.items(), key=lambda item: -item[1])
        shares = [f"{cause} {float(cycles / IMAGES):,.0f}" for cause, cycles in parts if cycles]
        table.add_row(
            name,
            f"{machine.multipliers:,}",
            f"{report.cycles / IMAGES:,.0f}",
            f"{ideal:,.0f}",
            f"{report.utilisation:.3f}",
            f"{spent * 1e3:.1f} ms",
            ", ".join(shares[:6]),
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
