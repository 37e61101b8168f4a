"""``vitruvius optical run``: a model through a 4f system, for one set of devices after another."""

from __future__ import annotations

import json as plain_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import VitruviusError
from .optical_options import (
    AdcBits,
    CameraShift,
    Images,
    MapTo,
    MaskShift,
    PanelBits,
    Photons,
    Plane,
    ReadNoise,
    SchemeName,
    TilingName,
    forms_of,
    numbers,
    operators_on,
    shift,
    shown_images,
    whole_numbers,
)
from .options import JsonFile, ModelName, Weights
from .output import Output

if TYPE_CHECKING:
    from ..models.graph import Graph
    from ..optical.mapping import Placed
    from ..optical.options import DeviceOptions
    from ..optical.run import CellRun
    from .optical_options import Shown

__all__ = ["run"]


def run(
    model: ModelName,
    images: Images = 100,
    photons: Photons = "1e5,1e4,1e3",
    adc_bits: AdcBits = "12",
    panel_bits: PanelBits = "8",
    read_noise: ReadNoise = 5.0,
    scheme: SchemeName = "split",
    forms: MapTo = "conv+linear+scores",
    mask_shift: MaskShift = "0",
    camera_shift: CameraShift = "0",
    plane: Plane = None,
    tiling: TilingName = "input",
    propagate: Annotated[
        int,
        typer.Option(
            "--propagate",
            metavar="N",
            min=0,
            help="The first N images also through the math layer and through waves that travel.",
        ),
    ] = 0,
    operators: Annotated[
        bool, typer.Option("--operators", help="List every operator, not the ten worst.")
    ] = False,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--inputs",
            metavar="PATH",
            help="A folder of pictures, or an array of floats [n, C, H, W] as .npy, .npz, .pt or "
            ".safetensors, for a model that no shipped images fit: the last ones are run, the "
            "others set the light.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Same seed, same noise.")
    ] = 0,
    weights: Weights = None,
    json: JsonFile = None,
) -> None:
    """Run a model with its convolutions, linear layers and attention scores on a 4f system.

    Every combination of --photons, --adc-bits and --panel-bits is run on the test images, after
    one with ideal devices, and compared with PyTorch: labels, logits, and every operator on the
    inputs that it got. Light and panels are set by training images, once for every kernel; a
    pixel brighter than the well stays at the well. Biases, softmax, norms, activations and
    weighted sums of values stay in electronics, exact.

    What a file of --json holds of the same model, images and devices is not computed again, so
    that an interrupted sweep goes on.

    Example: vitruvius optical run vit_digits --photons 1e3,1e4 --panel-bits 6,8 --json sweep.json
    """
    output = Output(json)
    from ..optical.options import DeviceOptions
    from ..optical.run import cells

    light = numbers(photons, "--photons")
    base = DeviceOptions.of(
        photons=light[0] if light else None,
        read_noise_e=read_noise if light else 0.0,
        mask_shift=shift(mask_shift, "--mask-shift"),
        camera_shift=shift(camera_shift, "--camera-shift"),
        scheme=scheme,
        plane=plane,
        tiling=tiling,
    )
    wanted = cells(
        base,
        photons=light,
        adc_bits=whole_numbers(adc_bits, "--adc-bits"),
        panel_bits=whole_numbers(panel_bits, "--panel-bits"),
    )
    if propagate > images:
        raise VitruviusError(f"--propagate: expected at most --images {images}, got {propagate}")
    on_optics = forms_of(forms)
    from .workload import load_workload, trace_workload

    workload = load_workload(model, weights)
    shown = shown_images(workload, images, inputs)
    graph = trace_workload(workload)
    placed = operators_on(graph, on_optics, shown)
    ideal = DeviceOptions.of(scheme=scheme, plane=plane, tiling=tiling)
    _sweep(
        output,
        None if json in (None, "-") else Path(str(json)),
        graph,
        placed,
        shown,
        [ideal, *(options for options in wanted if options != ideal)],
        on_optics,
        propagate,
        seed,
        operators,
    )


def _sweep(
    output: Output,
    file: Path | None,
    graph: Graph,
    placed: list[Placed],
    shown: Shown,
    wanted: list[DeviceOptions],
    on_optics: tuple[str, ...],
    propagate: int,
    seed: int,
    every: bool,
) -> None:
    import torch

    from ..models.graph import execute
    from ..optical.run import RunReport, digest, run_cell, run_layers
    from ..reports.optical_run import run_tables

    progress = output.progress
    setting = {
        "model": graph.name,
        "values": digest(graph, shown.images),
        "on_optics": list(on_optics),
        "calibration_images": len(shown.calibration),
        "seed": seed,
    }
    kept = _kept(file, setting)
    done: list[CellRun] = []
    for place, options in enumerate(wanted, 1):
        known = next((cell for cell in kept if cell.options == options), None)
        if known is None:

            def told(image: int, place: int = place) -> None:
                progress.print(
                    f"devices {place} of {len(wanted)}: image {image} of {len(shown.images)}",
                    end="\r",
                    highlight=False,
                )

            known = run_cell(
                graph,
                placed,
                options,
                shown.images,
                shown.calibration,
                labels=shown.labels,
                seed=seed,
                progress=told,
            )
        done.append(known)
        if file is not None:
            cells = [*done, *(cell for cell in kept if cell not in done)]
            records = [cell.record() for cell in cells]
            output.write_json({"setting": setting, "finished": False, "cells": records})
    layers = []
    if propagate:
        few = shown.images[:propagate]
        for layer in run_layers(graph, placed, wanted[-1], few, shown.calibration, seed=seed):
            progress.print(f"{layer.layer}: done", end="\r", highlight=False)
            layers.append(layer)
    correct = None
    if shown.labels is not None:
        answers = execute(graph, shown.images).flatten(1).argmax(-1)
        correct = int(torch.eq(answers, shown.labels).sum())
    report = RunReport(
        model=graph.name,
        on_optics=on_optics,
        images=len(shown.images),
        calibration_images=len(shown.calibration),
        seed=seed,
        exact_correct=correct,
        layers=tuple(layers),
        cells=tuple(done),
        electronics=tuple(
            (item.operator.name, item.operator.kind, item.reason)
            for item in placed
            if item.work is None
        ),
    )
    for part in run_tables(report, every=every):
        output.console.print(part)
    output.write_json({"setting": setting, "finished": True} | report.record())


def _kept(file: Path | None, setting: dict[str, object]) -> list[CellRun]:
    """What a file of an earlier sweep holds for the same ``setting``."""
    from ..optical.run import CellRun

    if file is None or not file.is_file():
        return []
    try:
        record = plain_json.loads(file.read_text(encoding="utf-8"))
        if record["setting"] != setting:
            return []
        return [CellRun.restored(cell) for cell in record["cells"]]
    except (ValueError, KeyError, TypeError):
        return []
