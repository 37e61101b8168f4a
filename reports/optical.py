"""An estimate on a 4f accelerator as a table, and the shipped systems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape

from .quantities import count, quantity
from .table import plain, titled

if TYPE_CHECKING:
    from ..optical.cost import Brackets
    from ..optical.estimate import OpticalDetail, OpticalEstimate

__all__ = ["optical_estimate_table"]


def optical_estimate_table(estimate: OpticalEstimate) -> Group:
    """What one image costs, alone and at full planes, operator by operator, with the brackets."""
    numbers = ["frames", "optics", "convert", "one image", "full planes", "energy"]
    table = plain(["operator", "on", *numbers, "mostly"], numbers=numbers)
    free = 0
    for detail, row in zip(estimate.optical, estimate.operators, strict=True):
        if not row.latency_s and not row.energy_j:
            free += 1
            continue
        on_optics = detail.where == "optics"
        table.add_row(
            escape(detail.name),
            _where(detail),
            count(detail.frames) if on_optics else "",
            quantity(detail.optics_s, "s") if on_optics else "",
            quantity(detail.conversion_s, "s") if on_optics else "",
            quantity(row.latency_s, "s"),
            quantity(detail.batch_s / estimate.batch, "s"),
            quantity(row.energy_j, "J"),
            escape(row.bottleneck),
        )
    table.add_section()
    table.add_row(
        "all",
        "",
        count(estimate.frames),
        quantity(estimate.optics_s, "s"),
        quantity(estimate.conversion_s, "s"),
        quantity(estimate.latency_s, "s"),
        quantity(estimate.per_image_s, "s"),
        quantity(estimate.energy_j, "J"),
    )
    return titled(
        f"{estimate.model} on {estimate.target}, {estimate.machine}",
        table,
        "On optics: the tiling, and images x channels x kernels on a plane. Full planes: each of "
        f"{count(estimate.batch)} images.",
        f"{free} operators take nothing: inputs, constants, addresses, or part of another.",
        *_totals(estimate),
        *(f"warning: {text}" for text in estimate.warnings),
        *_kept(estimate),
        *(f"neither side does {name}: {reason}" for name, reason in estimate.unmapped),
        "assumptions (their sources in full: --json):",
        *(f"  {item.text} ({item.source.split(':')[0]})" for item in estimate.assumptions),
    )


def _where(detail: OpticalDetail) -> str:
    """The tiling with images x channels x kernels of a plane, or electronics."""
    if detail.where != "optics":
        return detail.where
    return f"{detail.tiling} {' x '.join(f'{number:,}' for number in detail.tiles)}"


def _totals(estimate: OpticalEstimate) -> list[str]:
    parts = sorted(estimate.energy_by_part_j.items(), key=lambda item: -item[1])
    return [
        f"latency of one image alone, its planes mostly empty: {quantity(estimate.latency_s, 's')}"
        f" = optics {quantity(estimate.optics_s, 's')}"
        f" + conversions {quantity(estimate.conversion_s, 's')}"
        f" + electronics {quantity(estimate.electronics_s, 's')}",
        f"throughput, {count(estimate.batch)} images at full planes: "
        f"{quantity(estimate.per_image_s, 's')} and {quantity(estimate.per_image_energy_j, 'J')}"
        f" an image = optics {quantity(estimate.per_image_optics_s, 's')}"
        f" + electronics with conversions {quantity(estimate.per_image_electronics_s, 's')}",
        f"optics of one image alone, if one thing set the pace: {_brackets(estimate.brackets)}",
        "optics of one image at full planes, if one thing set the pace: "
        + _brackets(estimate.per_image_brackets),
        "energy of one image alone: "
        + ", ".join(f"{part} {quantity(joules, 'J')}" for part, joules in parts),
    ]


def _brackets(found: Brackets) -> str:
    text = (
        f"light {quantity(found.light_s, 's')}, panels {quantity(found.panels_s, 's')}, "
        f"read-out {quantity(found.read_s, 's')}"
    )
    return (
        f"{text}; {found.ruling} rule"
        if found.ruling == "panels"
        else (f"{text}; {found.ruling} rules" if found.ruling else text)
    )


def _kept(estimate: OpticalEstimate) -> list[str]:
    """Why products stay in electronics, one line for each reason."""
    reasons: dict[str, list[str]] = {}
    for detail, row in zip(estimate.optical, estimate.operators, strict=True):
        if detail.where != "optics" and row.macs:
            reasons.setdefault(detail.reason, []).append(detail.name)
    return [f"products in electronics: {_names(names)}: {why}" for why, names in reasons.items()]


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
