"""Tables of signal to quantization noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape

from .table import plain, titled

if TYPE_CHECKING:
    from ..models.sqnr import SqnrReport

__all__ = ["sqnr_table", "tensors_table"]


def sqnr_table(reports: Sequence[SqnrReport]) -> Group:
    """A row for each model and width: what leaves the model, and all its tensors."""
    from ..models.sqnr import rms_percent

    numbers = ["output", "RMS error", "least", "median", "own median", "largest outlier"]
    table = plain(["model", "widths", *numbers, "least at"], numbers=numbers)
    for report in reports:
        for place, output in enumerate(report.outputs):
            ratios = [(row.by_width[place], row) for row in report.rows]
            noisy = [(item.sqnr_db, row) for item, row in ratios if item.sqnr_db is not None]
            own = sorted(item.own_db for item, _ in ratios if item.own_db is not None)
            least = min(noisy, key=lambda item: item[0], default=None)
            median = sorted(db for db, _ in noisy)[len(noisy) // 2] if noisy else None
            worst = max(report.rows, key=lambda row: row.outlier)
            table.add_row(
                escape(report.model),
                output.widths,
                _decibels(output.sqnr_db),
                "-" if output.sqnr_db is None else f"{rms_percent(output.sqnr_db):.3g} %",
                _decibels(least[0] if least else None),
                _decibels(median),
                _decibels(own[len(own) // 2] if own else None),
                f"{worst.outlier:.1f}",
                escape(least[1].name if least else ""),
            )
    return titled(
        "Signal to quantization noise",
        table,
        "Output, least, median: of the model on codes, all noise before a tensor included. Own: a "
        "tensor rounded alone.",
        "Outlier: a tensor's largest value over its RMS. RMS error: 100 x 10^(-SQNR / 20) percent.",
        *(
            f"{report.model}: {report.images} images, scales of {report.calibration_images} others"
            for report in reports
        ),
    )


def tensors_table(report: SqnrReport) -> Group:
    """Every tensor of a model: of the model on codes, and in brackets alone."""
    widths = [item.widths for item in report.outputs]
    table = plain(["operator", "kind", "outlier", *widths], numbers=["outlier", *widths])
    for row in report.rows:
        cells = [f"{_decibels(item.sqnr_db)} ({_decibels(item.own_db)})" for item in row.by_width]
        table.add_row(escape(row.name), escape(row.kind), f"{row.outlier:.1f}", *cells)
    return titled(f"Tensors of {report.model}, dB, in brackets alone", table)


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} dB"
