"""A pixelated panel: what its pixels make of the values written to it, and of its Fourier plane."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, pi, sqrt

import torch
from torch import Tensor

from ..errors import VitruviusError
from .grid import Grid
from .planes import input_plane

__all__ = ["Panel"]


@dataclass(frozen=True)
class Panel:
    """``rows`` x ``cols`` square pixels, ``pitch_m`` apart, of which the area ``fill_factor`` is
    active, computed with ``samples`` x ``samples`` samples each.

    The axis is the centre of pixel ``N // 2``, on sample ``N samples // 2``. Samples that the
    active area covers in part count by that part.
    Raises ``VitruviusError`` for a value out of range.
    """

    rows: int
    cols: int
    pitch_m: float
    fill_factor: float = 1.0
    samples: int = 5

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least 1, got {value}"
            for name, value in (
                ("rows", self.rows),
                ("cols", self.cols),
                ("samples", self.samples),
            )
            if value < 1
        ]
        if not (isfinite(self.pitch_m) and self.pitch_m > 0):
            problems.append(f"pitch_m must be a positive length, got {self.pitch_m}")
        if not 0 < self.fill_factor <= 1:
            problems.append(f"fill_factor must be above 0 and at most 1, got {self.fill_factor}")
        if problems:
            raise VitruviusError("panel: " + "; ".join(problems))

    @property
    def bandwidth_per_m(self) -> float:
        """Half the width of one diffraction order: 1 / (2 pitch)."""
        return 1 / (2 * self.pitch_m)

    @property
    def zero_order(self) -> float:
        """Part of the light that stays in the undiffracted order of the grid, FF^2 (Goodman).

        >>> round(Panel(1080, 1920, 8e-6, fill_factor=0.87).zero_order, 3)
        0.757
        """
        return self.fill_factor**2

    def grid(self, wavelength_m: float) -> Grid:
        """The samples of all pixels."""
        return Grid(
            self.rows * self.samples,
            self.cols * self.samples,
            self.pitch_m / self.samples,
            wavelength_m,
        )

    def order_pixels(self, focal_m: float, wavelength_m: float) -> float:
        """One diffraction order in the Fourier plane, wavelength f / pitch, counted in pixels of
        the same pitch.

        >>> round(Panel(512, 512, 7.6e-6).order_pixels(0.1, 450e-9))
        779
        """
        return wavelength_m * focal_m / self.pitch_m**2

    def show(self, values: Tensor) -> Tensor:
        """The field behind the panel, [..., rows samples, cols samples], of ``values``
        [..., h, w] in its middle; amplitude per sample, real or complex.

        Raises ``VitruviusError`` when they do not fit.
        """
        plane = input_plane(values, (self.rows, self.cols))
        field = plane.new_zeros(
            (*plane.shape[:-2], self.rows * self.samples, self.cols * self.samples)
        )
        top, left = (self._first(count) for count in (self.rows, self.cols))
        field[..., top :: self.samples, left :: self.samples] = plane
        profile = self._profile()
        reach = len(profile) // 2
        for axis in (-2, -1):
            field = sum(
                (
                    field.roll(step, axis) * weight
                    for step, weight in enumerate(profile, start=-reach)
                    if weight
                ),
                torch.zeros_like(field),
            )
        return field

    def read(self, plane: Tensor) -> Tensor:
        """The samples of ``plane`` at the pixels' centres, [..., rows, cols]."""
        top, left = (self._first(count) for count in (self.rows, self.cols))
        return plane[..., top :: self.samples, left :: self.samples]

    def integrate(self, intensity: Tensor) -> Tensor:
        """Mean of ``intensity`` over every pixel's active area, [..., rows, cols]: what the pixels
        of a camera collect.
        """
        profile = self._profile()
        reach = len(profile) // 2
        for axis in (-2, -1):
            intensity = sum(
                (
                    intensity.roll(step, axis) * (weight / sum(profile))
                    for step, weight in enumerate(profile, start=-reach)
                    if weight
                ),
                torch.zeros_like(intensity),
            )
        return self.read(intensity)

    def envelope(self, frequency: Tensor) -> Tensor:
        """Spectrum of one pixel along one axis at ``frequency`` per metre, as its samples have it:
        sqrt(FF) at zero, and sqrt(FF) sinc(sqrt(FF) pitch v) in the limit of many samples.
        """
        profile = torch.tensor(self._profile(), dtype=frequency.dtype)
        reach = len(profile) // 2
        steps = torch.arange(-reach, reach + 1, dtype=frequency.dtype)
        step_m = self.pitch_m / self.samples
        waves = torch.cos(2 * pi * step_m * frequency[..., None] * steps)
        return (waves * profile).sum(-1) / self.samples

    def _first(self, count: int) -> int:
        """Sample of the first pixel's centre on an axis of ``count`` pixels."""
        return count * self.samples // 2 - count // 2 * self.samples

    def _profile(self) -> list[float]:
        """Part of each sample round a pixel's centre that its active width covers."""
        half = sqrt(self.fill_factor) * self.samples / 2
        reach = int(half + 0.5)
        cover = [max(0.0, min(half - abs(j) + 0.5, 1.0, 2 * half)) for j in range(reach + 1)]
        return cover[:0:-1] + cover
