"""What the cycle simulator found, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from .table import plain

if TYPE_CHECKING:
    from ..sim.cycle import CycleReport
    from ..sim.lost_cycles import LostCycles, OperatorCycles

__all__ = ["lost_table", "operator_table", "simulation_record"]


def lost_table(lost: LostCycles) -> Table:
    """Every part of the cycles that is not zero, the largest first, and their sum."""
    from ..sim.lost_cycles import CAUSES

    table = plain(("cycles of", "cycles", "share", ""), numbers=("cycles", "share"))
    ordered = sorted(lost.parts.items(), key=lambda part: -part[1])
    for cause, cycles in ordered:
        if cycles:
            share = 100 * cycles / lost.total
            table.add_row(cause, f"{float(cycles):,.1f}", f"{float(share):.2f} %", CAUSES[cause])
    total = sum(lost.parts.values())
    table.add_row("total", f"{float(total):,.1f}", f"{float(100 * total / lost.total):.2f} %", "")
    return table


def operator_table(rows: Sequence[OperatorCycles]) -> Table:
    """One row for each operator: products of an image, cycles, useful share."""
    numbers = ("products", "cycles", "useful")
    table = plain(("operator", *numbers), numbers=numbers)
    for row in rows:
        table.add_row(
            row.operator, f"{row.products}", f"{row.cycles:,.0f}", f"{100 * row.useful:.1f} %"
        )
    return table


def simulation_record(report: CycleReport, lost: LostCycles) -> dict[str, object]:
    """The same for ``--json``."""
    program = report.program
    return {
        "model": program.model.name,
        "machine": program.machine.name,
        "images": len(report.images),
        "memory": {
            "latency": report.memory.latency,
            "gap": report.memory.gap,
            "outstanding": report.memory.outstanding,
        },
        "routing": [dict(queues) for queues in report.routing],
        "cycles": report.cycles,
        "cycles_per_image": report.cycles / len(report.images),
        "utilisation": report.utilisation,
        "counters": report.counters,
        "traffic": report.traffic,
        "parts": {cause: float(cycles) for cause, cycles in lost.parts.items()},
        "products": [
            {
                "name": times.name,
                "operator": times.operator,
                "image": times.image,
                "first": times.first,
                "end": times.end,
                "complete": times.complete,
                "macs": times.macs,
                "lost": times.lost,
            }
            for times in report.products
        ],
    }
