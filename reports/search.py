"""What a search found: a table, a page, a chart of accuracy against latency, and one sentence."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from rich.console import Group

from .table import plain, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..sim.mpc.search.front import Front, Point, Summary

__all__ = ["finding", "front_markdown", "front_plot", "front_record", "front_table"]

_COLUMNS = ("model", "accuracy", "least to most", "rounds", "MB sent", "latency", "units")
_NUMBERS = _COLUMNS[1:6]
_COLOURS = {"mpcvit": "#0f6e8c", "mpcvit+": "#c2571a"}
_GREY = "#5a6678"
# where a text may stand beside its point, in points; the last where it lies on another
_SIDES = (
    (7, 7, "left"),
    (7, -8, "left"),
    (-7, 7, "right"),
    (-7, -8, "right"),
    (0, 13, "center"),
    (0, -14, "center"),
    (9, 18, "left"),
    (9, -19, "left"),
    (-9, 18, "right"),
    (-9, -19, "right"),
    (7, 7, "left"),
)
_MARKS = {"softmax": "s", "relu-softmax": "D", "scale": "v", "mpcformer": "P", "the-x": "X"}


def finding(front: Front) -> str:
    """In how many searched models the published direction, better than MPCFormer at less than
    softmax's latency, is found here, and by how much at best.
    """
    rows = {row.name: row for row in front.summaries()}
    softmax, rival = rows["softmax"], rows["mpcformer"]
    faster = [row for row in rows.values() if row.mu is not None]
    faster = [row for row in faster if row.latency_s < softmax.latency_s]
    if not faster:
        return "No searched model is faster than softmax: the published direction is not found."
    better = [row for row in faster if row.accuracy > rival.accuracy]
    best = max(faster, key=lambda row: (row.accuracy, -row.latency_s))
    points = 100 * (best.accuracy - rival.accuracy)
    verdict = f"{len(better) or 'none'} of the {len(faster)} searched models faster than softmax"
    side = "above" if points > 0 else "below" if points < 0 else "from"
    apart = best.least > rival.largest or best.largest < rival.least
    spread = f"{'more' if apart else 'no more'} than the spread of {len(front.options.seeds)} seeds"
    if len(front.options.seeds) < 2:
        spread = "with one seed and so no spread"
    return (
        f"The published direction, more accurate than MPCFormer-like ({rival.accuracy:.2%}), is "
        f"found in {verdict}; the most accurate of them on these images, {best.title} "
        f"({best.accuracy:.2%}), is {abs(points):.2f} points {side} it, {spread}, at "
        f"{best.latency_s / softmax.latency_s:.2f} times the latency of softmax and "
        f"{best.latency_s / rival.latency_s:.2f} times that of MPCFormer-like."
    )


def _cells(front: Front, row: Summary) -> list[str]:
    spread = f"{100 * row.least:.2f} to {100 * row.largest:.2f}"
    return [
        row.title,
        f"{row.accuracy:.2%}",
        spread if len(front.options.seeds) > 1 else "one seed",
        f"{row.rounds:,.0f}",
        f"{row.bytes_sent / 1e6:.2f}",
        _seconds(row.latency_s),
        _units(front, row.name),
    ]


def _units(front: Front, name: str) -> str:
    """How many units of each layer have ReLU-softmax, for each seed; behind it layers with GELU."""
    texts = []
    for point in front.points:
        if point.name != name or point.mu is None:
            continue
        text = _counts(point)
        if point.active is not None:
            text += f", GELU {' '.join(map(str, point.active)) or 'none'}"
        texts.append(text)
    return "; ".join(dict.fromkeys(texts))


def _counts(point: Point) -> str:
    if point.kept is None:
        return "none" if point.attention == "scale" else "all"
    return " ".join(str(len(units)) for units in point.kept)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.1f} ms"


def _head(front: Front) -> str:
    seeds = len(front.options.seeds)
    return (
        f"MPCViT on {front.data}: {front.protocol} over {front.network}, penalty "
        f"{front.options.penalty}, {seeds} seed{'s' if seeds > 1 else ''}"
    )


def _notes(front: Front) -> list[str]:
    costs, unit = front.costs, front.options.granularity
    return [
        f"Accuracy: measured on {front.test_images} held-out images, mean of the seeds. Rounds, "
        "bytes and latency: formula, of the cost model, one image, online, without local "
        "computation.",
        f"A layer's first ReLU-softmax costs {_seconds(costs.step_s)}, each {unit} "
        f"{_seconds(costs.unit_s)} more, a layer's GELU {_seconds(costs.activation_s)}. Units: "
        f"{unit}s of each layer with ReLU-softmax, by seed; of MPCViT+ the layers, from 0, with "
        "GELU.",
    ]


def front_table(front: Front) -> Group:
    """One row for each model."""
    table = plain(_COLUMNS, numbers=_NUMBERS)
    for row in front.summaries():
        table.add_row(*_cells(front, row))
    return titled(_head(front), table, *_notes(front), finding(front))


def front_markdown(front: Front) -> str:
    """The same in Markdown, a table and what it is of."""
    rules = ["---:" if name in _NUMBERS else "---" for name in _COLUMNS]
    rows = [_cells(front, row) for row in front.summaries()]
    lines = [f"| {' | '.join(line)} |" for line in (_COLUMNS, rules, *rows)]
    notes = "\n\n".join(_notes(front))
    return f"{_head(front)}.\n\n" + "\n".join(lines) + f"\n\n{notes}\n\n{finding(front)}\n"


def front_record(front: Front) -> dict[str, object]:
    """The same for ``--json``, with every point."""
    return {
        "data": front.data,
        "test_images": front.test_images,
        "protocol": front.protocol,
        "network": front.network,
        "options": front.options.model_dump(mode="json"),
        "epochs": front.epochs,
        "search_epochs": front.search_epochs,
        "costs": asdict(front.costs),
        "alphas": front.alphas,
        "betas": front.betas,
        "points": [asdict(point) for point in front.points],
        "summaries": [asdict(row) for row in front.summaries()],
        "finding": finding(front),
    }


def front_plot(front: Front, path: Path) -> None:
    """Accuracy against latency: a point for each model, the mean of its seeds, with a bar from the
    least to the largest; searched models by rising mu on a line.

    Raises OSError when the file cannot be written.
    """
    rows = front.summaries()
    with mpl.rc_context({"svg.hashsalt": "vitruvius", "font.size": 9, "svg.fonttype": "path"}):
        figure = Figure(figsize=(8.4, 4.9), layout="constrained")
        axes = figure.subplots()
        tags: list[tuple[Summary, str, str]] = []
        for family, label in (("mpcvit", "MPCViT"), ("mpcvit+", "MPCViT+")):
            line = [row for row in rows if row.name.rsplit("-", 1)[0] == family]
            if line:
                _bars(axes, line, _COLOURS[family], "o", label)
            for row in line:
                alike = [r for r in line if _place(r) == _place(row)]
                if row is alike[0]:
                    text = "μ = " + ", ".join(f"{r.mu:g}" for r in alike)
                    tags.append((row, text, _COLOURS[family]))
        for row in rows:
            if row.mu is None:
                _bars(axes, [row], _GREY, _MARKS[row.name], None)
                tags.append((row, row.title, _GREY))
        axes.set(
            xlabel=f"latency of one image, {front.protocol} over {front.network} (s)",
            ylabel=f"accuracy on {front.test_images} test images (%)",
            title=_head(front),
        )
        axes.grid(color="#e3e8ee", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12, y=0.12)
        if any(row.mu is not None for row in rows):
            axes.legend(frameon=False, loc="lower right")
        _tag(figure, axes, tags)
        temporary = path.with_name(f".{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(temporary, format=path.suffix[1:], dpi=160, metadata=metadata)
        temporary.replace(path)


def _place(row: Summary) -> tuple[float, float]:
    return row.latency_s, 100 * row.accuracy


def _bars(axes: Axes, rows: list[Summary], colour: str, mark: str, label: str | None) -> None:
    low = [100 * (row.accuracy - row.least) for row in rows]
    high = [100 * (row.largest - row.accuracy) for row in rows]
    axes.errorbar(
        [row.latency_s for row in rows],
        [100 * row.accuracy for row in rows],
        yerr=[low, high],
        color=colour,
        ecolor=(colour, 0.35),
        elinewidth=1.4,
        marker=mark,
        markersize=6.5,
        markeredgecolor="white",
        markeredgewidth=0.8,
        linestyle=(0, (1, 2)) if label else "none",
        linewidth=1.1,
        label=label,
    )


def _tag(figure: Figure, axes: Axes, tags: list[tuple[Summary, str, str]]) -> None:
    """Writes each text beside its point, where it lies on no other text and no point."""
    figure.draw_without_rendering()
    points = [axes.transData.transform(_place(row)) for row, _, _ in tags]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in points]
    for own, (row, text, colour) in enumerate(tags):
        for place, (dx, dy, side) in enumerate(_SIDES):
            note = axes.annotate(
                text,
                _place(row),
                xytext=(dx, dy),
                textcoords="offset points",
                ha=side,
                va="center",
                color=colour,
                fontsize=8,
                bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.4},
            )
            box = note.get_window_extent()
            others = (other for n, other in enumerate(taken) if n != own)
            if place == len(_SIDES) - 1 or not any(box.overlaps(other) for other in others):
                taken.append(box)
                break
            note.remove()
