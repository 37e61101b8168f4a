"""A two-party run as tables: counted beside predicted, and values beside PyTorch's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape

from .quantities import count, quantity
from .table import plain, titled

if TYPE_CHECKING:
    from ..sim.mpc.run import OperatorRun, RunReport

__all__ = ["run_tables"]


def run_tables(report: RunReport, *, threat: str, every: bool = False) -> list[Group]:
    """Traffic by kind of operator (or of ``every`` operator), then totals, values and times."""
    found = [_traffic(report, every)]
    wrong = [op for op in report.operators if not op.equal]
    if wrong:
        found.append(_differing(wrong))
    found.append(_summary(report, threat))
    return found


def _traffic(report: RunReport, every: bool) -> Group:
    numbers = ["rounds", "sent", "received", "offline", "time"]
    first = "operator" if every else "kind"
    table = plain([first, *([] if every else ["operators"]), *numbers, "as predicted"])
    for column in table.columns:
        if column.header in (*numbers, "operators"):
            column.justify = "right"
    groups: dict[str, list[OperatorRun]] = {}
    for op in report.operators:
        groups.setdefault(op.name if every else op.kind, []).append(op)
    rows = [(name, ops) for name, ops in groups.items() if any(op.rounds for op in ops)]
    if not every:
        rows.sort(key=lambda row: -sum(op.bytes_sent for op in row[1]))
    for name, ops in rows:
        table.add_row(
            escape(name),
            *([] if every else [count(len(ops))]),
            count(sum(op.rounds for op in ops)),
            count(sum(op.bytes_sent for op in ops)),
            count(sum(op.bytes_received for op in ops)),
            count(sum(op.offline_bytes for op in ops)),
            quantity(sum(op.wall_s for op in ops), "s"),
            "yes" if all(op.equal for op in ops) else "no",
        )
    table.add_section()
    table.add_row(
        "all",
        *([] if every else [count(len(report.operators))]),
        count(report.rounds),
        count(report.bytes_sent),
        count(report.bytes_received),
        count(report.offline_bytes),
        quantity(report.online_s, "s"),
        "yes" if report.equal else "no",
    )
    return titled(
        f"{report.model} between two parties: rounds and bytes of one party for one image, counted "
        "on its sockets",
        table,
        f"sent + received, as CrypTen counts: {count(report.bytes_sent + report.bytes_received)} "
        f"bytes; sent, as SPU counts: {count(report.bytes_sent)}. Offline: from the dealer to "
        "party 0.",
        "Operators that are not listed exchange nothing. Predicted by closed forms "
        "(sim.mpc.protocols.crypten).",
    )


def _differing(wrong: list[OperatorRun]) -> Group:
    numbers = ["rounds", "predicted", "sent", "predicted ", "offline", "predicted  "]
    table = plain(["operator", "kind", *numbers], numbers=numbers)
    for op in wrong:
        pairs = (
            (op.rounds, op.predicted_rounds),
            (op.bytes_sent, op.predicted_sent),
            (op.offline_bytes, op.predicted_offline),
        )
        values = [count(value) for pair in pairs for value in pair]
        table.add_row(escape(op.name), op.kind, *values)
    return titled("Operators that are not as predicted", table)


def _summary(report: RunReport, threat: str) -> Group:
    table = plain(["", "value", ""], numbers=["value"])
    images = report.images
    table.add_row("labels as in PyTorch", f"{report.agree} of {images}", "same graph in float")
    if report.correct is not None:
        table.add_row("correct labels", f"{report.correct} of {images}", "")
    table.add_row(
        "largest error",
        f"{report.largest_error:.2g}",
        f"of an output; mean {report.mean_error:.2g}, outputs up to {report.largest_output:.3g}",
    )
    table.add_row("online", quantity(report.online_s, "s"), "an image, mean")
    table.add_row("offline", quantity(report.offline_s, "s"), "an image, waiting for the dealer")
    table.add_row("whole run", quantity(report.wall_s, "s"), "starting three processes included")
    if report.setup_rounds:
        text = "sent once, to open the masked weights"
        table.add_row("setup", f"{count(report.setup_sent)} B", text)
    framing = f"{count(report.header_bytes)} B headers, {count(report.beside_bytes)} B greetings"
    table.add_row("framing", framing, "sent, beside the payload above")
    name, bits = report.widest
    table.add_row("widest product", f"{bits} bits", f"of 64, in {escape(name)}")
    failures = f"{report.expected_failures:.2g}"
    table.add_row("wrong truncations", failures, "expected for an image")
    seed = "the same every time: --seed" if report.seeded else "from the operating system"
    table.add_row("shares and masks", "", seed)
    return titled("Values and times", table, threat)
