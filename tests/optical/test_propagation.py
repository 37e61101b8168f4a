"""Propagation, lenses and panels against what textbooks say of them."""

from __future__ import annotations

import cmath
import math
import re

import pytest
import torch
from torch import Tensor

from vitruvius.errors import VitruviusError
from vitruvius.optical.grid import Grid, critical_pitch
from vitruvius.optical.lens import ThinLens
from vitruvius.optical.panel import Panel
from vitruvius.optical.propagation import Method, Propagator, band_limit

GREEN = 532e-9
METHODS: tuple[Method, ...] = ("exact", "fresnel")


def beam(grid: Grid, waist: float) -> Tensor:
    y, x = grid.positions()
    return torch.exp(-(y.square() + x.square()) / waist**2).to(torch.complex128)


def width(field: Tensor, grid: Grid) -> float:
    """1/e^2 radius from the second moment along one axis."""
    _, x = grid.positions()
    power = field.abs().square()
    return 2 * float(((power * x.square()).sum() / power.sum()).sqrt())


@pytest.mark.parametrize("method", METHODS)
def test_a_gaussian_beam_widens_as_the_formula_says(method: Method) -> None:
    """w(z) = w0 sqrt(1 + (z / z_R)^2), z_R = pi w0^2 / wavelength."""
    grid, waist, distance = Grid(128, 128, 10e-6, GREEN), 80e-6, 0.02
    after = Propagator(grid, distance, method)(beam(grid, waist))
    rayleigh = math.pi * waist**2 / GREEN
    wanted = waist * math.sqrt(1 + (distance / rayleigh) ** 2)
    assert width(after, grid) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_plane_wave_keeps_its_angle_and_gains_its_phase(method: Method) -> None:
    """Unpadded, a plane wave of the grid only turns its phase: by (kz - k) z, or by its paraxial
    form.
    """
    grid, distance, index = Grid(64, 64, 8e-6, GREEN), 2e-3, 5
    _, x = grid.positions()
    frequency = index / grid.extent_m[1]
    wave = torch.exp(2j * math.pi * frequency * x).expand(64, 64)
    after = Propagator(grid, distance, method, padding=1)(wave)
    sine = GREEN * frequency
    term = math.sqrt(1 - sine**2) - 1 if method == "exact" else -(sine**2) / 2
    wanted = wave * cmath.exp(2j * math.pi / GREEN * distance * term)
    assert float((after - wanted).abs().max()) < 1e-10


@pytest.mark.parametrize("method", METHODS)
def test_there_and_back(method: Method) -> None:
    grid = Grid(48, 64, 10e-6, GREEN)
    field = torch.stack([beam(grid, 40e-6), 1j * beam(grid, 50e-6)])[:, None]
    there = Propagator(grid, 8e-3, method)(field)
    back = Propagator(grid, -8e-3, method)(there)
    assert back.shape == (2, 1, 48, 64)
    assert float((there - field).abs().max()) > 0.1
    assert float((back - field).abs().max()) < 1e-6
    alone = Propagator(grid, 8e-3, method)(field[1, 0])
    assert torch.allclose(there[1, 0], alone, atol=1e-14)


def test_one_slit_against_the_sinc_of_the_far_field() -> None:
    """A slit of width a is dark at x = wavelength z / a, far away."""
    slit, distance = 40e-6, 0.03
    grid = Grid(64, 512, 4e-6, GREEN)
    y, x = grid.positions()
    # 11 samples, the outer two half covered
    covered = (slit / 2 / grid.pitch_m + 0.5 - x.abs() / grid.pitch_m).clamp(0, 1)
    field = (covered * torch.exp(-y.square() / 60e-6**2)).to(torch.complex128)
    after = Propagator(grid, distance, "fresnel", padding=8, bandwidth_per_m=1 / slit)(field)
    row = after[32].abs().square()
    right = row[256:]
    first = int((right[1:-1] < right[:-2]).logical_and(right[1:-1] <= right[2:]).nonzero()[0]) + 1
    wanted = GREEN * distance / slit
    assert first * grid.pitch_m == pytest.approx(wanted, rel=0.05)


def test_evanescent_light_dies() -> None:
    grid = Grid(64, 64, 0.1e-6, GREEN)
    _, x = grid.positions()
    wave = torch.exp(2j * math.pi * 20 / grid.extent_m[1] * x).expand(64, 64)
    kappa = 2 * math.pi * math.sqrt((20 / grid.extent_m[1]) ** 2 - 1 / GREEN**2)
    after = Propagator(grid, 0.2e-6, "exact", padding=1, bandwidth_per_m=1e6)(wave)
    assert float(after.abs().mean()) == pytest.approx(math.exp(-kappa * 0.2e-6), rel=1e-9)


