"""Tables of a language model over the length of its context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape

from .quantities import count, quantity
from .table import plain, titled

if TYPE_CHECKING:
    from ..sim.npu.language import LanguageReport

__all__ = ["language_table"]

_BAR = 24


def language_table(report: LanguageReport) -> Group:
    """Cycles, latency, tokens a second, bytes and the bottleneck of every phase and context."""
    numbers = ["context", "cycles", "latency", "tokens/s"]
    speed = plain(["phase", *numbers, "bottleneck", "time a token"], numbers=numbers)
    sizes = ["context", "weights", "keys, values", "DRAM", "DRAM rate", "in memory"]
    moved = plain(["phase", *sizes, ""], numbers=sizes)
    longest = max(point.latency_s / point.tokens for point in report.points)
    phase = report.points[0].phase
    for point in report.points:
        if point.phase != phase:
            speed.add_section()
            moved.add_section()
        phase = point.phase
        speed.add_row(
            phase,
            count(point.context),
            count(point.cycles),
            quantity(point.latency_s, "s"),
            f"{point.tokens_per_s:,.1f}",
            escape(point.bottleneck),
            "#" * max(1, round(_BAR * point.latency_s / point.tokens / longest)),
        )
        moved.add_row(
            phase,
            count(point.context),
            quantity(point.weight_bytes, "B"),
            quantity(point.kv_bytes, "B"),
            quantity(point.dram_bytes, "B"),
            quantity(point.dram_bytes_per_s, "B/s"),
            quantity(point.peak_bytes, "B"),
            "" if point.fits else "does not fit",
        )
    group = f" in groups of {report.weight_group}" if report.weight_group else ""
    limit = "" if report.limit_bytes is None else f", limit {quantity(report.limit_bytes, 'B')}"
    below = [
        "Weights, keys and values, DRAM: bytes moved. In memory: weights, what is kept, "
        f"and the most of activations{limit}.",
        f"Kept at the longest context: {quantity(_kept(report)[0], 'B')} of keys and values, "
        f"{quantity(_kept(report)[1], 'B')} of other states.",
    ]
    for point in report.points:
        below += [
            f"{point.phase}, context {point.context:,}: {text}"
            for text in point.estimate.warnings
            if text.startswith("does not fit")
        ]
    title = (
        f"{report.model} on {report.target}: {report.weight_bits}-bit weights{group}, "
        f"{report.activation_bits}-bit activations"
    )
    second = titled(
        "Bytes",
        moved,
        *below,
        "assumptions (their sources in full: --json):",
        f"  prefill in {_pieces(report)}; masked scores are computed, too (assumed)",
        *(
            f"  {item.text} ({item.source.split(':')[0]})"
            for item in report.points[0].estimate.assumptions
        ),
    )
    return Group(titled(title, speed), second)


def _pieces(report: LanguageReport) -> str:
    most = max(point.pieces for point in report.points)
    return "one run over the whole text" if most == 1 else f"up to {most} runs, one by one"


def _kept(report: LanguageReport) -> tuple[int, int]:
    return (
        max(point.cache_bytes for point in report.points),
        max(point.state_bytes for point in report.points),
    )
