"""Writes the measured parts of docs/npu.md: DeiT on the shipped NPUs, and Gemmini's RTL.

    .venv/bin/python benchmarks/npu.py

Prints the processor time of each estimate first. Takes a minute, most of it to trace the models.
"""

from __future__ import annotations

import csv
import re
import tempfile
import time
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
PUBLISHED = (
    "<!-- SA8295P, by benchmarks/npu.py; nothing from here on is typed by hand -->",
    "<!-- end of SA8295P -->",
)
SIZES = ("tiny", "small", "base")
# AutoNeural (arXiv 2512.02924, README): InternViT-300M on the SA8295P by image size, in ms.
# The model has ViT-Large's sizes with patches of 14; 252 and 504 are what they divide.
INTERNVIT_MS = {252: ("256 x 256", 163.3), 504: ("512 x 512", 1415.0)}
LAYERS = 24
RUNS = ("gemmini_auto_1", "gemmini_auto_2", "gemmini_auto_3")

__all__ = [
    "GEMMINI",
    "MODELS",
    "PAGE",
    "PUBLISHED",
    "gemmini",
    "main",
    "model_columns",
    "model_lines",
    "published",
    "traced",
]


def traced(size: str) -> Graph:
    """A DeiT with random weights."""
    workload = resolve_model(f"deit_{size}_patch16_224")
    return trace(workload.module, workload.example_inputs, name=workload.name)


def _cell(found: NpuEstimate) -> str:
    alone = sum(d.cycles for d in found.npu if d.unit == "vector unit")
    return (
        f"{found.cycles:,}, x{found.cycles / found.ideal_cycles:.2f}, {alone / found.cycles:.0%}, "
        f"{found.latency_s * 1e3:.2f} ms, {found.energy_j * 1e3:.1f} mJ, "
        f"{sum(found.traffic_bytes.values()) / 1e6:.0f} MB"
    )


def model_columns(graphs: Sequence[Graph]) -> list[list[str]]:
    """A column for each model: its name and MACs, and a cell for each NPU."""
    return [
        [
            f"`{graph.name.removesuffix('_patch16_224')}`",
            *(_cell(estimate_npu(graph, name)) for name in npu_names()),
        ]
        for graph in graphs
    ]


def model_lines(columns: Sequence[Sequence[str]]) -> list[str]:
    """A row for each NPU."""
    targets = ["target", *(f"`{name}`" for name in npu_names())]
    rows = ["| " + " | ".join(row) + " |" for row in zip(targets, *columns, strict=True)]
    return [rows[0], "| --- " * (len(columns) + 1) + "|", *rows[1:]]


def published() -> list[str]:
    """InternViT-300M on ``sa8295p``, one layer estimated and counted 24 times."""
    config = (ROOT / "models" / "zoo" / "configs" / "vit_large_patch16_224.toml").read_text()
    lines = [
        "| image | predicted | measured | measured / predicted |",
        "| --- | ---: | ---: | ---: |",
    ]
    times = []
    for size, (name, measured) in INTERNVIT_MS.items():
        fields = {"image_size": size, "patch_size": 14, "depth": 1}
        text = config
        for field, value in fields.items():
            text = re.sub(rf"(?m)^{field} = .*$", f"{field} = {value}", text)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"internvit{size}.toml"
            path.write_text(text)
            workload = resolve_model(str(path))
            graph = trace(workload.module, workload.example_inputs, name=workload.name)
        found = estimate_npu(graph, "sa8295p")
        layer = sum(row.cycles for row in found.operators if row.name.startswith("blocks."))
        total = (found.cycles + (LAYERS - 1) * layer) / found.clock_hz * 1e3
        times.append((total, measured))
        lines.append(f"| {name} | {total:.1f} ms | {measured:g} ms | {measured / total:.1f} |")
    ours, theirs = (times[1][side] / times[0][side] for side in (0, 1))
    return [
        *lines,
        "",
        f"From the smaller to the larger: predicted x {ours:.1f}, measured x {theirs:.1f}.",
    ]


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
    page = replaced(page, *PUBLISHED, published())
    graphs = [traced(size) for size in SIZES]
    for graph in graphs:
        for name in npu_names():
            begun = time.process_time()
            estimate_npu(graph, name)
            print(f"{graph.name} on {name}: {time.process_time() - begun:.2f} s")
    page = replaced(page, *MODELS, model_lines(model_columns(graphs)))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
