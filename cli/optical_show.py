"""``vitruvius optical show``: the planes of one layer on a 4f system, as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import VitruviusError
from .optical_options import (
    CameraShift,
    MaskShift,
    ReadNoise,
    SchemeName,
    Shown,
    data_of,
    image_shape,
    operators_on,
    shift,
)
from .options import JsonFile, ModelName, Weights
from .output import Output

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.graph import Graph
    from ..models.resolve import Workload
    from ..optical.frames import LayerFrames
    from ..optical.mapping import Placed
    from ..optical.options import DeviceOptions

__all__ = ["show"]


def show(
    model: ModelName,
    layer: Annotated[
        str | None,
        typer.Option(
            "--layer",
            metavar="L",
            help="An operator or module path, such as blocks.0.attn.qkv. Without it, those that go "
            "on optics are listed.",
            show_default=False,
        ),
    ] = None,
    image: Annotated[
        int, typer.Option("--image", metavar="N", min=0, help="Which test image, from 0.")
    ] = 0,
    kernel: Annotated[
        int, typer.Option("--kernel", metavar="K", help="Which output channel, from 0.")
    ] = 0,
    channel: Annotated[
        int,
        typer.Option(
            "--channel", metavar="C", help="Which input channel, from 0; of scores, which head."
        ),
    ] = 0,
    photons: Annotated[
        float | None,
        typer.Option(
            "--photons",
            metavar="N",
            help="Photons of the brightest pixel. Without it there is no noise.",
            show_default=False,
        ),
    ] = None,
    adc_bits: Annotated[
        int | None,
        typer.Option("--adc-bits", help="Bits of the camera's converter.", show_default=False),
    ] = None,
    panel_bits: Annotated[
        int | None,
        typer.Option(
            "--panel-bits",
            help="Bits of the amplitudes of both panels and of the mask's phases.",
            show_default=False,
        ),
    ] = None,
    read_noise: ReadNoise = 0.0,
    scheme: SchemeName = "split",
    mask_shift: MaskShift = "0",
    camera_shift: CameraShift = "0",
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--inputs",
            metavar="PATH",
            help="A folder of pictures, or an array of floats [n, C, H, W], for a model that no "
            "shipped images fit.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Same seed, same noise.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The figure, .png, .svg or .pdf. Default: out/MODEL.LAYER.png.",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
    json: JsonFile = None,
) -> None:
    """Draw what input panel, Fourier mask and camera hold while one layer computes.

    A column for every exposure, then what electronics make of them, beside PyTorch's result. A
    convolution shows one pair of channels, a Linear all tokens with one output's kernel, attention
    scores every query with every key of one head.

    Example: vitruvius optical show vit_digits --layer blocks.0.attn.qkv --photons 1e4
    """
    output = Output(json)
    from ..optical.frames import find_layer, layer_frames
    from ..optical.mapping import ON_OPTICS
    from ..optical.options import DeviceOptions
    from ..reports.optical_show import check_figure, frames_figure

    options = DeviceOptions.of(
        photons=photons,
        adc_bits=adc_bits,
        panel_bits=panel_bits,
        read_noise_e=read_noise,
        scheme=scheme,
        mask_shift=shift(mask_shift, "--mask-shift"),
        camera_shift=shift(camera_shift, "--camera-shift"),
    )
    if read_noise and photons is None:
        raise VitruviusError("--read-noise counts electrons, which needs --photons")
    if out is not None:
        check_figure(out)
    import torch

    from .workload import load_workload, trace_workload

    workload = load_workload(model, weights)
    graph = trace_workload(workload)
    shown = _shown(workload, image, inputs)
    placed = operators_on(graph, ON_OPTICS, shown)
    if layer is None:
        _list(output, graph, placed)
        return
    found = find_layer(graph, layer, placed)
    images, kernels = _planes(graph, found, shown.images)
    frames = layer_frames(
        found,
        images,
        kernels,
        kernel=kernel,
        channel=channel,
        options=options,
        generator=torch.Generator().manual_seed(seed),
    )
    name = found.operator.name
    path = out or Path("out") / f"{Path(graph.name).name}.{name}.png"
    frames_figure(
        frames,
        path,
        title=f"{graph.name}, {name}: {_what(frames, kernel, channel)}",
        lines=[_devices(options), f"test image {image}" if inputs is None else f"image {image}"],
    )
    output.console.print(
        f"{name} on a plane of {frames.layout.plane[0]} x {frames.layout.plane[1]} samples, "
        f"{len(frames.frames)} exposure{'s' * (len(frames.frames) > 1)}, "
        f"relative error {frames.error:.3g}\nwritten: {path}",
        markup=False,
        highlight=False,
    )
    output.write_json(
        {
            "model": graph.name,
            "layer": name,
            "file": str(path),
            "plane": list(frames.layout.plane),
            "tiles": len(frames.result),
            "exposures": [frame.shown for frame in frames.frames],
            "relative_error": frames.error,
            "devices": options.model_dump(),
        }
    )


def _shown(workload: Workload, image: int, inputs: Path | None) -> Shown:
    """Image number ``image`` [1, C, H, W] of a file, or of the test images."""
    from ..models.images import load_images

    if inputs is not None:
        images, kind = load_images(inputs, image_shape(workload)).images, str(inputs)
    else:
        data = data_of(workload)
        images, kind = data.test_images, f"test images of {data.name}"
    if image >= len(images):
        raise VitruviusError(f"--image: expected 0 to {len(images) - 1} ({kind}), got {image}")
    chosen = images[image : image + 1]
    return Shown(chosen, None, chosen)


def _planes(graph: Graph, placed: Placed, image: Tensor) -> tuple[Tensor, Tensor]:
    """The planes and kernels of an operator for one image, in float64."""
    from ..models.graph import execute
    from ..optical.execution import laid_out

    values: dict[str, Tensor] = dict.fromkeys(graph.inputs, image)
    execute(graph, image, observe=lambda op, value: values.__setitem__(op.name, value))
    operands = [values[name] for name in placed.operator.inputs]
    images, kernels, _ = laid_out(placed, operands, graph).grouped()
    return images.double(), kernels.double()


def _what(frames: LayerFrames, kernel: int, channel: int) -> str:
    work = frames.placed.work
    assert work is not None
    if work.dynamic:
        return f"scores of head {channel}, every query with every key in one frame"
    if frames.placed.operator.kind == "Linear":
        return f"output {kernel} of {work.out_channels} for all {work.images} tokens"
    inputs = work.in_channels // work.groups
    planes = f" for all {work.images} planes" if work.images > 1 else ""
    return (
        f"output channel {kernel} of {work.out_channels}, input channel {channel} of {inputs}"
        + planes
    )


def _devices(options: DeviceOptions) -> str:
    parts = [f"scheme '{options.scheme}'"]
    if options.ideal:
        parts.append("ideal devices: any amplitude and phase, no noise")
    if options.panel_bits is not None:
        parts.append(f"panels of {options.panel_bits} bits")
    if options.photons is not None:
        parts.append(f"{options.photons:g} photons at the brightest pixel")
        if options.read_noise_e:
            parts.append(f"{options.read_noise_e:g} electrons of read noise")
    if options.adc_bits is not None:
        parts.append(f"converter of {options.adc_bits} bits")
    for name, (rows, cols) in (("mask", options.mask_shift), ("camera", options.camera_shift)):
        if rows or cols:
            parts.append(f"{name} off by {rows:g}, {cols:g} samples")
    return ", ".join(parts)


def _list(output: Output, graph: Graph, placed: list[Placed]) -> None:
    from ..reports.optical_show import layers_table

    output.console.print(layers_table(graph.name, placed))
    output.write_json(
        [
            {"layer": item.operator.name, "kind": item.operator.kind, "path": item.operator.path}
            for item in placed
            if item.work is not None
        ]
    )
