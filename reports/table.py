"""Tables for the terminal, one function per question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .demo import cycle_range, verdict
from .quantities import count, percent, quantity

if TYPE_CHECKING:
    from ..fpga_targets.device import Device
    from ..fpga_targets.synthesis import Resources
    from ..hwgen.core.program import Program
    from ..models.graph import Unmapped
    from ..models.zoo import ZooModel
    from ..models.zoo.network_file import ZooNetwork
    from ..sim.cosim import CosimReport, Mismatch
    from ..sim.estimate import Estimate
    from .demo import DemoReport

__all__ = [
    "accuracy_lines",
    "cosim_table",
    "demo_table",
    "estimate_table",
    "files_table",
    "findings_table",
    "mismatch_table",
    "plain",
    "resources_table",
    "shape",
    "some_count",
    "titled",
    "unmapped_table",
    "usage_table",
    "zoo_table",
]

_SHOWN_MISMATCHES = 10


def plain(columns: Sequence[str], *, numbers: Sequence[str] = ()) -> Table:
    """An empty table in the house's look; the columns named in ``numbers`` are right-aligned."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        is_number = column in numbers
        table.add_column(
            column, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold"
        )
    return table


def titled(title: str, table: Table, *below: str) -> Group:
    """A table with a line above and lines below, which may be longer than the table is wide."""
    return Group(Text(title, style="bold"), table, *(Text(line) for line in below))


def zoo_table(entries: Sequence[ZooModel | ZooNetwork]) -> Group:
    """The models of the zoo: sizes, parameters, and whether trained weights are shipped."""
    sizes = ["dim", "depth", "heads", "params"]
    table = plain(["name", "family", "input", *sizes, "weights"], numbers=sizes)
    for entry in entries:
        config = entry.config
        table.add_row(
            escape(entry.name),
            escape(entry.family),
            shape(entry.input_shape[1:]),
            str(config.dim),
            str(config.depth),
            str(config.heads),
            quantity(config.parameters, ""),
            "shipped" if getattr(entry, "weights", None) is not None else "random",
        )
    return titled(
        "Models of the zoo",
        table,
        "Input is channels x height x width, or tokens. Random weights are the same every time; "
        "give trained ones with --weights.",
    )


def unmapped_table(unmapped: Sequence[Unmapped]) -> Group:
    """Operators that stay on the host, and why."""
    table = plain(["operator", "target", "module", "source", "reason"])
    for item in unmapped:
        table.add_row(
            escape(item.name),
            escape(item.target),
            escape(item.path or "the root module"),
            escape(item.source or "unknown"),
            escape(item.reason),
        )
    return titled(f"On the host: {len(unmapped)} operators without a rule", table)


def accuracy_lines(images: int, in_float: float, in_integer: float) -> str:
    """Float and integer accuracy (0 to 1) side by side."""
    return (
        f"accuracy on {images} test images: float {in_float:.2%}, integer {in_integer:.2%} "
        f"({100 * (in_integer - in_float):+.2f} points)"
    )


def usage_table(program: Program) -> Group:
    """What a program needs of every buffer of its machine."""
    machine = program.machine
    table = plain(["buffer", "used", "of", "unit", "share"], numbers=["used", "of", "share"])
    for item in program.usage:
        table.add_row(
            escape(item.buffer),
            count(item.used),
            count(item.capacity),
            escape(item.unit),
            percent(item.used / item.capacity, digits=0),
        )
    return titled(
        f"{program.model.name} on {machine.name}: {machine.rows} x {machine.cols} x "
        f"{machine.depth} = {machine.multipliers} multipliers, {len(program.steps)} products, "
        f"{len(program.norms)} normalisations, {len(program.fetches)} transfers an image",
        table,
    )


def files_table(files: Sequence[Path]) -> Group:
    """Written files with their sizes."""
    table = plain(["file", "bytes"], numbers=["bytes"])
    for path in files:
        table.add_row(escape(str(path)), count(path.stat().st_size))
    return titled("Written", table)


def resources_table(resources: Resources, device: Device, shares: Mapping[str, float]) -> Group:
    """What a design takes of a device, as Yosys counts it before packing."""
    table = plain(["resource", "used", "of", "share"], numbers=["used", "of", "share"])
    for kind, share in shares.items():
        label = device.dsp_kind if kind == "dsp" else kind.upper()
        table.add_row(
            escape(label),
            f"{getattr(resources, kind):,g}",
            count(getattr(device, kind)),
            percent(share, digits=1),
        )
    return titled(f"{resources.top} on {device.name}, synthesised by Yosys, not placed", table)


def cosim_table(report: CosimReport) -> Group:
    """A co-simulation: the verdict, the counters of the run, cycles per image, and the speed."""
    table = plain(["counter", "predicted", "RTL"], numbers=["predicted", "RTL"])
    for name, (predicted, measured) in report.counters.items():
        table.add_row(
            escape(name),
            count(predicted),
            count(measured),
            style="" if predicted == measured else "red",
        )
    memory = report.memory
    timing = (
        f"memory: {memory.latency} cycles to an answer, {memory.gap} between beats, "
        f"{memory.outstanding} bursts pending"
        if report.timed
        else f"memory: of engine {report.engine}, with waits of its own; {report.cycles:,} cycles"
    )
    lines = [timing]
    if report.timed:
        lines.append(
            f"cycles per image, the first one with what is loaded once: predicted "
            f"{_cycles(report.predicted_cycles)}, RTL {_cycles(report.rtl_cycles)}"
        )
    return titled(
        f"{report.model}{f', task {report.task}' if report.task else ''} on {report.machine}: "
        f"{verdict(report)}",
        table,
        *lines,
        (
            f"{report.images} images with {report.engine}: {report.tensors_compared} tensors "
            + (f"and {report.queues_compared} queues " if report.queues_compared else "")
            + f"compared beside the logits, {quantity(report.cycles_per_s, 'cycles/s')}, "
            f"build {quantity(report.build_s, 's')}, in all {quantity(report.wall_s, 's')}"
        ),
    )


