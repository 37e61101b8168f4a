"""Writes docs/edge-moe.md and its chart: Edge-MoE's published latencies beside the simulator's.

    .venv/bin/python benchmarks/edge_moe.py

Formulas alone, a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.models.zoo import ZOO
from vitruvius.sim.edge_moe import EdgeMoEReport, simulate_edge_moe
from vitruvius.sim.edge_moe_ablation import Comparison, Unknown, ablation, unknowns
from vitruvius.sim.edge_moe_architecture import (
    MEASURED_ROUTING,
    Assumption,
    EdgeMoE,
    Routing,
    balanced_routing,
)

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PLOT = DOCS / "edge-moe.md", DOCS / "edge-moe.svg"
BEGIN = "<!-- computed by benchmarks/edge_moe.py; nothing from here on is typed by hand -->"
END = "<!-- end of what was computed -->"
MODEL = "m3vit_tiny"
FINAL_LIMIT, STEP_LIMIT = 0.10, 0.20

_ARCH = EdgeMoE()
_PENDING_READS = 16  # of a port of the processing system, from the published code
_TWO = (
    f"how many evaluators the baseline had; two of {_ARCH.exponential_depth} + "
    f"{_ARCH.reciprocal_depth} cycles would take "
    f"{(_ARCH.exponential_depth + _ARCH.reciprocal_depth) / 2:g}"
)
# What each unknown may be, by the step that it decides; the figures beside come from `unknowns`.
READINGS = {
    "expert-by-expert order": f"how the baseline loaded weights; {_PENDING_READS} pending reads of "
    f"one beat each, {_ARCH.key_depth} cycles from request to use as the log has them for K, would "
    f"take {_ARCH.key_depth / _PENDING_READS:.2f}",
    "single-pass softmax": _TWO,
    "GELU table": _TWO,
    "unified linear unit": "how large the separate units were: they had fewer multipliers than "
    "equal shares of the unified unit's",
    "attention order": "whether the loop over keys emptied its pipeline after each key; the log's "
    f"depths of QK and AV are {_ARCH.score_depth} and {_ARCH.apply_depth}",
}


def results(comparisons: Sequence[Comparison]) -> list[str]:
    """Published, simulated, and how far apart."""
    lines = [
        "| the design has | published, ms | simulated, ms | apart | saved: published, ms "
        "| saved: simulated, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for index, one in enumerate(comparisons):
        name = one.step.added if index == 0 else f"+ {one.step.added}"
        saved = (
            f"{one.published_saving_ms:.1f} | {one.saving_ms:.1f}"
            if one.published_saving_ms is not None
            else "|"
        )
        lines.append(
            f"| {name} | {one.step.published_ms} | {one.latency_ms:.2f} | {one.deviation:+.1%} "
            f"| {saved} |"
        )
    return lines


def verdict(comparisons: Sequence[Comparison]) -> list[str]:
    """The aims, which rows meet them, and from which techniques the others have their error."""
    final = comparisons[-1]
    met = "met" if abs(final.deviation) <= FINAL_LIMIT else "missed"
    missed = [one for one in comparisons[:-1] if abs(one.deviation) > STEP_LIMIT]
    lines = [
        f"Aim for the final latency, {FINAL_LIMIT:.0%}: {met} ({final.deviation:+.1%}). Aim for "
        f"each other row, {STEP_LIMIT:.0%}: missed in",
        f"{len(missed)} of {len(comparisons) - 1}. A row's error is that of the final design and "
        "of every technique that it does not have yet:",
        "",
    ]
    for one in missed:
        later = comparisons[comparisons.index(one) + 1 :]
        parts = [
            (each.saving_ms - each.published_saving_ms, each.step.added)
            for each in later
            if each.saving_ms is not None and each.published_saving_ms is not None
        ]
        parts.append((final.latency_ms - final.step.published_ms, "final design"))
        listed = ", ".join(f"{name} {error:+.1f} ms" for error, name in parts)
        lines.append(f"- + {one.step.added}, {one.deviation:+.1%}: {listed}.")
    return lines


def deciders(found: Sequence[Unknown]) -> list[str]:
    """What the published savings would need."""
    lines = [
        "| step | unknown | assumed | published saving needs | which unknown decides |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    lines += [
        f"| {one.added} | {one.text} | {one.assumed:g} | {one.implied:.3g} "
        f"| {READINGS[one.added]} |"
        for one in found
    ]
    return lines


def phases(report: EdgeMoEReport) -> list[str]:
    """Every phase of the final design."""
    clock = report.arch.clock_hz
    lines = [
        "| phase | times | cycles in all | ms | share | bound by | cycles from |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    lines += [
        f"| {one.name} | {one.count} | {one.cycles:,.0f} | {one.cycles / clock * 1e3:.2f} "
        f"| {one.cycles / report.cycles:.1%} | {one.bound} | {one.source} |"
        for one in report.phases
    ]
    lines.append(f"| all | | {report.cycles:,.0f} | {report.latency_s * 1e3:.2f} | 100.0% | | |")
    return lines


def share(report: EdgeMoEReport, *names: str) -> float:
    """Part of the report's cycles in the phases whose names begin with one of ``names``."""
    return sum(p.cycles for p in report.phases if p.name.startswith(names)) / report.cycles


