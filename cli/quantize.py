"""``vitruvius quantize``: from float to exact integers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import VitruviusError
from ..reports.writing import check_file
from .options import Calibration, JsonFile, ModelName, Weights
from .output import Output

__all__ = ["quantize"]


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
    json: JsonFile = None,
) -> None:
    """Turn a model into exact integers and show how well each layer is kept.

    Ranges are calibrated on images; the scheme is 8-bit weights and activations with a 16-bit
    residual stream. SQNR is the signal to quantization noise of each tensor, accumulated up to
    there. A model with a test set also gets its accuracy, float and integer. The file of --out can
    be given as MODEL to generate, estimate and cosim.

    Example: vitruvius quantize vit_digits --out out/vit_digits.safetensors
    """
    output = Output(json)
    if out is not None:
        check_file(out)
        if out.suffix != ".safetensors":
            raise VitruviusError(f"--out expects a name that ends in .safetensors, got {out}")
    if model.endswith(".safetensors"):
        raise VitruviusError(f"{model} is quantized already; give the model it came from")
    from ..models.train import accuracy
    from ..reports.table import accuracy_lines, quality_table
    from .workload import quantized

    source = quantized(model, weights=weights, calibration=calibration)
    scores: dict[str, float | int] = {}
    if source.dataset is not None and source.workload is not None:
        images, labels = source.dataset.test_images, source.dataset.test_labels
        scores = {
            "images": len(labels),
            "float": accuracy(source.workload.module, images, labels),
            "integer": source.model.accuracy(images, labels),
        }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        source.model.save(out)
    console = output.console
    console.print(quality_table(source.model))
    if scores:
        console.print(
            accuracy_lines(int(scores["images"]), scores["float"], scores["integer"]),
            highlight=False,
        )
    if out is not None:
        console.print(f"written: {out}", markup=False, highlight=False)
    output.write_json(
        {
            "model": source.model.name,
            "file": None if out is None else str(out),
            "calibration_images": 0 if source.calibration is None else len(source.calibration),
            "accuracy": scores or None,
            "layers": [
                {
                    "name": item.name,
                    "kind": item.kind,
                    "bits": item.bits,
                    "scale": item.scale,
                    "sqnr_db": item.sqnr_db,
                    "clipped": item.clipped,
                }
                for item in source.model.quality
            ],
        }
    )