def _cycles(images: Sequence[int]) -> str:
    """The first image's cycles, and those of the others."""
    if len(images) < 2:
        return cycle_range(images)
    return f"{count(images[0])}, then {cycle_range(images[1:])}"


def mismatch_table(mismatches: Sequence[Mismatch]) -> Group:
    """Where the RTL's bits differ from the golden's, the first place of each tensor."""
    shown = mismatches[:_SHOWN_MISMATCHES]
    table = plain(
        ["image", "tensor", "token", "feature", "golden", "RTL", "elements"],
        numbers=["image", "token", "feature", "golden", "RTL", "elements"],
    )
    for item in shown:
        table.add_row(
            str(item.image),
            escape(item.tensor),
            str(item.token),
            str(item.feature),
            str(item.expected),
            str(item.got),
            count(item.differing),
        )
    return titled(f"{len(mismatches)} tensors differ, the first {len(shown)}:", table)


def estimate_table(estimate: Estimate) -> Group:
    """What one image costs on one target, operator by operator, with the assumptions."""
    numbers = ["cycles", "latency", "energy", "use", "on-chip", "off-chip"]
    table = plain(["operator", "kind", *numbers, "bottleneck"], numbers=numbers)
    for item in estimate.operators:
        table.add_row(
            escape(item.name),
            escape(item.kind),
            count(item.cycles),
            quantity(item.latency_s, "s"),
            quantity(item.energy_j, "J"),
            percent(item.utilisation, digits=0),
            quantity(item.on_chip_bytes, "B"),
            quantity(item.off_chip_bytes, "B"),
            escape(item.bottleneck),
        )
    table.add_section()
    table.add_row(
        "one image",
        "",
        count(estimate.cycles),
        quantity(estimate.latency_s, "s"),
        quantity(estimate.energy_j, "J"),
        percent(estimate.utilisation, digits=0),
    )
    return titled(
        f"{estimate.model} on {estimate.target}, machine {estimate.machine} at "
        f"{quantity(estimate.clock_hz, 'Hz')}",
        table,
        *(f"warning: {text}" for text in estimate.warnings),
        *(f"on the host: {name}: {reason}" for name, reason in estimate.unmapped),
        "assumptions (their sources in full: --json):",
        *(f"  {item.text} ({item.source.split(':')[0]})" for item in estimate.assumptions),
    )


def demo_table(report: DemoReport) -> Group:
    """What the demonstration found, one line a figure."""
    cosim, estimate = report.cosim, report.estimate
    table = plain(["", ""])
    rows = [
        ("operators", count(sum(row.count for row in report.operators))),
        ("MACs", count(sum(row.macs for row in report.operators))),
        ("parameters", count(sum(row.params for row in report.operators))),
        (
            "float accuracy",
            f"{percent(report.float_accuracy, digits=2)} of {report.test_images} test images",
        ),
        ("integer accuracy", percent(report.integer_accuracy, digits=2)),
        ("predicted cycles", f"{_cycles(cosim.predicted_cycles)} an image"),
        ("RTL cycles", f"{_cycles(cosim.rtl_cycles)} an image"),
        (
            "latency",
            f"{quantity(estimate.latency_s, 's')} at {quantity(estimate.clock_hz, 'Hz')} "
            f"on {estimate.target}",
        ),
        ("energy", f"{quantity(estimate.energy_j, 'J')} per image"),
        ("utilisation", f"{percent(estimate.utilisation)} of {report.multipliers} multipliers"),
        (
            "simulation",
            f"{quantity(cosim.cycles_per_s, 'cycles/s')} with {cosim.engine}, "
            f"build {quantity(cosim.build_s, 's')}, in all {quantity(cosim.wall_s, 's')}",
        ),
    ]
    for name, value in rows:
        table.add_row(name, escape(value))
    table.show_header = False
    return titled(f"{cosim.model} on {cosim.machine}", table, "", report.verdict)


def findings_table(findings: Sequence[tuple[str, str, str, str, str]]) -> Group:
    """Tools as (name, version, place, purpose, remedy); a version of "" is a missing tool."""
    table = plain(["", "tool", "version", "for", "where, or how to get it"])
    for name, version, place, purpose, remedy in findings:
        table.add_row(
            "[green]ok[/green]" if version else "[red]missing[/red]",
            name,
            escape(version or "-"),
            escape(purpose),
            escape(place if version else remedy),
        )
    return titled("Tools", table)


def shape(sizes: Sequence[int]) -> str:
    """Sizes as 3x224x224."""
    return "x".join(str(size) for size in sizes)


def some_count(number: int) -> str:
    """A count with thousands separators; nothing where it is zero."""
    return count(number) if number else ""
