"""Writes the tables of docs/optical_estimate.md: systems, and estimates of models on them.

    .venv/bin/python benchmarks/optical_estimate.py

Takes a minute, most of it tracing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isinf
from pathlib import Path

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.benchmarks.mpc_models import table
from vitruvius.cli.workload import load_workload, trace_workload
from vitruvius.models.graph import Graph
from vitruvius.optical.estimate import OpticalEstimate, estimate_optical
from vitruvius.optical.target import load_optical, optical_names, setting_values
from vitruvius.reports.quantities import quantity
from vitruvius.sim.npu.report import estimate_npu

PAGE = Path(__file__).resolve().parent.parent / "docs" / "optical_estimate.md"
END = "<!-- end of table -->"
LARGE = ("convshare_cifar100", "deit_base_patch16_224")
SMALL = "vit_digits"
CHOICES = ("", "map=conv+linear", "map=conv+linear,scheme=reference", "masks=given")

__all__ = ["LARGE", "PAGE", "SMALL", "graph_of", "main", "models", "page", "settings", "systems"]


def graph_of(name: str) -> Graph:
    """The traced model."""
    return trace_workload(load_workload(name, None, shapes=True))


def systems() -> list[str]:
    """The shipped systems."""
    rows = []
    for name in optical_names():
        system = load_optical(f"optical:{name}").system
        link = system.read_bits_per_s
        rows.append(
            (
                f"`optical:{name}`",
                f"{system.rows} x {system.cols}",
                quantity(1 / system.input_panel_s, "Hz"),
                f"{system.frames_per_pass}",
                "pipelined" if system.pipelined else "serial",
                "keeps pace" if isinf(link) else quantity(link, "bit/s"),
                quantity(system.pixels * system.read_bits / link, "s"),
                quantity(system.light_s, "s"),
                quantity(system.static_w, "W"),
            )
        )
    head = (
        "system", "pixels", "panels", "frames a pass", "parts", "camera's link",
        "a frame: read-out", "a frame: light", "static",
    )  # fmt: skip
    return table(head, rows, 1)


def settings() -> list[str]:
    """Every key of ``--optical``."""
    return table(("key", "takes"), [(f"`{k}`", v) for k, v in setting_values().items()], 2)


def models(name: str, graph: Graph, names: Sequence[str]) -> list[str]:
    """One model on systems, under choices, beside the NPU alone."""
    rows = []
    for system in names:
        for choice in CHOICES:
            target = load_optical(f"optical:{system}", [choice] if choice else [])
            rows.append((f"`{system}`", choice or "-", *_figures(estimate_optical(graph, target))))
    npu = estimate_npu(graph, "npu:edge32")
    rows.append(
        ("`npu:edge32`", "alone", "", quantity(npu.latency_s, "s"), "", "", "", "",
         quantity(npu.latency_s, "s"), quantity(npu.energy_j, "J"))
    )  # fmt: skip
    head = (
        f"{name} on", "`--optical`", "frames", "one image", "at full planes: light", "panels",
        "read-out", "electronics", "an image", "its energy",
    )  # fmt: skip
    return table(head, rows, 2)


def _figures(found: OpticalEstimate) -> tuple[str, ...]:
    brackets = found.per_image_brackets
    return (
        f"{found.frames:,}",
        quantity(found.latency_s, "s"),
        *(quantity(s, "s") for s in (brackets.light_s, brackets.panels_s, brackets.read_s)),
        quantity(found.per_image_electronics_s, "s"),
        quantity(found.per_image_s, "s"),
        quantity(found.per_image_energy_j, "J"),
    )


def page(text: str, parts: dict[str, list[str]]) -> str:
    """``text`` with tables in their places."""
    for name, lines in parts.items():
        text = replaced(text, f"<!-- {name}, by benchmarks/optical_estimate.py -->", END, lines)
    return text


def main() -> None:
    """Writes the page."""
    parts = {
        "systems": systems(),
        "settings": settings(),
        SMALL: models(SMALL, graph_of(SMALL), ("4f-2mhz", "4f-readout", "4f-dmd")),
        **{name: models(name, graph_of(name), ("4f-2mhz", "4f-readout")) for name in LARGE},
    }
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), parts), encoding="utf-8")
    print(PAGE.name)


if __name__ == "__main__":
    main()
