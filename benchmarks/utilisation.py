"""Where the cycles of vit_digits go on the shipped machines, as a ratio to the ideal array.

    .venv/bin/python benchmarks/utilisation.py

Cycles are the cycle simulator's, which the RTL's counters equal (docs/validation.md). The ideal
does one useful product per multiplier and cycle.
"""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console
from rich.table import Table

from vitruvius.hwgen.compiler import compile_model
from vitruvius.hwgen.machine import load_machine, machine_names
from vitruvius.models.quantize import quantize
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.sim.cycle import simulate


def main() -> None:
    workload = resolve_model("vit_digits")
    graph = trace(workload.module, workload.example_inputs, name=workload.name)
    model = quantize(graph, workload.dataset.calibration_images)
    table = Table("machine", "multipliers", "cycles", "ideal", "ratio", "simulated in", "by kind")
    for name in sorted(machine_names(), key=lambda name: load_machine(name).multipliers):
        machine = load_machine(name)
        began = time.perf_counter()
        report = simulate(compile_model(model, machine))
        spent = time.perf_counter() - began
        ideal = report.macs / machine.multipliers
        kinds: Counter[str] = Counter()
        for step in report.steps:
            kinds[step.kind] += step.cycles
        shares = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common(4))
        table.add_row(
            name,
            f"{machine.multipliers:,}",
            f"{report.total:,}",
            f"{ideal:,.0f}",
            f"{ideal / report.total:.3f}",
            f"{spent * 1e3:.1f} ms",
            shares,
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
