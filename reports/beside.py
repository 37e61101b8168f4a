"""Estimates of one model on several targets, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape

from ..optical.estimate import OpticalEstimate
from ..sim.mpc.report import MpcEstimate
from .quantities import count, percent, quantity
from .table import plain, titled

if TYPE_CHECKING:
    from ..models.graph import Graph
    from ..sim.estimate import Estimate

__all__ = ["beside_record", "beside_tables"]

_ACCURACY = {
    "fpga": "the integer model, which the generated hardware equals bit by bit",
    "npu": "none: cost only, numbers of the assumed widths are not computed",
    "optical": "none: cost only; 'vitruvius optical run' computes with levels and noise of devices",
    "mpc": "fixed-point numbers on shares: 'vitruvius mpc run' compares them with the float model",
}


def _accuracy(estimate: Estimate) -> str:
    return _ACCURACY.get(estimate.target.partition(":")[0], "unknown")


@dataclass(frozen=True)
class _Row:
    """One operator of the graph on every target; on some it is the sum of several rows."""

    name: str
    kind: str
    latency_s: tuple[float, ...]
    cycles: tuple[int, ...]
    energy_j: tuple[float, ...]
    off_chip_bytes: tuple[int, ...]


def _common(estimates: Sequence[Estimate], graph: Graph | None) -> list[_Row]:
    """Operators that every target has a row for, in the order of the first target. An attention is
    one row, as the accelerator has it, named like its second product.
    """
    parts = {
        region.apply: {region.scores, region.bias, region.softmax, region.apply}
        for region in (graph.regions if graph is not None else ())
    }
    inside = {name for names in parts.values() for name in names} - parts.keys()
    names = [{row.name for row in item.operators} for item in estimates]
    shared = set.intersection(*names) - inside
    found = []
    for row in estimates[0].operators:
        if row.name not in shared:
            continue
        own = [
            [other for other in item.operators if other.name in parts.get(row.name, {row.name})]
            for item in estimates
        ]
        found.append(
            _Row(
                row.name,
                "Attention" if row.name in parts else row.kind,
                tuple(sum(item.latency_s for item in rows) for rows in own),
                tuple(sum(item.cycles for item in rows) for rows in own),
                tuple(sum(item.energy_j for item in rows) for rows in own),
                tuple(sum(item.off_chip_bytes for item in rows) for rows in own),
            )
        )
    return found


def beside_record(estimates: Sequence[Estimate], graph: Graph | None = None) -> dict[str, object]:
    """One record for all targets, for JSON: the comparison, the operators that all have, and every
    estimate in full. ``graph`` tells which operators are one attention.
    """
    return {
        "model": estimates[0].model,
        "targets": [item.target for item in estimates],
        "comparison": [
            {
                "target": item.target,
                "machine": item.machine,
                "clock_hz": item.clock_hz,
                "cycles": item.cycles,
                "latency_s": item.latency_s,
                "energy_j": item.energy_j,
                "utilisation": item.utilisation,
                "off_chip_bytes": sum(row.off_chip_bytes for row in item.operators),
                "rounds": item.online.rounds if isinstance(item, MpcEstimate) else 0,
                **_at_full_planes(item),
                "accuracy": _accuracy(item),
            }
            for item in estimates
        ],
        "operators": [asdict(row) for row in _common(estimates, graph)],
        "estimates": [item.record() for item in estimates],
    }


def _rest(estimate: Estimate, counted_s: Sequence[float]) -> float:
    """Latency that is not counted yet; rounding is not."""
    rest = estimate.latency_s - sum(counted_s)
    return rest if rest > 1e-9 * estimate.latency_s else 0.0


def _at_full_planes(estimate: Estimate) -> dict[str, object]:
    if not isinstance(estimate, OpticalEstimate):
        return {}
    return {
        "batch": estimate.batch,
        "per_image_s": estimate.per_image_s,
        "per_image_energy_j": estimate.per_image_energy_j,
    }


def _headings(targets: Sequence[str]) -> list[str]:
    """Targets as heads of columns: of a file only its name, unless two would be alike."""
    short = [
        f"{target.rpartition(':')[0]}:{PurePath(target.rpartition(':')[2]).name}"
        for target in targets
    ]
    return short if len(set(short)) == len(short) else list(targets)


def beside_tables(estimates: Sequence[Estimate], graph: Graph | None = None) -> list[Group]:
    """A column for each target: the totals, then the operators that all of them have. ``graph``
    tells which operators are one attention.
    """
    names = _headings([item.target for item in estimates])
    table = plain(["", *names], numbers=names)
    secure = [isinstance(item, MpcEstimate) for item in estimates]
    optics = [item if isinstance(item, OpticalEstimate) else None for item in estimates]
    rounds = [item.online.rounds if isinstance(item, MpcEstimate) else 0 for item in estimates]
    moved = [sum(row.off_chip_bytes for row in item.operators) for item in estimates]
    lines = [
        ("machine", [item.machine for item in estimates]),
        ("clock", [quantity(item.clock_hz, "Hz") for item in estimates]),
        ("cycles", [count(item.cycles) for item in estimates]),
        ("latency", [quantity(item.latency_s, "s") for item in estimates]),
        ("energy", [quantity(item.energy_j, "J") for item in estimates]),
        ("utilisation", [percent(item.utilisation, digits=0) for item in estimates]),
        ("off-chip", [quantity(size, "B") for size in moved]),
    ]
    for name, values in lines:
        kept = name in ("machine", "latency")
        clocked = name not in ("clock", "cycles")
        shown = [
            escape(value) if kept or not (is_secure or (optical and not clocked)) else "-"
            for value, is_secure, optical in zip(values, secure, optics, strict=True)
        ]
        if set(shown) != {"-"}:
            table.add_row(name, *shown)
    if any(secure):
        for name, values in (
            ("rounds", [count(number) for number in rounds]),
            ("network, sent + received", [quantity(size, "B") for size in moved]),
        ):
            shown = [
                value if is_secure else "-" for value, is_secure in zip(values, secure, strict=True)
            ]
            table.add_row(name, *shown)
    if any(optics):
        for name, figures in (
            (
                "an image at full planes",
                [item and quantity(item.per_image_s, "s") for item in optics],
            ),
            ("its energy", [item and quantity(item.per_image_energy_j, "J") for item in optics]),
        ):
            table.add_row(name, *(figure or "-" for figure in figures))
    sources = [
        f"accuracy on {name}: {_accuracy(item)}"
        for name, item in zip(names, estimates, strict=True)
    ]
    found = [titled(f"{estimates[0].model}, one image, side by side", table, *sources)]
    common = _common(estimates, graph)
    if common:
        table = plain(["operator", *names, "kind"], numbers=names)
        timed = [row for row in common if any(row.latency_s)]
        for row in timed:
            values = [quantity(latency, "s") for latency in row.latency_s]
            table.add_row(escape(row.name), *values, escape(row.kind))
        rests = [
            _rest(item, [row.latency_s[place] for row in common])
            for place, item in enumerate(estimates)
        ]
        others = ", ".join(
            f"{quantity(rest, 's')} of {name}" for rest, name in zip(rests, names, strict=True)
        )
        title = "Latency of the operators that all have"
        below = [f"In operators without a partner: {others}; see the tables below."]
        if len(timed) < len(common):
            below.insert(0, f"{len(common) - len(timed)} others take no time on any of them.")
        found.append(titled(title, table, *below))
    return found
