"""How well a quantized model keeps its float tensors: tables, one line of text, and a plot."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..errors import VitruviusError
from .quantities import count
from .writing import check_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

    from ..models.agreement import Agreement
    from ..models.equalisation import Equalised
    from ..models.integer_model import IntegerModel, LayerQuality

__all__ = [
    "agreement_line",
    "bounds_table",
    "check_plot",
    "equalised_line",
    "quality_plot",
    "quality_table",
    "worst_first",
]

_PLOTS = (".png", ".svg")
_MARKED = 3
_BESIDE = 6
_BELOW = (10, 22, 34, 0)
"""Offsets of a name from its point, in points, the nicest first."""


def quality_table(model: IntegerModel, top: int | None = None) -> Group:
    """How well each tensor's codes keep the float values on the calibration images, worst first.

    ``top`` limits the rows.
    """
    ranked = worst_first(model.quality)
    shown = ranked[:top]
    table = _table(
        ["layer", "kind", "bits", "scale", "SQNR dB", "clipped %"],
        numbers=["bits", "scale", "SQNR dB", "clipped %"],
    )
    for item in shown:
        table.add_row(
            escape(item.name),
            item.kind,
            str(item.bits),
            f"{item.scale:.4g}",
            f"{item.sqnr_db:.1f}",
            f"{100 * item.clipped:.3f}",
        )
    title = f"{model.name}: {len(model.operators)} integer operators"
    if len(shown) < len(ranked):
        title += f", the {len(shown)} worst of {len(ranked)} tensors"
    return Group(Text(title, style="bold"), table)


def worst_first(quality: Sequence[LayerQuality]) -> list[LayerQuality]:
    """By SQNR, then by name."""
    return sorted(quality, key=lambda item: (item.sqnr_db, item.name))


def bounds_table(model: IntegerModel, top: int | None = None) -> Group:
    """What every accumulator can reach whatever the image, fullest first; ``top`` limits the rows.

    Bits count the sign; the margin is how many times the bound fits.
    """
    ranked = sorted(
        model.accumulator_bounds(), key=lambda row: (-row.bound / row.limit, row.operator, row.what)
    )
    shown = ranked[:top]
    table = _table(
        ["accumulator", "of", "at most", "bits", "of bits", "margin"],
        numbers=["at most", "bits", "of bits", "margin"],
    )
    for row in shown:
        table.add_row(
            escape(row.operator),
            escape(row.what),
            count(row.bound),
            str(row.bound.bit_length() + 1),
            str(row.limit.bit_length() + 1),
            f"{row.limit / row.bound:.1f} x" if row.bound else "",
        )
    title = f"Overflow: none of {len(ranked)} accumulators can leave its width"
    if len(shown) < len(ranked):
        title += f", the {len(shown)} fullest"
    return Group(Text(title, style="bold"), table)


def equalised_line(equalised: Sequence[Equalised]) -> str:
    """How many tensors had their channels evened out, and which gained most."""
    if not equalised:
        return "channels: none evened out"
    best = max(equalised, key=lambda item: item.gain_db)
    return (
        f"channels: {len(equalised)} tensors evened out, most in {best.name} "
        f"({best.gain_db:+.1f} dB at what reads it, factors {best.spread:.3g} apart)"
    )


def agreement_line(found: Agreement, images: str) -> str:
    """Top-1 agreement with float; ``images`` says which ones they are."""
    return (
        f"agreement with float on {found.images} {images}: {found.top1:.2%} the same top-1, "
        f"logits' SQNR {found.sqnr_db:.1f} dB"
    )


def check_plot(path: Path) -> None:
    """Raises ``VitruviusError`` when no plot can be written to ``path``."""
    if path.suffix.lower() not in _PLOTS:
        raise VitruviusError(f"--plot expects a name that ends in .svg or .png, got {path}")
    check_file(path)


def quality_plot(model: IntegerModel, path: Path) -> None:
    """Draws the SQNR of every tensor along the depth of the model, the three worst marked, as SVG
    or PNG by the name's end. The same model gives the same bytes.
    """
    check_plot(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = [item for item in model.quality if math.isfinite(item.sqnr_db)]
    with mpl.rc_context({"svg.hashsalt": "vitruvius", "font.size": 9}):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        axes = figure.add_subplot()
        place = {item.name: index for index, item in enumerate(rows)}
        axes.plot(range(len(rows)), [item.sqnr_db for item in rows], color="0.8", zorder=1)
        for kind in sorted({item.kind for item in rows}):
            those = [item for item in rows if item.kind == kind]
            axes.scatter(
                [place[item.name] for item in those],
                [item.sqnr_db for item in those],
                s=16,
                label=kind,
                zorder=2,
            )
        axes.set_xlabel("tensor, in order of execution")
        axes.set_ylabel("SQNR (dB)")
        axes.set_title(f"{model.name}: signal to quantization noise, accumulated up to each tensor")
        axes.grid(axis="y", alpha=0.3)
        if rows:
            axes.legend(ncols=4, fontsize=8, frameon=False)
        axes.margins(y=0.2)
        _name_worst(axes, rows)
        _write(figure, path)


def _name_worst(axes: Axes, rows: Sequence[LayerQuality]) -> None:
    """Names the worst points, each on a side where the text stays in the axes and covers no point
    and no other name.
    """
    figure = axes.get_figure(root=True)
    if figure is not None:
        figure.draw_without_rendering()
    frame = axes.get_window_extent()
    points = [axes.transData.transform((place, item.sqnr_db)) for place, item in enumerate(rows)]
    names: list[Annotation] = []
    for item in worst_first(rows)[:_MARKED]:
        others = [name.get_window_extent() for name in names]
        name = axes.annotate(
            f"{item.name}: {item.sqnr_db:.1f} dB",
            (rows.index(item), item.sqnr_db),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=8,
            color="tab:red",
        )
        for side, below in product((1, -1), _BELOW):
            name.set_position((side * _BESIDE, -below))
            name.set_horizontalalignment("left" if side > 0 else "right")
            extent = name.get_window_extent()
            inside = frame.count_contains(extent.corners()) == len(extent.corners())
            covers = any(extent.contains(x, y) for x, y in points) or extent.count_overlaps(others)
            if inside and not covers:
                break
        names.append(name)


def _write(figure: Figure, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    kind = path.suffix.lower().removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise VitruviusError(f"cannot write {path}: {error.strerror}") from error


def _table(columns: Sequence[str], *, numbers: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        number = column in numbers
        table.add_column(
            column, justify="right" if number else "left", no_wrap=number, overflow="fold"
        )
    return table
