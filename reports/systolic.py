"""The products of a model on a systolic array, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape

from .quantities import count, percent
from .table import plain, titled

if TYPE_CHECKING:
    from ..sim.systolic_report import SystolicReport

__all__ = ["systolic_table"]


def systolic_table(report: SystolicReport) -> Group:
    """One row for each operator's products, the total, and what is not on the array."""
    numbers = ["count", "M", "N", "K", "cycles", "utilisation"]
    table = plain(["operator", "kind", *numbers], numbers=numbers)
    for row in report.products:
        gemm = row.gemm
        sizes = [count(size) for size in (gemm.count, gemm.M, gemm.N, gemm.K)]
        table.add_row(
            escape(gemm.operator),
            gemm.kind,
            *sizes,
            count(row.cycles),
            percent(row.utilisation),
        )
    others = ", ".join(f"{number} {kind}" for kind, number in report.not_on_array) or "none"
    return titled(
        f"{report.model} on a {report.rows} x {report.cols} array, {report.dataflow.value}",
        table,
        f"products: {count(report.cycles)} cycles, {count(report.macs)} multiply-accumulates, "
        f"{percent(report.utilisation)} of the array used",
        f"not on the array, and not counted: {others}",
        f"cycles by {report.source}",
    )
