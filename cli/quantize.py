"""``vitruvius quantize``: from float to exact integers."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import VitruviusError
from ..reports.writing import check_file
from .options import Calibration, JsonFile, ModelName, Weights
from .output import Output

if TYPE_CHECKING:
    from ..models.agreement import Agreement
    from .workload import Quantized

__all__ = ["quantize"]


class Method(StrEnum):
    """How the range of an activation follows from what calibration saw."""

    MSE = "mse"
    MINMAX = "minmax"
    PERCENTILE = "percentile"


class Scheme(StrEnum):
    """Which integer operators a model becomes."""

    EDGE = "edge"
    IVIT = "ivit"


class IvitMode(StrEnum):
    """How scheme ivit treats the published code's faults."""

    SAFE = "safe"
    FAITHFUL = "faithful"


class IvitOctaves(StrEnum):
    """How many octaves the Shiftmax of scheme ivit reaches."""

    PUBLISHED = "published"
    FITTED = "fitted"


def quantize(
    model: ModelName,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Safetensors file for the integer model.",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
    calibration: Calibration = None,
    scheme: Annotated[
        Scheme,
        typer.Option(
            "--scheme",
            help="Integer operators: those of the accelerator here, or I-ViT's (Shiftmax, "
            "ShiftGELU, I-LayerNorm, 31-bit requantization).",
        ),
    ] = Scheme.EDGE,
    ivit_mode: Annotated[
        IvitMode,
        typer.Option(
            "--ivit-mode",
            help="Only with --scheme ivit: as the published code computes, or without its faults.",
        ),
    ] = IvitMode.SAFE,
    ivit_octaves: Annotated[
        IvitOctaves,
        typer.Option(
            "--ivit-octaves",
            help="Only with --scheme ivit: 15 for every Shiftmax, or as few as the scores of each "
            "attention can reach, which keeps attention over many alike scores exact.",
        ),
    ] = IvitOctaves.PUBLISHED,
    calibration_method: Annotated[
        Method,
        typer.Option(
            "--calibration-method",
            help="Range of an activation: least mean square error, largest magnitude, or the "
            "magnitude that --percentile % of the values stay below.",
        ),
    ] = Method.MSE,
    percentile: Annotated[
        float, typer.Option("--percentile", help="Only with --calibration-method percentile.")
    ] = 99.99,
    weight_bits: Annotated[
        int,
        typer.Option("--weight-bits", metavar="8|6|4", help="Width of weights; 8 in scheme ivit."),
    ] = 8,
    activation_bits: Annotated[
        int,
        typer.Option(
            "--activation-bits",
            metavar="8|6|4",
            help="Width of codes between operators; 8 in scheme ivit.",
        ),
    ] = 8,
    equalise: Annotated[
        bool,
        typer.Option(
            "--equalise/--no-equalise",
            help="Even out the channels of a tensor with factors folded into its neighbours, where "
            "that lowers the error.",
        ),
    ] = True,
    bias_correction: Annotated[
        bool,
        typer.Option(
            "--bias-correction/--no-bias-correction",
            help="Take the mean error of each product out of its bias.",
        ),
    ] = True,
    mean: Annotated[
        str,
        typer.Option(
            "--mean",
            metavar="M[,M,M]",
            help="Subtracted from pixels of 0 to 1 in a folder of pictures.",
            show_default=False,
        ),
    ] = "",
    std: Annotated[
        str,
        typer.Option(
            "--std",
            metavar="S[,S,S]",
            help="Divides pixels in a folder of pictures, after --mean.",
            show_default=False,
        ),
    ] = "",
    images: Annotated[
        int,
        typer.Option("--images", help="At most so many pictures of a folder, evenly spread."),
    ] = 256,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse a folder with pictures that cannot be read."),
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(
            "--top",
            help="Rows of the tables: the worst layers, the fullest accumulators. Default: all "
            "layers, the 5 fullest.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE.svg|png",
            help="Draw the signal to noise along the depth.",
            show_default=False,
        ),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Turn a model into exact integers and show how well each layer is kept.

    Ranges are calibrated on images; the residual stream has 16 bits whatever the other widths.
    SQNR is the signal to quantization noise of each tensor, accumulated up to there. A model with
    a test set also gets its accuracy, float and integer; without one, the last fifth of the images
    of --calibration is held out to compare both. The file of --out can be given as MODEL to
    generate, estimate and cosim.

    Example: vitruvius quantize vit_digits --weight-bits 4 --out out/vit_digits.safetensors
    """
    output = Output(json)
    if out is not None:
        check_file(out)
        if out.suffix != ".safetensors":
            raise VitruviusError(f"--out expects a name that ends in .safetensors, got {out}")
    if model.endswith(".safetensors"):
        raise VitruviusError(f"{model} is quantized already; give the model it came from")
    for option, chosen, default in (
        ("--ivit-mode", ivit_mode, IvitMode.SAFE),
        ("--ivit-octaves", ivit_octaves, IvitOctaves.PUBLISHED),
    ):
        if chosen is not default and scheme is not Scheme.IVIT:
            raise VitruviusError(f"{option} {chosen.value} goes with --scheme ivit only")
    if top is not None and top < 1:
        raise VitruviusError(f"--top expects at least 1, got {top}")
    from ..models.agreement import agreement
    from ..models.images import ImageReading
    from ..models.quantization_options import quantization_options
    from ..models.train import accuracy
    from ..reports.quantization import (
        agreement_line,
        bounds_table,
        check_plot,
        equalised_line,
        quality_plot,
        quality_table,
    )
    from ..reports.table import accuracy_lines
    from .workload import quantized

    if plot is not None:
        check_plot(plot)
    options = quantization_options(
        scheme=scheme.value,
        ivit_mode=ivit_mode.value,
        ivit_octaves=ivit_octaves.value,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        calibration=calibration_method.value,
        percentile=percentile,
        equalise=equalise,
        bias_correction=bias_correction,
    )
    reading = ImageReading(images, _numbers("--mean", mean), _numbers("--std", std), strict)
    source = quantized(
        model,
        weights=weights,
        calibration=calibration,
        reading=reading,
        options=options,
        holding_out=True,
    )
    if source.warning:
        typer.echo(f"warning: {source.warning}", err=True)
    scores: dict[str, float | int] = {}
    compared = source.held_out
    if source.dataset is not None and source.workload is not None:
        compared, labels = source.dataset.test_images, source.dataset.test_labels
        scores = {
            "images": len(labels),
            "float": accuracy(source.workload.module, compared, labels),
            "integer": source.model.accuracy(compared, labels),
        }
    agreed = None
    if source.graph is not None and compared is not None and len(compared):
        agreed = agreement(source.model, source.graph, compared)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        source.model.save(out)
    if plot is not None:
        quality_plot(source.model, plot)
    console = output.console
    console.print(quality_table(source.model, top))
    console.print(bounds_table(source.model, top or 5))
    named: str = options.scheme
    if options.scheme == "ivit":
        named += f", {options.ivit_mode}, {options.ivit_octaves} octaves"
    lines = [f"scheme {named}; {options.label}, residual stream {options.residual_bits} bits"]
    if source.model.tasks > 1:
        lines.append(
            f"tasks: {source.model.tasks}, each with gates of its own; the tables are of the first"
        )
    lines.append(equalised_line(source.equalised))
    if scores:
        lines.append(accuracy_lines(int(scores["images"]), scores["float"], scores["integer"]))
    if agreed is not None:
        kind = "test images" if scores else "images held out of --calibration (its last fifth)"
        lines.append(agreement_line(agreed, kind))
    elif compared is not None and not len(compared):
        lines.append("agreement with float: not measured, fewer than 5 calibration images")
    lines += [f"written: {path}" for path in (out, plot) if path is not None]
    for line in lines:
        console.print(line, markup=False, highlight=False)
    record = _record(source, scores, agreed)
    output.write_json(
        {"file": None if out is None else str(out), "options": options.model_dump(), **record}
    )


def _record(
    source: Quantized, scores: dict[str, float | int], agreed: Agreement | None
) -> dict[str, object]:
    """What was found, as plain values; an SQNR without noise is null."""
    return {
        "model": source.model.name,
        "tasks": source.model.tasks,
        "calibration_images": 0 if source.calibration is None else len(source.calibration),
        "warning": source.warning or None,
        "accuracy": scores or None,
        "agreement": None
        if agreed is None
        else {
            "images": agreed.images,
            "held_out_of_calibration": not scores,
            "top1": agreed.top1,
            "sqnr_db": _finite(agreed.sqnr_db),
        },
        "layers": [
            {
                "name": item.name,
                "kind": item.kind,
                "bits": item.bits,
                "scale": item.scale,
                "sqnr_db": _finite(item.sqnr_db),
                "clipped": item.clipped,
            }
            for item in source.model.quality
        ],
        "equalised": [
            {"name": item.name, "spread": item.spread, "gain_db": item.gain_db}
            for item in source.equalised
        ],
        "accumulators": [
            {"operator": row.operator, "what": row.what, "bound": row.bound, "limit": row.limit}
            for row in source.model.accumulator_bounds()
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise VitruviusError(
            f"{option} expects numbers separated by commas, got '{text}'"
        ) from None
