"""Measures the convolution layer of the 4f optics: docs/optical_math.md.

    .venv/bin/python benchmarks/optical_convolution.py [--write]

Frames of each tiling by formula, errors against ``conv2d``, errors when a device is not perfect,
and the time of one exposure beside one plane-sized ``fft2`` and ``ifft2``. Prints the tables, or
writes them between the page's marks. Times are CPU time of one thread, the least of several runs;
only their ratios are meant to last.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.optical.bench import Bench
from vitruvius.optical.camera import Camera
from vitruvius.optical.convolution import Conv4f, correlations
from vitruvius.optical.tiling import Readout, Tiling, arrange

__all__ = ["DEVICES", "FRAMES", "PAGE", "SPEED", "device_row", "frames", "main"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "optical_math.md"
FRAMES = (
    "<!-- computed by benchmarks/optical_convolution.py: frames and errors -->",
    "<!-- end of frames and errors -->",
)
DEVICES = (
    "<!-- computed by benchmarks/optical_convolution.py: devices -->",
    "<!-- end of devices -->",
)
SPEED = (
    "<!-- measured by benchmarks/optical_convolution.py: speed -->",
    "<!-- end of speed -->",
)
TILINGS: tuple[Tiling, ...] = get_args(Tiling)
READOUTS: tuple[Readout, ...] = get_args(Readout)


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def error(tiling: Tiling, dtype: torch.dtype) -> float:
    """The largest relative L2 error of signed images and kernels over readouts, odd and even
    sizes.
    """
    worst = 0.0
    for size, kernel in (((16, 16), (5, 5)), ((15, 12), (4, 4)), ((9, 14), (2, 7))):
        images, weight = normal(3, 8, *size, seed=1), normal(8, 8, *kernel, seed=2)
        kh, kw = kernel
        pads = {
            "valid": (0, 0, 0, 0),
            "same": ((kw - 1) // 2, kw // 2, (kh - 1) // 2, kh // 2),
            "full": (kw - 1, kw - 1, kh - 1, kh - 1),
        }
        for readout in READOUTS:
            wanted = functional.conv2d(functional.pad(images, pads[readout]), weight)
            layer = Conv4f(weight.to(dtype), readout=readout, tiling=tiling)
            got = layer(images.to(dtype)).detach().double()
            worst = max(worst, float((got - wanted).norm() / wanted.norm()))
    return worst


def frames() -> Iterator[str]:
    """Frames of two layers with each tiling, and the layer's errors."""
    yield "| tiling | convolution | linear layer | scores | error, float64 | float32 |"
    yield "| --- | --- | --- | --- | --- | --- |"
    plane = (2160, 2160)
    for tiling in TILINGS:
        counts = [
            arrange(
                tiling,
                size,
                kernel,
                readout,
                plane,
                images=images,
                channels=channels,
                kernels=kernels,
            ).frames(images, channels, kernels, groups)
            for size, kernel, readout, images, channels, kernels, groups in (
                ((32, 32), (5, 5), "same", 64, 16, 32, 1),
                ((8, 8), (8, 8), "valid", 100 * 65, 1, 64, 1),
                ((8, 8), (8, 8), "valid", 65, 1, 65, 100),
            )
        ]
        cells = " | ".join(f"{count:,}" for count in counts)
        bounds = [
            "below 1e-13" if error(tiling, torch.float64) < 1e-13 else "above",
            "below 1e-6" if error(tiling, torch.float32) < 1e-6 else "above",
        ]
        yield f"| {tiling} | {cells} | {bounds[0]} | {bounds[1]} |"


BENCHES: dict[str, Callable[[], Bench]] = {
    "8-bit input": lambda: Bench((72, 72), input_levels=256),
    "8-bit mask amplitude": lambda: Bench((72, 72), mask_amplitude_levels=256),
    "8-bit mask phase": lambda: Bench((72, 72), mask_phase_levels=256),
    "mask 0.1 off": lambda: Bench((72, 72), mask_shift=(0.1, 0.1)),
    "camera 0.1 off": lambda: Bench((72, 72), camera_shift=(0.1, 0.1)),
    "10-bit ADC": lambda: Bench((72, 72), camera=Camera(adc_bits=10)),
    "1e4 photons": lambda: Bench((72, 72), camera=Camera(photons=1e4)),
}