def variants() -> list[str]:
    """What other values of the less certain parameters do to the final latency."""
    config, arch = ZOO[MODEL].config, EdgeMoE()
    first, second = (Routing((queue,), "one task") for queue in MEASURED_ROUTING.queues)
    runs = (
        ("as above", arch, None),
        ("queues of task 0 alone (12 experts used)", arch, first),
        ("queues of task 1 alone (13 experts used)", arch, second),
        ("all 16 experts used, equal queues", arch, balanced_routing(config)),
        ("patch embedding with an interval of 1, as its source asks for",
         replace(arch, patch_interval=1), None),
        ("ports of 256 bits (w = 1)", replace(arch, port_bits=256), None),
        ("8 query slots", replace(arch, query_slots=8), None),
    )  # fmt: skip
    lines = ["| | ms |", "| --- | ---: |"]
    lines += [
        f"| {name} | {simulate_edge_moe(config, one, routing=routing).latency_s * 1e3:.2f} |"
        for name, one, routing in runs
    ]
    return lines


def assumed(assumptions: Sequence[Assumption]) -> list[str]:
    """Every assumption with its source."""
    lines = ["| assumption | value | source |", "| --- | ---: | --- |"]
    lines += [f"| {one.text} | {one.value} | {one.source} |" for one in assumptions]
    return lines


def content() -> list[str]:
    """All lines between the marks."""
    config = ZOO[MODEL].config
    comparisons = ablation(config)
    final = comparisons[-1].report
    attention = share(final, "QK", "AV")
    linears = share(final, "weights of", "Q, K", "dense", "experts")
    traffic = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in final.traffic_bytes.items())
    return [
        "## Latency",
        "",
        f"Model: `{MODEL}`, 128 x 256 pixels, ZCU102 at 300 MHz.",
        "",
        *results(comparisons),
        "",
        *verdict(comparisons),
        "",
        "## Which unknown decides",
        "",
        *deciders(unknowns(config)),
        "",
        "## Phases of the final design",
        "",
        *phases(final),
        "",
        f"QK and AV take {attention:.0%} of the time (paper: half), attention's linears, MLP and "
        f"experts {linears:.0%} (paper: 35 %).",
        f"Read from memory in an image: {traffic}.",
        "",
        "## What moves the final figure",
        "",
        *variants(),
        "",
        "## Assumptions",
        "",
        *assumed(final.assumptions),
    ]


def plot(comparisons: Sequence[Comparison], path: Path) -> None:
    """Published and simulated latency of every step, as bars."""
    from matplotlib.figure import Figure

    names = [
        ("" if not index else "+ ") + one.step.added.replace(", ", ",\n").replace(" ", "\n", 1)
        for index, one in enumerate(comparisons)
    ]
    with mpl.rc_context({"svg.hashsalt": "vitruvius", "font.size": 9}):
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        axes = figure.subplots()
        for offset, label, colour, values in (
            (-0.2, "published", "#9aa5b1", [one.step.published_ms for one in comparisons]),
            (0.2, "simulated", "#1f6f8b", [one.latency_ms for one in comparisons]),
        ):
            bars = axes.bar(
                [index + offset for index in range(len(values))], values, 0.38,
                color=colour, label=label,
            )  # fmt: skip
            axes.bar_label(bars, [f"{value:.0f}" for value in values], padding=1, fontsize=8)
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set(ylabel="milliseconds an image", title="Edge-MoE, technique by technique")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        temporary = path.with_suffix(".part")
        figure.savefig(temporary, format="svg", metadata={"Date": None})
        temporary.replace(path)


def main() -> None:
    PAGE.write_text(
        replaced(PAGE.read_text(encoding="utf-8"), BEGIN, END, content()), encoding="utf-8"
    )
    plot(ablation(ZOO[MODEL].config), PLOT)
    print(PAGE.name, PLOT.name)


if __name__ == "__main__":
    main()
