"""Rounds, bytes and seconds of secure inference by kind of operator, one bar for each target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import VitruviusError
from .quantities import count, quantity
from .writing import check_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..sim.mpc.report import KindTotal, MpcEstimate

__all__ = ["check_chart", "mpc_chart"]

_ENDINGS = (".png", ".svg")
_COLOURS = {
    "Softmax": "#b5432e",
    "Gelu": "#e0a03b",
    "LayerNorm": "#1f6f8b",
    "Linear": "#5f9ea8",
    "MatMul": "#9fc5c0",
    "Conv2d": "#c9d8c5",
    "Relu": "#d8803f",
    "Div": "#8a5a83",
    "Pow": "#c4a3bf",
    "Mul": "#6b7a3a",
    "Output": "#4a4f57",
}
_OTHERS = ("#7f8c9b", "#a3ad8f", "#b89b7c", "#8f83a8", "#6f9f86", "#a88f83")
_REST = "the rest"
_LEGEND = 8
_SEEN = 0.005  # of a bar


def check_chart(path: Path) -> None:
    """Raises VitruviusError for a name that is no picture's, or a place that cannot be written."""
    if path.suffix not in _ENDINGS:
        raise VitruviusError(f"--chart expects a name that ends in .svg or .png, got {path}")
    check_file(path)


def mpc_chart(estimates: Sequence[MpcEstimate], path: Path) -> None:
    """Draws the estimates into an SVG or PNG file: three panels of stacked bars with their totals.

    Raises VitruviusError as ``check_chart`` does.
    """
    check_chart(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels: tuple[tuple[str, Callable[[KindTotal], float], Callable[[float], str]], ...] = (
        ("rounds", lambda item: item.online.rounds, lambda value: count(int(value))),
        (
            "bytes of one party, sent + received",
            lambda item: item.online.sent_and_received,
            lambda value: quantity(value, "B"),
        ),
        ("latency", lambda item: item.latency_s, lambda value: quantity(value, "s")),
    )
    kinds = _ranked(estimates)
    colours = _colours(kinds)
    with mpl.rc_context({"svg.hashsalt": "vitruvius", "font.size": 9}):
        height = 1.55 + 0.42 * len(estimates)
        figure = Figure(figsize=(10.4, height), layout="constrained")
        axes: Sequence[Axes] = figure.subplots(1, len(panels), sharey=True)
        for place, (title, measure, text) in enumerate(panels):
            _panel(axes[place], estimates, kinds, colours, measure, text)
            axes[place].set_title(title, fontsize=9, loc="left")
        axes[0].set_yticks(range(len(estimates)), [_name(item) for item in estimates])
        axes[0].invert_yaxis()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=len(labels),
            frameon=False,
            fontsize=8,
        )
        figure.suptitle(
            f"{estimates[0].model}, one image, by kind of operator", fontsize=10, x=0.01, ha="left"
        )
        kind = path.suffix[1:]
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        figure.savefig(temporary, format=kind, metadata=metadata, dpi=160)
        temporary.replace(path)


def _name(estimate: MpcEstimate) -> str:
    return estimate.target.removeprefix("mpc:")


def _panel(
    axes: Axes,
    estimates: Sequence[MpcEstimate],
    kinds: Sequence[str],
    colours: dict[str, str],
    measure: Callable[[KindTotal], float],
    text: Callable[[float], str],
) -> None:
    rows = range(len(estimates))
    left = [0.0 for _ in rows]
    for kind in kinds:
        widths = [
            sum(
                measure(item)
                for item in estimate.kinds
                if item.kind == kind or (kind == _REST and item.kind not in kinds)
            )
            for estimate in estimates
        ]
        axes.barh(
            rows,
            widths,
            0.62,
            left=left,
            color=colours[kind],
            label=kind,
            edgecolor="white",
            linewidth=0.4,
        )
        left = [start + width for start, width in zip(left, widths, strict=True)]
    most = max(left) or 1.0
    for row, total in enumerate(left):
        axes.text(total + 0.015 * most, row, text(total), va="center", fontsize=8)
    axes.set_xlim(0, 1.24 * most)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(left=False)


def _ranked(estimates: Sequence[MpcEstimate]) -> list[str]:
    """Kinds that take the most anywhere, largest first; what is behind them is one."""
    share: dict[str, float] = {}
    for estimate in estimates:
        for item in estimate.kinds:
            parts = (
                item.online.rounds / max(1, estimate.online.rounds),
                item.online.bytes_sent / max(1, estimate.online.bytes_sent),
            )
            share[item.kind] = max(share.get(item.kind, 0.0), *parts)
    ranked = sorted(share, key=lambda kind: (-share[kind], kind))
    shown = [kind for kind in ranked if share[kind] >= _SEEN][: _LEGEND - 1]
    if len(shown) >= len(ranked) - 1:
        return ranked
    return [*shown, _REST]


def _colours(kinds: Sequence[str]) -> dict[str, str]:
    others = iter(_OTHERS)
    return {kind: _COLOURS.get(kind) or next(others, "#b8bfc6") for kind in kinds}
