"""The section of docs/validation.md on systolic arrays; writes that section alone when run.

    .venv/bin/python benchmarks/validation_systolic.py

Speed comes from benchmarks/scalesim.json, which benchmarks/scalesim.py writes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import numpy as np

from vitruvius.sim.gemmini import Gemmini, gemmini_cycles, tile
from vitruvius.sim.systolic import (
    Dataflow,
    ideal_cycles,
    scalesim_report,
    stonne_os_cycles,
    zigzag_ws_cycles,
)

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "validation.md"
DATA = ROOT / "tests" / "sim" / "data"
SPEED = Path(__file__).with_name("scalesim.json")
HEADING = "## Systolic arrays"
RUNS = ("gemmini_auto_1", "gemmini_auto_2", "gemmini_auto_3")


def section() -> list[str]:
    """The lines of the section, from its heading."""
    return [HEADING, "", *tools(), "", *gemmini(), "", *speed()]


def tools() -> list[str]:
    rows = table("systolic_gemm.csv")
    M, N, K, array = (np.array([int(row[name]) for row in rows]) for name in (*"MNK", "array"))
    ours: list[tuple[str, str, str, Callable[..., np.ndarray]]] = [
        (
            "SCALE-Sim 3.0.0",
            flow.value,
            f"scalesim_{flow.value}",
            lambda *gemm, flow=flow, **shape: scalesim_report(*gemm, dataflow=flow, **shape),
        )
        for flow in Dataflow
    ]
    ours += [
        ("STONNE", "os", "stonne_os", stonne_os_cycles),
        ("ZigZag, ideal temporal", "ws", "zigzag_temporal_ws", zigzag_ws_cycles),
    ]
    arrays = " and ".join(f"{side} x {side}" for side in sorted(set(array.tolist())))
    products = len({row["layer"] for row in rows})
    lines = [
        f"`sim.systolic` against the tools' own counts for {products} products of DeiT-Tiny on "
        "arrays of",
        f"{arrays} (`tests/sim/data/systolic_gemm.csv`). Formulas are derived in the",
        "module; nothing is fitted. SCALE-Sim reports the index of the last cycle, counted from 0,",
        "which is one less than the cycles.",
        "",
        "| tool | dataflow | equal | largest difference |",
        "| --- | --- | --- | --- |",
    ]
    for tool, flow, column, function in ours:
        theirs = np.array([int(row[column]) for row in rows])
        apart = np.abs(function(M, N, K, rows=array, cols=array) - theirs)
        equal = int((apart == 0).sum())
        lines.append(f"| {tool} | {flow} | {equal} of {len(rows)} | {int(apart.max()):,} |")
    return lines


def gemmini() -> list[str]:
    measured = table("gemmini_tiles.csv")
    lines = [
        "### Gemmini's RTL",
        "",
        "Predicted: `sim.gemmini`, tiles by the rule of Gemmini's library and a pipeline of loads,",
        "array and stores with 8 bytes a cycle, without a fitted constant. Measured: the RTL of a",
        "16 x 16 array on FireSim, from three files of DOSA's data set (ucb-bar/dosa, BSD-2). They",
        "belong to searches over different memory sizes but record the same tile for a product, so",
        "there is one prediction for all; the spread is how far the three lie apart.",
        "",
        "| M x N x K | tile | ideal | predicted | measured 1, 2, 3 | error 1, 2, 3 | spread |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    errors = []
    for row in measured:
        gemm = extents(row)
        cut = tile(*gemm)
        found = [int(row[run]) for run in RUNS]
        own = gemmini_errors(row, Gemmini())
        errors += own
        ideal = int(ideal_cycles(*gemm, rows=16, cols=16))
        lines.append(
            f"| {' x '.join(map(str, gemm))} | {cut.M} x {cut.N} x {cut.K} | {ideal:,} "
            f"| {gemmini_cycles(*gemm):,} | {', '.join(f'{cycles:,}' for cycles in found)} "
            f"| {', '.join(f'{error:+.1%}' for error in own)} "
            f"| {max(found) / min(found) - 1:.1%} |"
        )
    wider = Gemmini(memory_bytes_per_cycle=16)
    others = [error for row in measured for error in gemmini_errors(row, wider)]
    lines += [
        "",
        f"Mean absolute error {mean(map(abs, errors)):.1%}, from {min(errors):+.1%} to "
        f"{max(errors):+.1%}. The 8 bytes are those of the DRAM in",
        "DOSA's description of Gemmini; with the 16 of Gemmini's own bus instead the mean absolute",
        f"error is {mean(map(abs, others)):.1%}. The memory's latency, its cache, translation of "
        "addresses and the array's",
        "control are not modelled.",
    ]
    return lines


def gemmini_errors(row: dict[str, str], config: Gemmini) -> list[float]:
    """Predicted over measured, less one, for each of the three."""
    return [gemmini_cycles(*extents(row), config) / int(row[run]) - 1 for run in RUNS]


def extents(row: dict[str, str]) -> tuple[int, int, int]:
    return int(row["M"]), int(row["N"]), int(row["K"])


def speed() -> list[str]:
    record = json.loads(SPEED.read_text(encoding="utf-8"))
    rows = record["rows"]
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key.endswith("_s")}
    lines = [
        "### Speed against SCALE-Sim",
        "",
        "    .venv/bin/python benchmarks/scalesim.py",
        "",
        "Processor time for the same products with equal cycle counts, in one run, of "
        f"{record['requirements'][0].replace('==', ' ')}",
        "and of `sim.systolic`. Not like for like: ours is a closed form; SCALE-Sim builds the",
        "address of every operand in every cycle and also counts traffic. Its imports are not",
        "counted and its traces are off. Ours: one product a call, and all products of a line in",
        "one call.",
        "",
        "| array | dataflow | equal | SCALE-Sim | ours, one by one | ratio | ours, together "
        "| ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        side = row["array"]
        lines.append(
            f"| {side} x {side} | {row['dataflow']} | {row['equal']} of {row['products']} "
            + _times(row)
        )
    equal, count = (sum(row[key] for row in rows) for key in ("equal", "products"))
    lines.append(f"| all | | {equal} of {count} " + _times(total))
    return lines


def _times(row: dict[str, float]) -> str:
    theirs, single, together = (row[key] for key in ("scalesim_s", "one_by_one_s", "together_s"))
    return (
        f"| {theirs:.2f} s | {single * 1e6:,.0f} µs | {theirs / single:,.0f} "
        f"| {together * 1e6:,.0f} µs | {theirs / together:,.0f} |"
    )


def table(name: str) -> list[dict[str, str]]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def replaced(page: str, lines: list[str]) -> str:
    """``page`` with a section, which begins with its heading, in its place, or at the end."""
    start = page.find(lines[0] + "\n")
    if start < 0:
        return page.rstrip("\n") + "\n\n" + "\n".join(lines) + "\n"
    after = page.find("\n## ", start)
    rest = "" if after < 0 else page[after:]
    return page[:start] + "\n".join(lines) + "\n" + rest


def main() -> None:
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), section()), encoding="utf-8")
    print(PAGE.name)


if __name__ == "__main__":
    main()
