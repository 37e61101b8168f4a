"""``vitruvius sqnr``: signal to quantization noise of every tensor, at several widths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import VitruviusError
from .options import Calibration, JsonFile
from .output import Output

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ..models.resolve import Workload

__all__ = ["sqnr"]

_LARGE = 50_000_000
_RANDOM = "{model} has random weights: its ratios are those of its shape, not of a trained model"


def sqnr(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="One or several models that take images, as for 'vitruvius trace'.",
            show_default=False,
        ),
    ],
    bits: Annotated[
        str,
        typer.Option(
            "--bits",
            metavar="WIDTHS,...",
            help="Bits of weights and activations: w8a8, w8a16, w4a16, w4a8, and how many weights "
            "share a scale, such as w4a16g32.",
        ),
    ] = "w8a16,w4a16,w8a8",
    images: Annotated[
        int, typer.Option("--images", metavar="N", min=1, help="Images to measure on.")
    ] = 2,
    tensors: Annotated[bool, typer.Option("--tensors", help="Also list every tensor.")] = False,
    calibration: Calibration = None,
    json: JsonFile = None,
) -> None:
    """Measure what integer codes of given widths cost in signal to noise, tensor by tensor.

    Products are exact on codes, with a scale for each output of a weight and one for an activation;
    norms, softmax and activation functions are evaluated on what the codes stand for and rounded
    back. Images are crops of photographs, the same for all models of a size; with --calibration the
    last N of its images are measured on, the others give the scales.

    Example: vitruvius sqnr autoneural_encoder_tiny internvit_tiny --bits w8a16,w4a16,w8a8
    """
    output = Output(json)
    from ..models.code_widths import CodeWidths
    from ..models.resolve import resolve_model
    from ..models.sqnr import sqnr_report
    from ..reports.sqnr import sqnr_table, tensors_table
    from .workload import trace_workload

    widths = [CodeWidths.parsed(text.strip()) for text in bits.split(",")]
    if len({width.name for width in widths}) < len(widths):
        raise VitruviusError(f"--bits: expected different widths, got '{bits}'")
    reports, warnings = [], []
    for model in models:
        workload = resolve_model(model, shapes=True)
        first = workload.example_inputs[0]
        if first.is_meta or sum(p.numel() for p in workload.module.parameters()) > _LARGE:
            raise VitruviusError(
                f"{model}: more than 50 M parameters are not executed on codes; take a narrower "
                "model of the same shape"
            )
        given, measured = _images(model, workload, images, calibration)
        if workload.dataset is None:
            warnings.append(_RANDOM.format(model=model))
        reports.append(sqnr_report(trace_workload(workload), given, measured, widths))
    output.console.print(sqnr_table(reports))
    for text in warnings:
        output.console.print(f"warning: {text}", markup=False, highlight=False)
    if tensors:
        for report in reports:
            output.console.print(tensors_table(report))
    output.write_json([report.record() for report in reports])


def _images(
    model: str, workload: Workload, count: int, calibration: Path | None
) -> tuple[Tensor, Tensor]:
    """Images that give the scales, and others to measure on."""
    from ..models.datasets import photographs
    from ..models.images import load_images

    shape = tuple(workload.example_inputs[0].shape[1:])
    floats = workload.example_inputs[0].is_floating_point()
    if len(workload.example_inputs) != 1 or len(shape) != 3 or not floats:
        raise VitruviusError(f"{model} takes no images: expected one input [n, C, H, W] of floats")
    if calibration is not None:
        found = load_images(calibration, shape).images
        if len(found) <= count or tuple(found.shape[1:]) != shape:
            raise VitruviusError(
                f"{calibration}: expected more than {count} images {list(shape)}, "
                f"got {list(found.shape)}"
            )
        return found[:-count], found[-count:]
    if workload.dataset is not None:
        return workload.dataset.calibration_images[:16], workload.dataset.test_images[:count]
    if shape[0] != 3:
        raise VitruviusError(f"{model}: expected 3 channels for photographs; give --calibration")
    size = (shape[1], shape[2])
    return photographs(4, size), photographs(count, size, seed=1)
