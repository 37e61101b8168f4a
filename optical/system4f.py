"""The 4f system as light propagates: panel, f, lens, f, mask, f, lens, f, camera."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, isfinite, pi
from typing import get_args

import torch
from torch import Tensor

from ..errors import VitruviusError
from .grid import Grid, critical_pitch
from .lens import LensForm, ThinLens
from .panel import Panel
from .planes import upright
from .propagation import Method, Propagator

__all__ = ["PARAXIAL_LIMIT_RAD", "System4f", "order_mask"]

PARAXIAL_LIMIT_RAD = 1.0
"""Largest error of the parabolic phase, k r^4 / (8 f^3), with which Fresnel's transfer function is
accepted (Goodman: much less than one radian is sufficient, not necessary)."""


@dataclass(frozen=True)
class System4f:
    """Two equal lenses on one axis.

    Parameters
    ----------
    grid: the samples of all four planes.
    focal_m: of both lenses, and the distance between planes and lenses.
    method: "fresnel" or "exact" propagation.
    padding: 1 computes one period of a plane that repeats: with critical sampling, D^2 =
        wavelength f / N on an even square grid, that is the centred DFT of ``planes``, exactly.
        From 2 on light that leaves the window is lost, as in a real system.
    lens_form, lens_radius_m: see ``ThinLens``; a padded system without a radius has the window as
        its aperture.
    object_m: height and width of what the input panel shows; the window where not given.
    bandwidth_per_m: highest spatial frequency that is to reach the camera, such as the panel's
        ``bandwidth_per_m``; the grid's 1 / (2 D) where not given.
    checked: refuse a set-up whose sampling, lenses or method do not carry that light.

    Raises ``VitruviusError`` that names every such problem and which pitch, focal length or lens
    would do.
    """

    grid: Grid
    focal_m: float
    method: Method = "fresnel"
    padding: int = 2
    lens_form: LensForm = "parabolic"
    lens_radius_m: float | None = None
    object_m: tuple[float, float] | None = None
    bandwidth_per_m: float | None = None
    checked: bool = True

    def __post_init__(self) -> None:
        if not (isfinite(self.focal_m) and self.focal_m > 0):
            raise VitruviusError(f"focal_m must be a positive length, got {self.focal_m}")
        if self.method not in get_args(Method) or self.padding < 1:
            self._propagator()
        self._lens()
        if any(count % 2 for count in self.grid.shape):
            raise VitruviusError(
                "a 4f system expects an even number of samples a side, so that the image turns "
                f"about sample N // 2; got {self.grid.rows} x {self.grid.cols}"
            )
        if self.checked:
            problems = self._repeating() if self.padding == 1 else self._losing()
            if problems:
                raise VitruviusError("4f system: " + "; ".join(problems))

    @property
    def paraxial_error_rad(self) -> float:
        """Error of the parabolic phase in the corner that the light reaches, k r^4 / (8 f^3)."""
        radius = hypot(*self._reach_m())
        return 2 * pi / self.grid.wavelength_m * radius**4 / (8 * self.focal_m**3)

    def camera_field(self, field: Tensor, mask: Tensor) -> Tensor:
        """Complex field at the camera [..., rows, cols], upright and without its global phase:
        what ``planes`` computes with two DFTs, where the sampling is critical.

        ``field`` and ``mask`` [..., rows, cols], real or complex, broadcast their leading axes.
        Raises ``VitruviusError`` when either is not on the grid.
        """
        for name, plane in (("field", field), ("mask", mask)):
            if tuple(plane.shape[-2:]) != self.grid.shape:
                raise VitruviusError(
                    f"expected a {name} [..., {self.grid.rows}, {self.grid.cols}], "
                    f"got {list(plane.shape)}"
                )
        single = {torch.float32, torch.complex64}
        dtype = torch.complex64 if {field.dtype, mask.dtype} <= single else torch.complex128
        propagate = self._propagator()
        transfer = propagate.transfer(dtype).to(field.device)
        lens = self._lens().transmission(self.grid, checked=False).to(field.device, dtype)
        for element in (lens, mask.to(dtype), lens):
            field = propagate(field.to(dtype), transfer) * element
        # Each lens multiplies by 1 / i (Goodman, section 5.2).
        return -upright(propagate(field, transfer))

    def camera_amplitude(self, field: Tensor, mask: Tensor, floor: float) -> Tensor:
        """As ``planes.camera_amplitude``, through propagation."""
        wave = self.camera_field(field, mask)
        intensity = wave.real.square() + wave.imag.square()
        amplitude: Tensor = torch.sqrt(intensity + floor) - floor**0.5
        return amplitude

    def _propagator(self) -> Propagator:
        # What the grid as a whole can carry was checked once, against the light that matters.
        band = self.bandwidth_per_m if self.checked else 1e-6 / self.grid.pitch_m
        return Propagator(self.grid, self.focal_m, self.method, self.padding, band)

    def _lens(self) -> ThinLens:
        return ThinLens(self.focal_m, self.lens_radius_m, self.lens_form)

    def _reach_m(self) -> tuple[float, float]:
        """Distance from the axis, both ways, at which the light meets the lenses: a point at x
        with frequency v passes at x + wavelength f v.
        """
        band = 1 / (2 * self.grid.pitch_m) if self.bandwidth_per_m is None else self.bandwidth_per_m
        height, width = self.grid.extent_m if self.object_m is None else self.object_m
        spread = self.grid.wavelength_m * self.focal_m * band
        return height / 2 + spread, width / 2 + spread

    def _repeating(self) -> list[str]:
        """What keeps an unpadded system from being exact."""
        problems = []
        rows, cols = self.grid.shape
        if rows != cols:
            problems.append(f"without padding the grid must be square, got {rows} x {cols}")
        focal, needed = self.focal_m, self.grid.critical_focal_m
        if abs(focal / needed - 1) > 1e-6:
            pitch = critical_pitch(max(rows, cols), focal, self.grid.wavelength_m)
            problems.append(
                "without padding the sampling must be critical, D^2 = wavelength f / N: expected "
                f"a pitch of {pitch * 1e6:.5g} um or a focal length of {needed * 1e3:.5g} mm, got "
                f"{self.grid.pitch_m * 1e6:.5g} um and {focal * 1e3:.5g} mm"
            )
        if self.lens_radius_m is not None:
            problems.append("without padding a lens has no aperture, since planes repeat")
        return problems

    def _losing(self) -> list[str]:
        """What a padded system would alias, cut off or get wrong."""
        problems = []
        for check in (
            self._propagator,
            lambda: self._lens().transmission(self.grid),
        ):
            try:
                check()
            except VitruviusError as error:
                problems.append(str(error))
        # A window cuts off each axis, a round lens the corner first.
        reach, radius = max(self._reach_m()), min(self.grid.extent_m) / 2
        if self.lens_radius_m is not None and reach <= radius:
            reach, radius = hypot(*self._reach_m()), self.lens_radius_m
        if reach > radius * (1 + 1e-9):
            problems.append(
                f"light reaches {reach * 1e3:.4g} mm from the axis of lenses of "
                f"{radius * 1e3:.4g} mm (a point at x with frequency v passes at "
                "x + wavelength f v): expected larger lenses and window, a shorter focal length, "
                "or a panel with a smaller image or larger pixels"
            )
        if self.method == "fresnel" and self.paraxial_error_rad > PARAXIAL_LIMIT_RAD:
            problems.append(
                f"light is {self.paraxial_error_rad:.3g} rad from paraxial (k r^4 / 8 f^3), more "
                f"than {PARAXIAL_LIMIT_RAD:g}: expected a longer focal length or method 'exact'"
            )
        return problems


def order_mask(
    kernel: Tensor, panel: Panel, system: System4f, *, compensated: bool = True
) -> tuple[Tensor, Tensor]:
    """The mask of ``kernel`` [..., kh, kw] for what ``panel`` shows, complex [..., rows, cols] of
    magnitude at most 1, and its gain [..., 1, 1].

    It passes one diffraction order of the panel, half of either edge, and blocks the others.
    ``compensated`` divides by the spectrum of the panel's pixels, without which the image is
    blurred by them. The centre tap and the flip are ``planes.kernel_plane``'s.
    Raises ``VitruviusError`` when the order is wider than the mask's plane.
    """
    factors: list[Tensor] = []
    kernel = kernel.flip((-2, -1))
    focal_waves = system.grid.wavelength_m * system.focal_m
    edge = panel.bandwidth_per_m
    for axis, name in ((0, "height"), (1, "width")):
        frequency = system.grid.positions()[axis].flatten() / focal_waves
        # The sample that would complete an even plane counts as on its edge.
        if edge > float(frequency.abs().max()) * (1 + 1e-9):
            raise VitruviusError(
                f"one diffraction order of the panel is {2 * edge * focal_waves * 1e3:.4g} mm, "
                f"wider than the {name} of the mask's plane, {system.grid.extent_m[axis] * 1e3:.4g}"
                " mm: expected more samples a pixel or a shorter focal length"
            )
        taps = kernel.shape[axis - 2]
        places = (torch.arange(taps, dtype=torch.float64) - taps // 2) * panel.pitch_m
        waves = torch.exp(-2j * pi * frequency[:, None] * places)
        # An edge belongs to two orders; half of each leaves the passed band symmetric.
        near = (frequency.abs() / edge - 1).abs() < 1e-6
        passed = (frequency.abs() < edge).double().masked_fill(near, 0.5)
        if compensated:
            passed = passed / torch.where(passed > 0, panel.envelope(frequency), 1.0)
        factors.append(waves * passed[:, None])
    real = kernel.dtype == torch.float32
    response = kernel.to(torch.complex128)
    mask = factors[0] @ response @ factors[1].mT
    gain = mask.abs().amax(dim=(-2, -1), keepdim=True)
    gain = torch.where(gain > 0, gain, torch.ones_like(gain))
    mask = mask / gain
    return (mask.to(torch.complex64), gain.float()) if real else (mask, gain)