def device_row(name: str) -> str:
    """Errors of one layer with one device that is not perfect, for each tiling."""
    images, weight = normal(4, 9, 8, 8, seed=3).abs(), normal(9, 9, 3, 3, seed=4)
    wanted = functional.conv2d(images, weight)
    cells = []
    for tiling in TILINGS:
        got = BENCHES[name]().convolve(
            images,
            weight,
            readout="valid",
            tiling=tiling,
            signed_input=False,
            generator=torch.Generator().manual_seed(5),
        )
        cells.append(f"{float((got - wanted).norm() / wanted.norm()):.1e}")
    return f"| {name} | {' | '.join(cells)} |"


def devices() -> Iterator[str]:
    """The table of all devices; the row with noise comes last."""
    yield f"| device | {' | '.join(TILINGS)} |"
    yield f"| --- |{' --- |' * len(TILINGS)}"
    yield from (device_row(name) for name in BENCHES)


def timed(run: Callable[[], object], repeats: int) -> float:
    """Least seconds of CPU time of ``repeats`` runs after one that warms up."""
    run()
    seconds = []
    for _ in range(repeats):
        start = process_time()
        run()
        seconds.append(process_time() - start)
    return min(seconds)


def setups(side: int, batch: int) -> Iterator[tuple[Callable[[], Tensor], int]]:
    """Layers that fill planes of ``side`` samples, signed, and the exposures each takes."""
    plane, slots = (side, side), side // 36
    generator = torch.Generator().manual_seed(side)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    for tiling, images, kernels in (
        ("none", (batch, 1, side - 4, side - 4), (1, 1)),
        ("input", (batch * slots**2, 1, 32, 32), (1, 1)),
        ("kernel", (batch, 1, 32, 32), (slots**2, 1)),
        ("channel", (batch, slots**2, 32, 32), (1, slots**2)),
    ):
        readout: Readout = "same" if tiling == "none" else "full"
        layer = Conv4f(random(*kernels, 5, 5), readout=readout, tiling=tiling, plane=plane)  # type: ignore[arg-type]
        values = random(*images)
        yield (
            (lambda layer=layer, values=values: layer(values)),
            layer.frames(  # type: ignore[misc]
                batch if tiling != "input" else images[0], *images[2:]
            ),
        )
    tokens = int((side // 8) ** 0.5)
    queries, keys = (random(batch, tokens**2, 8, 8) for _ in range(2))
    yield (lambda: correlations(queries, keys, plane=plane)), 4 * batch


def speed() -> Iterator[str]:
    """Time of one exposure over that of one ``fft2`` and ``ifft2`` of as many planes."""
    yield (
        "| plane | batch | fft2 + ifft2 of a plane, ms | one image (none) | input | kernel "
        "| channel | scores (mixed) |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for side in (512, 1080, 2160):
        for batch in (1, 4, 8):
            values = torch.rand(batch, side, side)
            repeats = {512: 8, 1080: 3}.get(side, 2)

            def pair(values: Tensor = values) -> Tensor:
                back: Tensor = torch.fft.ifft2(torch.fft.fft2(values))
                return back

            pairs = [timed(pair, repeats)]
            layers = [timed(run, repeats) / count for run, count in setups(side, batch)]
            pairs.append(timed(pair, repeats))
            single = min(pairs) / batch
            cells = " | ".join(f"{layer / single:.2f}" for layer in layers)
            yield f"| {side} x {side} | {batch} | {single * 1e3:.1f} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    page = PAGE.read_text(encoding="utf-8") if arguments.write else ""
    for marks, lines in ((FRAMES, frames()), (DEVICES, devices()), (SPEED, speed())):
        if arguments.write:
            page = replaced(page, *marks, list(lines))
        else:
            print("\n".join([*lines, ""]), flush=True)
    if arguments.write:
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
