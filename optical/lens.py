"""A thin lens: a phase and an aperture."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, pi
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..errors import VitruviusError
from .grid import Grid

__all__ = ["LensForm", "ThinLens", "lens_pitch"]

LensForm: TypeAlias = Literal["parabolic", "ideal"]
"""The paraxial phase, or the one that brings a plane wave to a point without aberration."""


def lens_pitch(radius_m: float, focal_m: float, wavelength_m: float) -> float:
    """Coarsest pitch that samples a lens out to ``radius_m``: |x| <= wavelength f / (2 D)
    (D. Voelz, *Computational Fourier Optics*, 2011).
    """
    return wavelength_m * focal_m / (2 * radius_m)


@dataclass(frozen=True)
class ThinLens:
    """``focal_m`` with a round aperture of ``radius_m``, or without one where it is not given.

    "parabolic": exp(-i pi r^2 / (wavelength f)); "ideal": exp(ik (f - sqrt(r^2 + f^2))), whose
    difference from it is k r^4 / (8 f^3) to first order (J. W. Goodman, *Introduction to Fourier
    Optics*).
    Raises ``VitruviusError`` for a length that is not positive or an unknown form.
    """

    focal_m: float
    radius_m: float | None = None
    form: LensForm = "parabolic"

    def __post_init__(self) -> None:
        radius = 1.0 if self.radius_m is None else self.radius_m
        problems = [
            f"{name} must be a positive length, got {value}"
            for name, value in (("focal_m", self.focal_m), ("radius_m", radius))
            if not (isfinite(value) and value > 0)
        ]
        if self.form not in get_args(LensForm):
            problems.append(f"form must be {' or '.join(get_args(LensForm))}, got {self.form!r}")
        if problems:
            raise VitruviusError("lens: " + "; ".join(problems))

    def transmission(self, grid: Grid, *, checked: bool = True) -> Tensor:
        """What the field is multiplied by, [rows, cols] complex128.

        Raises ``VitruviusError`` where ``checked`` and the lens is larger than what the grid's
        pitch samples, naming the pitch or focal length that would do. Without an aperture the
        window's edge is the lens's.
        """
        edge = max(grid.extent_m) / 2
        radius = edge if self.radius_m is None else min(self.radius_m, edge * 2**0.5)
        needed = lens_pitch(radius, self.focal_m, grid.wavelength_m)
        if checked and grid.pitch_m > needed * (1 + 1e-9):
            focal = 2 * radius * grid.pitch_m / grid.wavelength_m
            raise VitruviusError(
                f"a lens of {self.focal_m * 1e3:.4g} mm is aliased at {radius * 1e3:.4g} mm from "
                f"its axis by samples of {grid.pitch_m * 1e6:.4g} um: expected a pitch of at most "
                f"{needed * 1e6:.4g} um or a focal length of at least {focal * 1e3:.4g} mm"
            )
        y, x = grid.positions()
        squares = y.square() + x.square()
        if self.form == "parabolic":
            phase = -pi * squares / (grid.wavelength_m * self.focal_m)
        else:
            # f - sqrt(r^2 + f^2), without the cancellation
            sag = squares / (torch.sqrt(squares + self.focal_m**2) + self.focal_m)
            phase = -2 * pi / grid.wavelength_m * sag
        amplitude = torch.ones_like(phase)
        if self.radius_m is not None:
            amplitude = (squares <= self.radius_m**2).to(phase.dtype)
        return torch.polar(amplitude, phase)
