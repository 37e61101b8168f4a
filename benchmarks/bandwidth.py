"""Writes docs/bandwidth.md: words a cycle on the attention's ports, read from the RTL's registers.

    .venv/bin/python benchmarks/bandwidth.py

One small ViT on machines of 1 to 32 token slots, each in both orders: every one of them is built in
Verilator and runs an image, which must be exact to the bit and every register as predicted. Takes
about a quarter of an hour when nothing is built yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import torch

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import Buffers, Machine, Order
from vitruvius.models.integer_model import IntegerModel
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.zoo.config import VisionTransformerConfig
from vitruvius.models.zoo.vit import VisionTransformer
from vitruvius.sim.cosim import cosimulate

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PLOT = DOCS / "bandwidth.md", DOCS / "bandwidth.svg"
BEGIN = "<!-- measured by benchmarks/bandwidth.py; nothing from here on is typed by hand -->"
END = "<!-- end of what was measured -->"
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
ORDERS: tuple[Order, ...] = ("reordered", "naive")
PORTS = ("QUERY", "KEY", "VALUE")
CONFIG = VisionTransformerConfig(
    image_size=(16, 16), patch_size=2, channels=1, classes=10, dim=32, depth=1, heads=2,
    mlp_ratio=2.0,
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """Registers of one run: CYCLES, words of all the run, most words of one cycle, by port."""

    rows: int
    order: Order
    cycles: int
    words: dict[str, int]
    peak: dict[str, int]


def small_model() -> tuple[IntegerModel, torch.Tensor]:
    """The model and an image: 65 tokens, two heads of 16 features."""
    torch.manual_seed(0)
    module = VisionTransformer(CONFIG).eval()
    shape = (CONFIG.channels, *CONFIG.image_size)
    images = torch.randn(4, *shape)
    return quantize(trace(module, (torch.zeros(1, *shape),), name="small"), images), images[:1]


def machine(rows: int, order: Order) -> Machine:
    """4 columns, 4 lanes, and so many slots."""
    return Machine(
        name=f"slots{rows}",
        rows=rows,
        cols=4,
        depth=4,
        port_bits=64,
        order=order,
        clock_hz=1e8,
        buffers=Buffers(
            token=16, normal=4, image=4, key=4, value=4, attention=12, residual=8, constant=8,
            weight=16, column=8, norm_column=4, tokens=80, features=96, results=16, products=64,
            norms=8, fetches=64,
        ),
    )  # fmt: skip


def read(model: IntegerModel, image: torch.Tensor, rows: int, order: Order) -> Reading:
    """What the registers say; AssertionError if a bit or a counter is not as it should be."""
    report = cosimulate(compile_model(model, machine(rows, order)), image, tensors="none")
    assert report.bit_exact_images == 1, (rows, order, report.mismatches)
    assert report.cycle_exact, (rows, order, report.counters)
    measured = {name: value for name, (_, value) in report.counters.items()}
    return Reading(
        rows,
        order,
        report.cycles,
        {port: measured[f"{port}_WORDS"] for port in PORTS},
        {port: measured[f"PEAK_{port}_WORDS"] for port in PORTS},
    )


def table(readings: list[Reading]) -> list[str]:
    """The readings as a Markdown table."""
    lines = [
        "| slots | order | cycles of the run | Q words, most in a cycle | K | V | Q words in all "
        "| K | V |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for item in readings:
        peaks = " | ".join(str(item.peak[port]) for port in PORTS)
        words = " | ".join(f"{item.words[port]:,}" for port in PORTS)
        lines.append(f"| {item.rows} | {item.order} | {item.cycles:,} | {peaks} | {words} |")
    return lines


def plot(readings: list[Reading], path: Path) -> None:
    """Most words of one cycle on the three ports together, and cycles, by slots."""
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "vitruvius", "font.size": 9}):
        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        bandwidth, cycles = figure.subplots(1, 2)
        for order, colour, mark in zip(ORDERS, ("#1f6f8b", "#c8553d"), ("o", "s"), strict=True):
            chosen = [item for item in readings if item.order == order]
            rows = [item.rows for item in chosen]
            peaks = [
                item.peak["QUERY"] + max(item.peak["KEY"], item.peak["VALUE"]) for item in chosen
            ]
            bandwidth.plot(rows, peaks, color=colour, marker=mark, markersize=4, label=order)
            cycles.plot(
                rows,
                [item.cycles for item in chosen],
                color=colour, marker=mark, markersize=4, label=order,
            )  # fmt: skip
        bandwidth.set(
            xlabel="token slots",
            ylabel="words",
            title="Most words read in one cycle: Q, and K or V",
        )
        cycles.set(xlabel="token slots", ylabel="cycles", title="Cycles of one image", yscale="log")
        for axes in (bandwidth, cycles):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
        bandwidth.legend(frameon=False)
        temporary = path.with_suffix(".part")
        figure.savefig(temporary, format="svg", metadata={"Date": None})
        temporary.replace(path)


def main() -> None:
    model, image = small_model()
    readings = []
    for rows in ROWS:
        for order in ORDERS:
            readings.append(read(model, image, rows, order))
            print(readings[-1], flush=True)
    plot(readings, PLOT)
    page = replaced(PAGE.read_text(encoding="utf-8"), BEGIN, END, table(readings))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
