"""The sampled plane that light is computed on, and the sampling that makes a lens a DFT."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

import torch
from torch import Tensor

from ..errors import VitruviusError

__all__ = ["Grid", "critical_pitch"]


def critical_pitch(samples: int, focal_m: float, wavelength_m: float) -> float:
    """Pitch at which ``samples`` of the Fourier plane have the pitch of the input plane, metres:
    D^2 = wavelength f / N (D. Voelz, *Computational Fourier Optics*, 2011).

    >>> f"{critical_pitch(256, 0.05, 532e-9) * 1e6:.2f} um"
    '10.19 um'
    """
    return sqrt(wavelength_m * focal_m / samples)


@dataclass(frozen=True)
class Grid:
    """``rows`` x ``cols`` samples, ``pitch_m`` apart both ways, of light of ``wavelength_m``.

    The optical axis is sample ``N // 2``. Raises ``VitruviusError`` for sizes or lengths that are
    not positive.
    """

    rows: int
    cols: int
    pitch_m: float
    wavelength_m: float

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least 1, got {value}"
            for name, value in (("rows", self.rows), ("cols", self.cols))
            if value < 1
        ]
        problems += [
            f"{name} must be a positive length, got {value}"
            for name, value in (("pitch_m", self.pitch_m), ("wavelength_m", self.wavelength_m))
            if not (isfinite(value) and value > 0)
        ]
        if problems:
            raise VitruviusError("grid: " + "; ".join(problems))

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.cols

    @property
    def extent_m(self) -> tuple[float, float]:
        """Height and width of the window in metres."""
        return self.rows * self.pitch_m, self.cols * self.pitch_m

    @property
    def critical_focal_m(self) -> float:
        """Focal length at which the larger side is critically sampled, N D^2 / wavelength: also
        the longest distance that a transfer function on this grid reaches without aliasing.
        """
        return max(self.shape) * self.pitch_m**2 / self.wavelength_m

    def positions(self) -> tuple[Tensor, Tensor]:
        """Distance of every row [rows, 1] and column [1, cols] from the axis, float64, metres."""
        y, x = (
            (torch.arange(count, dtype=torch.float64) - count // 2) * self.pitch_m
            for count in self.shape
        )
        return y[:, None], x[None, :]

    def padded(self, factor: int) -> Grid:
        """The same pitch on ``factor`` times as many samples a side."""
        return Grid(self.rows * factor, self.cols * factor, self.pitch_m, self.wavelength_m)