def test_the_band_limit_is_the_published_one() -> None:
    """Matsushima & Shimobaba 2009: 1 / (wavelength sqrt((2 df z)^2 + 1)), df = 1 / width."""
    assert band_limit(1e-3, 0.1, GREEN, "exact") == pytest.approx(
        1 / (GREEN * math.sqrt((2 * 0.1 / 1e-3) ** 2 + 1))
    )
    assert band_limit(1e-3, 0.1, GREEN, "fresnel") == pytest.approx(1e-3 / (2 * GREEN * 0.1))


@pytest.mark.parametrize("method", METHODS)
def test_an_aliased_distance_is_refused_with_one_that_would_do(method: Method) -> None:
    grid = Grid(128, 128, 10e-6, GREEN)
    with pytest.raises(VitruviusError, match="is aliased on 256 samples of 10 um") as refusal:
        Propagator(grid, 0.2, method)
    text = str(refusal.value)
    distance = re.search(r"distance of at most ([\d.]+) mm", text)
    padding = re.search(r"padding of at least (\d+)", text)
    pitch = re.search(r"pitch of at least ([\d.]+) um", text)
    assert distance and padding and pitch
    Propagator(grid, float(distance[1]) * 1e-3, method)
    Propagator(grid, 0.2, method, padding=int(padding[1]))
    Propagator(Grid(128, 128, float(pitch[1]) * 1e-6 * 1.001, GREEN), 0.2, method)
    with pytest.raises(VitruviusError):
        Propagator(grid, float(distance[1]) * 1.05e-3, method)
    with pytest.raises(VitruviusError):
        Propagator(grid, 0.2, method, padding=int(padding[1]) - 1)


def test_bad_fields_and_options_are_one_sentence_each() -> None:
    grid = Grid(8, 8, 10e-6, GREEN)
    propagate = Propagator(grid, 1e-4)
    with pytest.raises(VitruviusError, match=r"complex field \[..., 8, 8\], got float64 \[8, 8\]"):
        propagate(torch.ones(8, 8, dtype=torch.float64))
    with pytest.raises(VitruviusError, match=r"got complex128 \[9, 8\]"):
        propagate(torch.ones(9, 8, dtype=torch.complex128))
    with pytest.raises(VitruviusError, match="method must be exact or fresnel, got 'asm'"):
        Propagator(grid, 1e-4, "asm")  # type: ignore[arg-type]
    with pytest.raises(VitruviusError, match="padding must be at least 1, got 0"):
        Propagator(grid, 1e-4, padding=0)
    with pytest.raises(VitruviusError, match="bandwidth_per_m must be above 0 and at most 50000"):
        Propagator(grid, 1e-4, bandwidth_per_m=60_000)
    with pytest.raises(VitruviusError, match="rows must be at least 1, got 0; pitch_m must be a"):
        Grid(0, 8, -1.0, GREEN)


def focus(form: str, focal: float) -> float:
    """Peak of a plane wave's focus, exactly propagated, over that of an unaberrated lens: its
    Strehl ratio.
    """
    grid = Grid(512, 512, 1.5e-6, GREEN)
    lens = ThinLens(focal, radius_m=0.3e-3, form=form)  # type: ignore[arg-type]
    field = lens.transmission(grid)
    after = Propagator(grid, focal, "exact", bandwidth_per_m=2e5)(field)
    # Debye's integral in the focus: every wave of the aperture in phase
    area = math.pi * 0.3e-3**2
    return float(after[256, 256].abs().square()) / (area / (GREEN * focal)) ** 2


def test_only_the_ideal_lens_has_no_aberration() -> None:
    """Third-order spherical aberration of k r^4 / (8 f^3) = 1.5 rad at the edge."""
    focal = 2.0e-3
    aberration = 2 * math.pi / GREEN * 0.3e-3**4 / (8 * focal**3)
    assert 1.2 < aberration < 2
    assert focus("ideal", focal) == pytest.approx(1, abs=0.05)
    # Strehl of pure fourth-order error a rho^4 in its paraxial focus: |integral|^2 over rho^2 = t
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    strehl = float(torch.exp(1j * aberration * t.square()).mean().abs().square())
    assert focus("parabolic", focal) == pytest.approx(strehl, abs=0.05)
    assert strehl < 0.85


