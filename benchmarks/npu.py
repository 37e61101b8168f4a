"""Writes the measured parts of docs/npu.md: DeiT on the shipped NPUs, and Gemmini's RTL.

    .venv/bin/python benchmarks/npu.py

Takes a minute, most of it to trace the models.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.models.graph import Graph
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.sim.npu.gemm import GemmWork
from vitruvius.sim.npu.report import NpuEstimate, estimate_npu
from vitruvius.sim.npu.schedule import Tiling, schedule_of
from vitruvius.sim.npu.target import load_npu, npu_names
from vitruvius.sim.npu.tiling import best_schedule
from vitruvius.sim.systolic import Dataflow

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "npu.md"
MODELS = (
    "<!-- models, by benchmarks/npu.py; nothing from here on is typed by hand -->",
    "<!-- end of the models -->",
)
GEMMINI = (
    "<!-- Gemmini, by benchmarks/npu.py; nothing from here on is typed by hand -->",
    "<!-- end of Gemmini -->",
)
SIZES = ("tiny", "small", "base")
RUNS = ("gemmini_auto_1", "gemmini_auto_2", "gemmini_auto_3")

__all__ = ["GEMMINI", "MODELS", "PAGE", "gemmini", "main", "model_lines", "traced"]


def traced(size: str) -> Graph:
    """A DeiT with random weights."""
    workload = resolve_model(f"deit_{size}_patch16_224")
    return trace(workload.module, workload.example_inputs, name=workload.name)


def _shares(found: NpuEstimate) -> tuple[float, float, float]:
    """Of the cycles: the array streams, vector operators run alone, everything else."""
    array = sum(d.product_cycles for d in found.npu if d.unit == "array")
    alone = sum(d.cycles for d in found.npu if d.unit == "vector unit")
    rest = found.cycles - array - alone
    return array / found.cycles, alone / found.cycles, rest / found.cycles


def model_lines(graphs: Sequence[Graph]) -> list[str]:
    """A row for each model on each NPU."""
    lines = [
        "| model | target | cycles | ideal | cycles / ideal | streams, vector, waits | latency "
        "| energy | DRAM |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for graph in graphs:
        for name in npu_names():
            found = estimate_npu(graph, name)
            shares = ", ".join(f"{share:.0%}" for share in _shares(found))
            lines.append(
                f"| `{graph.name}` | `{found.target}` | {found.cycles:,} | {found.ideal_cycles:,} "
                f"| {found.cycles / found.ideal_cycles:.2f} | {shares} "
                f"| {found.latency_s * 1e3:.2f} ms | {found.energy_j * 1e3:.2f} mJ "
                f"| {sum(found.traffic_bytes.values()) / 1e6:.1f} MB |"
            )
    return lines


def gemmini() -> list[str]:
    """Predicted cycles with the tile of Gemmini's library and with our own, against its RTL."""
    path = ROOT / "tests" / "sim" / "data" / "gemmini_tiles.csv"
    text = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    target = load_npu("gemmini16")
    lines = [
        "| M x N x K | ideal | its tile: predicted | measured 1, 2, 3 | error 1, 2, 3 "
        "| tile found: predicted |",
        "| --- | ---: | ---: | --- | --- | --- |",
    ]
    errors = []
    for row in csv.DictReader(text):
        M, N, K = (int(row[name]) for name in "MNK")
        work = GemmWork(M, N, K, 1, M * N * K, epilogue=target.vector.interval.requantize)
        work = replace(work, epilogue_latency=target.vector.latency.requantize)
        sizes = (int(row[f"tile_{name}"]) for name in "MNK")
        own = schedule_of(work, target, Tiling(*sizes, "mnk", Dataflow.WEIGHT))
        found = best_schedule(work, target)
        measured = [int(row[run]) for run in RUNS]
        error = [own.cycles / cycles - 1 for cycles in measured]
        errors += error
        lines.append(
            f"| {M} x {N} x {K} | {M * N * K // 256:,} | {own.cycles:,} "
            f"| {', '.join(f'{cycles:,}' for cycles in measured)} "
            f"| {', '.join(f'{one:+.1%}' for one in error)} "
            f"| {found.tiling.text}: {found.cycles:,} |"
        )
    mean = sum(abs(error) for error in errors) / len(errors)
    return [
        *lines,
        "",
        f"Mean absolute error with its own tiles {mean:.1%}, from {min(errors):+.1%} to "
        f"{max(errors):+.1%}.",
    ]


def main() -> None:
    """Writes the page."""
    page = PAGE.read_text(encoding="utf-8")
    page = replaced(page, *GEMMINI, gemmini())
    page = replaced(page, *MODELS, model_lines([traced(size) for size in SIZES]))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
