"""A run through 4f optics as tables: labels and logits for every set of devices, then operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape

from .quantities import count
from .table import plain, titled

if TYPE_CHECKING:
    from ..optical.options import DeviceOptions
    from ..optical.run import CellRun, RunReport

__all__ = ["retraining_table", "run_tables", "share_of"]

_WORST = 10


def run_tables(report: RunReport, *, every: bool = False) -> list[Group]:
    """The sweep, the operators of its worst cell (the worst ten, or ``every``), the few images of
    other layers, and what stayed in electronics.
    """
    found = [_sweep(report)]
    if report.layers:
        found.append(_layers(report))
    worst = max(report.cells, key=lambda cell: cell.logit_error)
    found.append(_operators(worst, every))
    found.append(_electronics(report))
    return found


def retraining_table(model: str, cells: Sequence[CellRun], trained_with: DeviceOptions) -> Group:
    """Ideal devices and the chosen ones, before and after retraining."""
    table = plain(["", "devices", "as its PyTorch", "correct", "logit error"])
    for place, cell in enumerate(cells):
        table.add_row(
            "" if place % 2 else ("before", "after")[place // 2],
            _devices(cell.options),
            share_of(cell.agree, cell.images),
            "-" if cell.correct is None else share_of(cell.correct, cell.images),
            f"{cell.logit_error:.2g}",
        )
    return titled(
        f"{model} retrained with {_devices(trained_with)}: {cells[0].images} test images",
        table,
        "Logit error and labels: against PyTorch with the weights of the same row.",
    )


def share_of(part: int, images: int) -> str:
    """Images out of all of them, with the percentage."""
    return f"{part} ({part / images:.1%})"


def _sweep(report: RunReport) -> Group:
    numbers = ["photons", "read noise", "ADC", "panels", "logit error", "largest"]
    table = plain([*numbers[:4], "as PyTorch", "correct", *numbers[4:]], numbers=numbers)
    for cell in report.cells:
        options = cell.options
        table.add_row(
            _light(options.photons),
            "-" if options.photons is None else f"{options.read_noise_e:g} e-",
            _bits(options.adc_bits),
            _bits(options.panel_bits),
            share_of(cell.agree, cell.images),
            "-" if cell.correct is None else share_of(cell.correct, cell.images),
            f"{cell.logit_error:.2g}",
            f"{cell.largest_error:.2g}",
        )
    options = report.cells[-1].options
    shifts = []
    if any(options.mask_shift):
        shifts.append(f"the mask lies off by {options.mask_shift} samples")
    if any(options.camera_shift):
        shifts.append(f"the camera lies off by {options.camera_shift} pixels")
    exact = (
        ""
        if report.exact_correct is None
        else (f" PyTorch labels {share_of(report.exact_correct, report.images)} correctly.")
    )
    planes = (
        "smallest planes"
        if options.plane is None
        else f"planes of {options.plane} x {options.plane}"
    )
    return titled(
        f"{report.model} through 4f optics ({', '.join(report.on_optics)}): {report.images} images",
        table,
        f"Scheme {options.scheme}, {options.tiling} tiling, {planes}, light set by "
        f"{report.calibration_images} other images; seed {report.seed}.{exact}",
        *(f"Not with ideal devices: {text}." for text in shifts),
        "Logit error: relative L2 over all images; largest: of one logit.",
    )


def _layers(report: RunReport) -> Group:
    numbers = ["images", "as PyTorch", "logit error", "largest"]
    table = plain(["layer", *numbers], numbers=numbers)
    for layer in report.layers:
        table.add_row(
            escape(layer.layer),
            count(layer.images),
            count(layer.agree),
            f"{layer.logit_error:.2g}",
            f"{layer.largest_error:.2g}",
        )
    return titled(
        "A few images through the other layers",
        table,
        "Propagation: Fresnel from plane to plane, critically sampled; with devices: those of the "
        "sweep's last row.",
    )


def _operators(cell: CellRun, every: bool) -> Group:
    numbers = ["passes", "exposures", "own error", "carried"]
    table = plain(["operator", "kind", *numbers], numbers=numbers)
    rows = sorted(cell.operators, key=lambda row: -row.own_error)
    for row in rows if every else rows[:_WORST]:
        table.add_row(
            escape(row.name),
            row.kind,
            count(row.passes),
            count(row.exposures),
            f"{row.own_error:.2g}",
            f"{row.carried_error:.2g}",
        )
    total = sum(row.exposures for row in cell.operators)
    options = cell.options
    title = "Operators, worst first" if every else f"The worst {min(_WORST, len(rows))} operators"
    return titled(
        f"{title}, of {len(rows)}, with {_light(options.photons)} photons, "
        f"{_bits(options.adc_bits)} ADC, {_bits(options.panel_bits)} panels",
        table,
        f"Exposures for one image: {count(total)} in all. Own error: relative L2 against PyTorch "
        "on the inputs that the operator got; carried: with what came up to it.",
    )


def _electronics(report: RunReport) -> Group:
    table = plain(["kind", "operators", "reason"], numbers=["operators"])
    found = Counter((kind, reason) for _, kind, reason in report.electronics)
    for (kind, reason), times in sorted(found.items()):
        if kind not in ("Input", "Output", "Constant"):
            table.add_row(escape(kind), count(times), escape(reason))
    return titled("In electronics, exact", table)


def _devices(options: DeviceOptions) -> str:
    if options.ideal:
        return "ideal devices"
    return (
        f"{_light(options.photons)} photons, {_bits(options.adc_bits)} ADC, "
        f"{_bits(options.panel_bits)} panels"
    )


def _light(photons: float | None) -> str:
    return "ideal" if photons is None else f"{photons:g}"


def _bits(bits: int | None) -> str:
    return "ideal" if bits is None else f"{bits} bit"
