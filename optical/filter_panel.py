"""The pixels of the filter panel: a mask that is the same all over each pixel.

Pixels of pitch p hold the mask's values at their centres. At the camera, the point response is then
multiplied by the spectrum of one pixel, sqrt(FF) sinc(sqrt(FF) p x / (wavelength f)) along each
axis, and repeated every wavelength f / p (Goodman, *Introduction to Fourier Optics*, sampling).
The first is undone by dividing the kernel's taps; the second asks for room on the camera.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import VitruviusError
from .panel import Panel
from .system4f import System4f

__all__ = ["held", "precompensated", "repetition_m"]


def held(mask: Tensor, panel: Panel) -> Tensor:
    """``mask`` [..., N, M] on the grid of ``panel`` as its pixels show it, [..., N, M].

    Raises ``VitruviusError`` when the mask is on another grid.
    """
    expected = (panel.rows * panel.samples, panel.cols * panel.samples)
    if tuple(mask.shape[-2:]) != expected:
        raise VitruviusError(
            f"expected a mask [..., {expected[0]}, {expected[1]}], {panel.samples} samples for "
            f"each of {panel.rows} x {panel.cols} pixels, got {list(mask.shape)}"
        )
    return panel.show(panel.read(mask))


def repetition_m(panel: Panel, system: System4f) -> float:
    """How far apart the point response is repeated at the camera, wavelength f / pitch."""
    return system.grid.wavelength_m * system.focal_m / panel.pitch_m


def precompensated(
    kernel: Tensor, panel: Panel, system: System4f, *, image_m: tuple[float, float], pitch_m: float
) -> Tensor:
    """``kernel`` [..., kh, kw] divided by what the pixels of ``panel`` make of its taps, which lie
    ``pitch_m`` apart at the camera; so that the held mask computes with ``kernel`` itself.

    ``image_m`` is the height and width of the image. Raises ``VitruviusError`` when repeated taps
    reach into it, where as many samples as the image has are read ("same").
    """
    apart = repetition_m(panel, system)
    focal_waves = system.grid.wavelength_m * system.focal_m
    for axis, extent in zip((-2, -1), image_m, strict=True):
        taps = kernel.shape[axis]
        # as wide as the tile of a "same" readout: repeated taps meet no sample of the image
        needed = extent + (taps // 2) * pitch_m
        if needed > apart * (1 + 1e-9):
            raise VitruviusError(
                f"a filter panel with pixels of {panel.pitch_m * 1e6:.4g} um repeats the kernel "
                f"every {apart * 1e3:.4g} mm, and image and kernel need {needed * 1e3:.4g} mm: "
                f"expected pixels of at most {focal_waves / needed * 1e6:.4g} um, a longer focal "
                "length or a smaller image"
            )
        places = torch.arange(taps, dtype=torch.float64) - (taps - 1) // 2
        weights = panel.envelope(places * pitch_m / focal_waves).to(kernel.dtype)
        kernel = kernel / (weights[:, None] if axis == -2 else weights)
    return kernel
