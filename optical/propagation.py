"""Free-space propagation of a scalar field by its angular spectrum.

The field is [..., rows, cols], complex, with any leading axes. The carrier exp(ikz), one phase for
the whole field, is left out of every transfer function.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..errors import VitruviusError
from .grid import Grid

__all__ = ["Method", "Propagator", "band_limit", "transfer_function"]

Method: TypeAlias = Literal["exact", "fresnel"]
"""Rayleigh-Sommerfeld's transfer function, or its paraxial form."""

_SPECTRUM_TOLERANCE = 0.5
"""Samples of the spectrum by which its edge may lie outside the band limit: none is then lost."""


def band_limit(length_m: float, distance_m: float, wavelength_m: float, method: Method) -> float:
    """Highest spatial frequency, per metre, whose transfer function is adequately sampled on a
    window of ``length_m`` (padding included).

    "exact": K. Matsushima and T. Shimobaba, Opt. Express 17, 19662 (2009), equation 13;
    "fresnel": its paraxial form, the frequency that walks off by half the window.
    """
    walk = 2 * abs(distance_m) / length_m
    if method == "exact":
        return 1 / (wavelength_m * sqrt(walk**2 + 1))
    return 1 / (wavelength_m * walk) if walk else float("inf")


def transfer_function(
    grid: Grid, distance_m: float, method: Method, *, limited: bool = True
) -> Tensor:
    """[rows, cols] complex128, zero frequency first: what ``distance_m`` of free space does to
    every plane wave of the grid. ``limited`` removes those beyond ``band_limit``.
    """
    y, x = (torch.fft.fftfreq(count, grid.pitch_m, dtype=torch.float64) for count in grid.shape)
    squares = y[:, None].square() + x[None, :].square()
    if method == "fresnel":
        phase = -pi * grid.wavelength_m * distance_m * squares
        transfer = torch.polar(torch.ones_like(phase), phase)
    else:
        k = 2 * pi / grid.wavelength_m
        kz_squared = k**2 - (2 * pi) ** 2 * squares
        # kz - k, without the cancellation of its two large terms
        phase = -((2 * pi) ** 2) * squares / (kz_squared.clamp(min=0).sqrt() + k) * distance_m
        decay = (-kz_squared).clamp(min=0).sqrt() * abs(distance_m)
        transfer = torch.polar(torch.exp(-decay), phase)
    if limited:
        for frequencies, side in zip((y[:, None], x[None, :]), grid.extent_m, strict=True):
            limit = band_limit(side, distance_m, grid.wavelength_m, method)
            transfer = transfer * (frequencies.abs() <= limit + _SPECTRUM_TOLERANCE / side)
    return transfer


@dataclass(frozen=True)
class Propagator:
    """``distance_m`` of free space, forwards or (negative) backwards, on ``grid``.

    Parameters
    ----------
    method: "exact" or "fresnel".
    padding: the field is embedded in a dark window this many times as wide. With 1 what leaves
        the window comes back on its other side.
    bandwidth_per_m: highest spatial frequency that matters; the grid's own, 1 / (2 D), where it
        is not given.

    Raises ``VitruviusError`` when that frequency lies beyond the band limit: the transfer function
    would be aliased there. The text says which distance, pitch or padding would do.
    """

    grid: Grid
    distance_m: float
    method: Method = "exact"
    padding: int = 2
    bandwidth_per_m: float | None = None

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise VitruviusError(
                f"method must be {' or '.join(get_args(Method))}, got {self.method!r}"
            )
        if self.padding < 1:
            raise VitruviusError(f"padding must be at least 1, got {self.padding}")
        nyquist = 1 / (2 * self.grid.pitch_m)
        wanted = nyquist if self.bandwidth_per_m is None else self.bandwidth_per_m
        if not 0 < wanted <= nyquist * (1 + 1e-9):
            raise VitruviusError(
                f"bandwidth_per_m must be above 0 and at most {nyquist:.6g}, which a pitch of "
                f"{_length(self.grid.pitch_m)} samples, got {wanted:.6g}"
            )
        side = min(self.grid.padded(self.padding).extent_m)
        wavelength = self.grid.wavelength_m
        limit = band_limit(side, self.distance_m, wavelength, self.method)
        if wanted > limit + _SPECTRUM_TOLERANCE / side:
            sine = wavelength * wanted
            walk = sine if self.method == "fresnel" else sine / sqrt(max(1 - sine**2, 1e-12))
            reach = side / (2 * walk)
            samples = min(self.grid.shape) * self.padding
            advice = f"a distance of at most {_length(reach)}, a padding of at least "
            advice += f"{-(-2 * walk * abs(self.distance_m) // min(self.grid.extent_m)):.0f}"
            if self.bandwidth_per_m is None:
                # N D / 2 = wavelength z / (2 D), whose exact form differs in the fourth digit
                coarser = sqrt(wavelength * abs(self.distance_m) / samples)
                advice += f", or a pitch of at least {_length(coarser)}"
            raise VitruviusError(
                f"a distance of {_length(self.distance_m)} is aliased on {samples} samples of "
                f"{_length(self.grid.pitch_m)}: light of {wanted:.4g} per metre walks further "
                f"than half the window; expected {advice}"
            )

    def transfer(self, dtype: torch.dtype = torch.complex128) -> Tensor:
        """The transfer function on the padded grid, band-limited where it is padded.

        Unpadded it is left whole: cutting it would break the identity with the DFT.
        """
        return transfer_function(
            self.grid.padded(self.padding),
            self.distance_m,
            self.method,
            limited=self.padding > 1,
        ).to(dtype)

    def __call__(self, field: Tensor, transfer: Tensor | None = None) -> Tensor:
        """``field`` [..., rows, cols] after the distance. ``transfer`` saves computing it again.

        Raises ``VitruviusError`` for a field that is not complex or not on the grid.
        """
        if not field.is_complex() or tuple(field.shape[-2:]) != self.grid.shape:
            raise VitruviusError(
                f"expected a complex field [..., {self.grid.rows}, {self.grid.cols}], got "
                f"{str(field.dtype).removeprefix('torch.')} {list(field.shape)}"
            )
        if transfer is None:
            transfer = self.transfer(field.dtype).to(field.device)
        wide = self.grid.padded(self.padding).shape
        # The dark samples are all behind the field: only their number matters to a convolution
        # that wraps round.
        spectrum = torch.fft.fft2(field, s=wide) * transfer
        after: Tensor = torch.fft.ifft2(spectrum)[..., : self.grid.rows, : self.grid.cols]
        return after


def _length(metres: float) -> str:
    """Four digits in the unit people use for such a length."""
    for unit, scale in (("m", 1.0), ("mm", 1e3), ("um", 1e6)):
        if abs(metres) * scale >= 1 or unit == "um":
            return f"{metres * scale:.4g} {unit}"
    raise AssertionError
