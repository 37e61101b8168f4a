"""Signal to quantization noise of every tensor of a graph at several widths of codes.

``SQNR = 10 log10(sum x^2 / sum (x - xq)^2)`` in decibels, x of the float graph and xq of the graph
on codes (see ``code_execution``), over all images; the RMS error is 100 * 10^(-SQNR / 20) percent.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..errors import VitruviusError
from .code_execution import Codes, code_scale, coded, execute_codes
from .code_widths import CodeWidths
from .graph import Graph, Operator, execute_all

__all__ = ["SqnrReport", "SqnrRow", "TensorSqnr", "rms_percent", "sqnr_report"]

_SKIPPED = frozenset({"Constant", "View", "Select", "RepeatBatch", "Output"})


@dataclass(frozen=True)
class TensorSqnr:
    """At one width: of the graph on codes, all noise before the tensor included; and of the tensor
    alone, rounded to its own codes. None where there is no noise.
    """

    widths: str
    sqnr_db: float | None
    own_db: float | None


@dataclass(frozen=True)
class SqnrRow:
    """One operator's output: its largest value over its RMS, and its ratios by width."""

    name: str
    kind: str
    outlier: float
    by_width: tuple[TensorSqnr, ...]


@dataclass(frozen=True)
class SqnrReport:
    """All tensors of a model; ``outputs`` are those it returns, by width the least of them."""

    model: str
    images: int
    calibration_images: int
    rows: tuple[SqnrRow, ...]
    outputs: tuple[TensorSqnr, ...]

    def record(self) -> dict[str, object]:
        """The report as plain values for JSON, with RMS errors of the outputs in percent."""
        found = asdict(self)
        found["output_rms_percent"] = {
            item.widths: None if item.sqnr_db is None else rms_percent(item.sqnr_db)
            for item in self.outputs
        }
        return found


def rms_percent(sqnr_db: float) -> float:
    """The RMS error in percent of the signal's RMS.

    >>> round(rms_percent(28.0), 2), round(rms_percent(45.0), 4)  # AutoNeural: 3.98 and 0.562
    (3.98, 0.5623)
    """
    return float(100.0 * 10.0 ** (-sqnr_db / 20.0))


def sqnr_report(
    graph: Graph, calibration: Tensor, images: Tensor, widths: Sequence[CodeWidths]
) -> SqnrReport:
    """Ratios on ``images`` [n, C, H, W] with scales from ``calibration`` [m, C, H, W].

    Raises ``VitruviusError`` for a graph with several inputs, with operators on the host, or
    without values.
    """
    if not widths:
        raise VitruviusError(f"{graph.name}: expected at least one pair of widths, got none")
    if len(graph.inputs) != 1 or graph.unmapped:
        raise VitruviusError(
            f"{graph.name}: expected one input and no operator on the host, got "
            f"{len(graph.inputs)} and {len(graph.unmapped)}"
        )
    largest: dict[str, float] = defaultdict(float)

    def calibrate(op: Operator, value: Tensor) -> None:
        if value.is_floating_point():
            finite = value[torch.isfinite(value)]
            if finite.numel():
                largest[op.name] = max(largest[op.name], float(finite.abs().max()))

    for place in range(len(calibration)):
        execute_all(graph, calibration[place : place + 1], observe=calibrate)
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    squares: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for place in range(len(images)):
        _measure(graph, images[place : place + 1], largest, widths, sums, squares)
    rows = []
    for op in graph.operators():
        if op.kind in _SKIPPED or op.name not in squares:
            continue
        top, energy, count = squares[op.name]
        rms = math.sqrt(energy / count) if count else 0.0
        ratios = tuple(_tensor(op.name, width.name, energy, sums) for width in widths)
        rows.append(SqnrRow(op.name, op.kind, top / rms if rms else 0.0, ratios))
    outputs = []
    for width in widths:
        found = [
            _tensor(name, width.name, squares[name][1], sums)
            for name in graph.outputs
            if name in squares
        ]
        outputs.append(min(found, key=lambda item: item.sqnr_db or math.inf))
    return SqnrReport(graph.name, len(images), len(calibration), tuple(rows), tuple(outputs))


def _measure(
    graph: Graph,
    image: Tensor,
    largest: dict[str, float],
    widths: Sequence[CodeWidths],
    sums: dict[tuple[str, str], list[float]],
    squares: dict[str, list[float]],
) -> None:
    """Adds one image's squares of signal and noise."""
    exact: dict[str, Tensor] = {}

    def keep(op: Operator, value: Tensor) -> None:
        if not value.is_floating_point():
            return
        signal = value.double()
        exact[op.name] = signal
        finite = signal[torch.isfinite(signal)]
        held = squares[op.name]
        held[0] = max(held[0], float(finite.abs().max()) if finite.numel() else 0.0)
        held[1] += float(finite.square().sum())
        held[2] += finite.numel()

    execute_all(graph, image, observe=keep)
    for width in widths:

        def compare(op: Operator, codes: Codes, width: CodeWidths = width) -> None:
            signal = exact.get(op.name)
            if signal is None:
                return
            finite = torch.isfinite(signal)
            held = sums[op.name, width.name]
            held[0] += float((codes.values - signal)[finite].square().sum())
            scale = code_scale(largest[op.name], width.activation)
            alone = coded(signal, scale, width.activation).values
            held[1] += float((alone - signal)[finite].square().sum())

        execute_codes(graph, [image], largest, width, compare)


def _tensor(
    name: str, width: str, energy: float, sums: dict[tuple[str, str], list[float]]
) -> TensorSqnr:
    noise, own = sums[name, width]
    return TensorSqnr(width, _decibels(energy, noise), _decibels(energy, own))


def _decibels(signal: float, noise: float) -> float | None:
    if noise == 0.0:
        return None
    return 10.0 * math.log10(signal / noise) if signal else 0.0
