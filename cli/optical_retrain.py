"""``vitruvius optical retrain``: a model that learns to live with the devices of a 4f system."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import VitruviusError
from ..reports.writing import check_file
from .optical_options import (
    AdcBits,
    CameraShift,
    Images,
    MapTo,
    MaskShift,
    PanelBits,
    Photons,
    ReadNoise,
    SchemeName,
    forms_of,
    image_shape,
    numbers,
    only,
    operators_on,
    shift,
    shipped,
    shown_images,
    whole_numbers,
)
from .options import JsonFile, ModelName, Weights
from .output import Output

__all__ = ["retrain"]


def retrain(
    model: ModelName,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Safetensors file for the weights.")
    ] = Path("out/retrained.safetensors"),
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the training images.")] = 10,
    rate: Annotated[
        float, typer.Option("--rate", help="Learning rate at the start; it falls to zero.")
    ] = 3e-4,
    photons: Photons = "1e3",
    adc_bits: AdcBits = "12",
    panel_bits: PanelBits = "8",
    read_noise: ReadNoise = 5.0,
    ideal: Annotated[
        bool,
        typer.Option(
            "--ideal",
            help="A control: as long, with ideal devices instead of those above.",
        ),
    ] = False,
    scheme: SchemeName = "split",
    forms: MapTo = "conv+linear+scores",
    mask_shift: MaskShift = "0",
    camera_shift: CameraShift = "0",
    images: Images = 200,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Same seed, same weights.")
    ] = 0,
    weights: Weights = None,
    json: JsonFile = None,
) -> None:
    """Retrain a model with the devices of a 4f system in its forward pass.

    Forwards, every operator on optics has rounded panels, noise and a converter; backwards, the
    gradient of the exact operator. Training images are those that ship with the model. The test
    images are run before and after, with the same devices and without. An interrupted run goes on
    from its last epoch when the command is given again. With --panel-bits none masks need no
    transforms, which is much faster.

    Example: vitruvius optical retrain vit_digits --photons 1e2 --out quiet.safetensors, and then
    vitruvius optical run vit_digits --weights quiet.safetensors --photons 1e2,1e3
    """
    output = Output(json)
    check_file(out)
    from ..optical.options import DeviceOptions
    from ..optical.retraining import check_retraining
    from ..optical.retraining import retrain as retrain_model
    from ..optical.run import run_cell
    from ..reports.optical_run import retraining_table
    from .workload import load_workload, trace_workload

    shifts = shift(mask_shift, "--mask-shift"), shift(camera_shift, "--camera-shift")
    light = only(numbers(photons, "--photons"), "--photons")
    options = DeviceOptions.of(
        photons=light,
        read_noise_e=read_noise if light is not None else 0.0,
        adc_bits=only(whole_numbers(adc_bits, "--adc-bits"), "--adc-bits"),
        panel_bits=only(whole_numbers(panel_bits, "--panel-bits"), "--panel-bits"),
        scheme=scheme,
        mask_shift=shifts[0],
        camera_shift=shifts[1],
    )
    check_retraining(options, epochs, seed, rate)
    on_optics = forms_of(forms)
    trained_with = DeviceOptions(scheme=options.scheme) if ideal else options
    workload = load_workload(model, weights)
    if shipped(workload) is None:
        sizes = " x ".join(str(size) for size in image_shape(workload))
        raise VitruviusError(
            f"{model} reads images of {sizes}, and no labelled ones of that shape ship to train "
            "on: expected a model of 1 x 8 x 8 or 3 x 28 x 28"
        )
    shown = shown_images(workload, images, None)
    graph = trace_workload(workload)
    placed = operators_on(graph, on_optics, shown)
    assert shown.data is not None
    progress = output.progress
    cells = []

    def report(epoch: int, of: int, loss: float) -> None:
        progress.print(f"epoch {epoch} of {of}: loss {loss:.4f}", end="\r", highlight=False)

    for again in (False, True):
        if again:
            result = retrain_model(
                workload.module,
                graph,
                placed,
                shown.data,
                trained_with,
                out,
                epochs=epochs,
                seed=seed,
                rate=rate,
                progress=report,
            )
            graph = trace_workload(workload)
            placed = operators_on(graph, on_optics, shown)
        for chosen in (DeviceOptions(scheme=options.scheme), options):
            cell = run_cell(
                graph,
                placed,
                chosen,
                shown.images,
                shown.calibration,
                labels=shown.labels,
                seed=seed,
            )
            cells.append(cell)
    output.console.print(retraining_table(graph.name, cells, trained_with))
    output.console.print(
        f"{epochs} epochs, seed {seed}, {result.wall_s:.0f} s\nwritten: {out}",
        markup=False,
        highlight=False,
    )
    output.write_json(
        {
            "model": graph.name,
            "file": str(out),
            "epochs": epochs,
            "seed": seed,
            "rate": rate,
            "loss": result.loss,
            "trained_with": trained_with.model_dump(mode="json"),
            "before": [cell.record() for cell in cells[:2]],
            "after": [cell.record() for cell in cells[2:]],
            "wall_s": result.wall_s,
        }
    )
