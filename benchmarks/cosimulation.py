"""Speed of the co-simulation engines and of the cycle simulator on vit_digits.

    .venv/bin/python benchmarks/cosimulation.py [IMAGES]

For each engine: simulated cycles per second, and how many times faster the cycle simulator gives
the same counters.
"""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.table import Table

from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.models.quantize import quantize
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.sim.cosim import ENGINES, cosimulate
from vitruvius.sim.cycle import simulate


def main(images: int) -> None:
    workload = resolve_model("vit_digits")
    graph = trace(workload.module, workload.example_inputs, name=workload.name)
    model = quantize(graph, workload.dataset.calibration_images)
    table = Table("machine", "engine", "build", "cycles/s", "s/image", "simulator")
    for name in ("small", "medium"):
        program = compile_model(model, load_machine(name))
        began = time.perf_counter()
        simulate(program, images=images)
        simulator_s = time.perf_counter() - began
        for engine in ENGINES:
            report = cosimulate(
                program, workload.dataset.test_images[:images], engine=engine, tensors="none"
            )
            if not report.cycle_exact or report.bit_exact_images != images:
                raise SystemExit(f"{name} on {engine} disagrees with the golden")
            run_s = report.cycles / report.cycles_per_s
            table.add_row(
                name,
                engine,
                f"{report.build_s:.1f} s",
                f"{report.cycles_per_s:,.0f}",
                f"{run_s / images:.2f}",
                f"{run_s / simulator_s:,.0f} x faster",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