def test_a_lens_that_the_pitch_cannot_sample_is_refused() -> None:
    grid = Grid(256, 256, 10e-6, GREEN)
    with pytest.raises(VitruviusError, match=r"a lens of 20 mm is aliased at 1\.28 mm") as refusal:
        ThinLens(20e-3).transmission(grid)
    pitch = re.search(r"pitch of at most ([\d.]+) um", str(refusal.value))
    focal = re.search(r"focal length of at least ([\d.]+) mm", str(refusal.value))
    assert pitch and focal
    assert float(pitch[1]) == pytest.approx(GREEN * 20e-3 / (2 * 1.28e-3) * 1e6, rel=1e-3)
    ThinLens(float(focal[1]) * 1.001e-3).transmission(grid)
    ThinLens(20e-3, radius_m=0.5e-3).transmission(grid)
    with pytest.raises(VitruviusError, match="focal_m must be a positive length, got 0"):
        ThinLens(0)
    with pytest.raises(VitruviusError, match="form must be parabolic or ideal, got 'thick'"):
        ThinLens(1.0, form="thick")  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [6, 7])
@pytest.mark.parametrize("samples", [1, 4, 5])
def test_a_panel_shows_pixels_and_reads_their_centres(rows: int, samples: int) -> None:
    generator = torch.Generator().manual_seed(1)
    panel = Panel(rows, 8, 20e-6, samples=samples)
    values = torch.rand(2, rows, 8, generator=generator, dtype=torch.float64)
    field = panel.show(values)
    assert field.shape == (2, rows * samples, 8 * samples)
    if samples % 2:
        assert torch.equal(panel.read(field), values)
        assert torch.allclose(panel.integrate(field), values)
    # whatever the split, every sample belongs to one pixel
    assert float(panel.show(torch.ones(rows, 8, dtype=torch.float64)).sub(1).abs().max()) < 1e-12
    middle = torch.zeros(rows, 8, dtype=torch.float64)
    middle[rows // 2, 4] = 1
    assert panel.show(middle)[rows * samples // 2, 4 * samples] == 1


@pytest.mark.parametrize("fill", [0.3, 0.87, 1.0])
def test_the_envelope_is_the_spectrum_of_a_pixel_and_tends_to_the_sinc(fill: float) -> None:
    panel = Panel(16, 16, 8e-6, fill_factor=fill, samples=5)
    single = torch.zeros(16, 16, dtype=torch.float64)
    single[8, 8] = 1
    spectrum = torch.fft.fft2(torch.fft.ifftshift(panel.show(single))) / 25
    frequency = torch.fft.fftfreq(80, 8e-6 / 5, dtype=torch.float64)
    assert torch.allclose(spectrum[0].real, panel.envelope(frequency) * fill**0.5)
    fine = Panel(16, 16, 8e-6, fill_factor=fill, samples=100).envelope(frequency)
    sinc = fill**0.5 * torch.sinc(fill**0.5 * 8e-6 * frequency)
    assert float((fine - sinc).abs().max()) < 2e-3


@pytest.mark.parametrize("fill", [0.5, 0.87])
def test_light_in_the_undiffracted_order(fill: float) -> None:
    """A uniformly lit grid keeps FF^2 of an unbroken mirror's light in its zero order."""
    panel = Panel(8, 8, 8e-6, fill_factor=fill, samples=7)
    spectrum = torch.fft.fft2(panel.show(torch.ones(8, 8, dtype=torch.float64))) / 56**2
    assert float(spectrum[0, 0].abs()) ** 2 == pytest.approx(panel.zero_order, rel=1e-9)


def test_bad_panels() -> None:
    with pytest.raises(VitruviusError, match="samples must be at least 1, got 0; fill_factor"):
        Panel(8, 8, 8e-6, fill_factor=1.2, samples=0)
    with pytest.raises(VitruviusError, match="image of 9 x 8 does not fit a plane of 8 x 8"):
        Panel(8, 8, 8e-6).show(torch.ones(9, 8))


def test_critical_sampling_examples() -> None:
    """1080 pixels of 8 um, and 2160 of 3.74 um, at 532 nm: 130 mm and 56.8 mm."""
    assert Grid(1080, 1080, 8e-6, GREEN).critical_focal_m == pytest.approx(0.130, rel=5e-3)
    assert Grid(2160, 2160, 3.74e-6, GREEN).critical_focal_m == pytest.approx(56.8e-3, rel=1e-3)
    assert critical_pitch(1080, Grid(1080, 1080, 8e-6, GREEN).critical_focal_m, GREEN) == (
        pytest.approx(8e-6)
    )
