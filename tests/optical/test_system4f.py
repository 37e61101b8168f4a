"""The propagated 4f system against the math layer: acceptance of the propagation layer."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.optical import convolution
from vitruvius.optical.convolution import Conv4f
from vitruvius.optical.grid import Grid, critical_pitch
from vitruvius.optical.panel import Panel
from vitruvius.optical.planes import (
    camera_amplitude,
    centred_dft,
    fourier_mask,
    input_plane,
    kernel_plane,
    upright,
)
from vitruvius.optical.system4f import System4f, order_mask

GREEN, FOCAL = 532e-9, 50e-3


def scene(side: int = 64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A uniform-random image, a normal-random 5 x 5 kernel, and conv2d(padding="same") of them."""
    print(f"seed {seed}")
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(side, side, generator=generator, dtype=torch.float64)
    kernel = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    wanted = functional.conv2d(image[None, None], kernel[None, None], padding="same")[0, 0]
    return image, kernel, wanted


def middle(plane: Tensor, side: int) -> Tensor:
    rows, cols = plane.shape[-2:]
    top, left = rows // 2 - side // 2, cols // 2 - side // 2
    return plane[..., top : top + side, left : left + side]


def relative(got: Tensor, wanted: Tensor, *, fitted: bool = False) -> float:
    """Relative L2 error, where ``fitted`` after the best complex scale."""
    assert got.shape == wanted.shape
    if fitted:
        got = got * (got.conj() * wanted).sum() / got.abs().square().sum()
    return float((got - wanted).norm() / wanted.norm())


def critical(samples: int, **options: object) -> System4f:
    grid = Grid(samples, samples, critical_pitch(samples, FOCAL, GREEN), GREEN)
    return System4f(grid, FOCAL, padding=1, **options)  # type: ignore[arg-type]


def physical(samples: int, side: int) -> tuple[Panel, System4f]:
    """A critically sampled grid of 5 x 5 samples a pixel, padded, with round lenses as wide as the
    window.
    """
    pitch = 5 * critical_pitch(samples, FOCAL, GREEN)
    panel = Panel(samples // 5, samples // 5, pitch)
    grid = panel.grid(GREEN)
    system = System4f(
        grid,
        FOCAL,
        lens_radius_m=grid.extent_m[0] / 2,
        object_m=(side * pitch, side * pitch),
        bandwidth_per_m=panel.bandwidth_per_m,
    )
    return panel, system


@pytest.mark.parametrize("samples", [32, 66, 128])
def test_critical_sampling_is_the_math_layer(samples: int) -> None:
    """Acceptance 2: < 1e-10. Complex fields, masks and leading axes, and no scale fitted."""
    generator = torch.Generator().manual_seed(2)
    plane = (samples, samples)
    field = torch.randn(2, 1, *plane, generator=generator, dtype=torch.complex128)
    mask = torch.randn(3, *plane, generator=generator, dtype=torch.complex128)
    wanted = upright(centred_dft(centred_dft(field) * mask) / samples**2)
    got = critical(samples).camera_field(field, mask)
    assert got.shape == (2, 3, *plane)
    assert relative(got, wanted) < 1e-10
    assert (
        relative(
            critical(samples).camera_amplitude(field, mask, 1e-6),
            camera_amplitude(field, mask, 1e-6),
        )
        < 1e-10
    )


def test_critical_sampling_of_the_256_plane() -> None:
    image, kernel, wanted = scene()
    mask, gain = fourier_mask(kernel_plane(kernel, (256, 256)))
    got = critical(256).camera_field(input_plane(image, (256, 256)), mask) * gain
    assert relative(middle(got, 64), wanted.to(got.dtype)) < 1e-10


def test_single_precision_at_critical_sampling() -> None:
    image, kernel, wanted = scene(24)
    mask, gain = fourier_mask(kernel_plane(kernel.float(), (32, 32)))
    got = critical(32).camera_field(input_plane(image.float(), (32, 32)), mask) * gain
    assert got.dtype == torch.complex64
    assert relative(middle(got, 24).to(torch.complex128), wanted.to(torch.complex128)) < 1e-5


def test_the_layer_runs_through_propagation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch, channels, signs and read-out: the whole layer with every pass propagated."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(2, 3, 13, 13, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 3, 5, 5, generator=generator, dtype=torch.float64)
    axes = (-2, -1)

    def propagated(field: Tensor, mask: Tensor, size: tuple[int, int]) -> Tensor:
        """From and to planes with the axis at sample 0."""
        plane, response = (torch.fft.irfft2(half, s=size) for half in (field, mask))
        seen = critical(size[0]).camera_field(
            torch.fft.fftshift(plane, axes), torch.fft.fftshift(torch.fft.fft2(response), axes)
        )
        return torch.fft.ifftshift(seen, axes).real

    monkeypatch.setattr(convolution, "camera_field", propagated)
    wanted = functional.conv2d(images, weight, padding="same")
    for tiling, side in (("none", 16), ("channel", 30), ("mixed", 60)):
        layer = Conv4f(weight, readout="same", tiling=tiling, plane=(side, side))  # type: ignore[arg-type]
        assert relative(layer(images).detach(), wanted) < 1e-10, tiling


def test_a_parabolic_lens_is_not_exact_beyond_the_paraxial() -> None:
    """3.6e-2 measured for this scene's kind at N = 256; more at steeper angles."""
    image, kernel, wanted = scene()
    mask, gain = fourier_mask(kernel_plane(kernel, (256, 256)))
    got = critical(256, method="exact").camera_field(input_plane(image, (256, 256)), mask) * gain
    assert 1e-2 < relative(middle(got, 64), wanted.to(got.dtype), fitted=True) < 6e-2


def test_compensated_pixels_are_exact_and_others_are_not() -> None:
    """Acceptance 3: padded, 5 samples a pixel; compensated < 1e-3, uncompensated 5 to 30 %."""
    image, kernel, wanted = scene()
    panel, system = physical(1020, 64)
    masks = [order_mask(kernel, panel, system, compensated=c) for c in (True, False)]
    field = panel.show(image)
    errors, unscaled = [], []
    for mask, gain in masks:
        assert float(mask.abs().max()) == pytest.approx(1)
        got = middle(panel.read(system.camera_field(field, mask)) * gain, 64)
        errors.append(relative(got, wanted.to(got.dtype), fitted=True))
        unscaled.append(relative(got, wanted.to(got.dtype)))
    assert errors[0] < 1e-3
    assert unscaled[0] < 1e-3, "the scale and the phase are known"
    assert 0.05 < errors[1] < 0.30


def test_one_sample_a_pixel_loses_light_when_padded() -> None:
    """24 to 38 % measured: the highest frequencies leave lens and window. Refused unless asked
    for.
    """
    image, kernel, wanted = scene()
    grid = critical(256).grid
    window = (64 * grid.pitch_m, 64 * grid.pitch_m)
    with pytest.raises(VitruviusError, match=r"light reaches 1\.631 mm from the axis of lenses of"):
        System4f(grid, FOCAL, object_m=window)
    mask, gain = fourier_mask(kernel_plane(kernel, (256, 256)))
    system = System4f(grid, FOCAL, object_m=window, checked=False)
    got = system.camera_field(input_plane(image, (256, 256)), mask) * gain
    assert 0.15 < relative(middle(got, 64), wanted.to(got.dtype), fitted=True) < 0.45


@pytest.mark.parametrize(
    ("fill", "samples"), [(0.87, 5), (0.5, 3)], ids=["fill 87 %", "fill 50 %, 3 samples"]
)
def test_fill_factors_are_compensated_too(fill: float, samples: int) -> None:
    image, kernel, wanted = scene(24)
    pitch = samples * critical_pitch(360, FOCAL, GREEN)
    panel = Panel(360 // samples, 360 // samples, pitch, fill_factor=fill, samples=samples)
    system = System4f(
        panel.grid(GREEN),
        FOCAL,
        object_m=(24 * pitch, 24 * pitch),
        bandwidth_per_m=panel.bandwidth_per_m,
    )
    mask, gain = order_mask(kernel, panel, system)
    got = middle(panel.read(system.camera_field(panel.show(image), mask)) * gain, 24)
    assert relative(got, wanted.to(got.dtype)) < 2e-3


def test_every_image_turns_about_sample_half() -> None:
    """One lit pixel off the axis and an off-centre delta as kernel end where conv2d puts them."""
    panel, system = physical(160, 8)
    image = torch.zeros(8, 8, dtype=torch.float64)
    image[1, 6] = 1
    kernel = torch.zeros(4, 3, dtype=torch.float64)
    kernel[0, 2] = 1
    mask, gain = order_mask(kernel, panel, system)
    got = middle(panel.read(system.camera_field(panel.show(image), mask)) * gain, 8).real
    padded = functional.pad(image, (1, 1, 1, 2))
    wanted = functional.conv2d(padded[None, None], kernel[None, None])[0, 0]
    assert int(got.argmax()) == int(wanted.argmax())
    assert float(got.max()) > 0.8


def test_aliased_and_vignetted_set_ups_are_refused_with_what_would_do() -> None:
    pitch = critical_pitch(256, FOCAL, GREEN)
    with pytest.raises(VitruviusError, match="the sampling must be critical") as refusal:
        System4f(Grid(256, 256, 8e-6, GREEN), FOCAL, padding=1)
    found = re.search(
        r"a pitch of ([\d.]+) um or a focal length of ([\d.]+) mm", str(refusal.value)
    )
    assert found
    assert float(found[1]) == pytest.approx(pitch * 1e6, rel=1e-4)
    System4f(Grid(256, 256, 8e-6, GREEN), 256 * 8e-6**2 / GREEN, padding=1)
    with pytest.raises(VitruviusError, match="must be square, got 256 x 128"):
        System4f(Grid(256, 128, pitch, GREEN), FOCAL, padding=1)
    with pytest.raises(VitruviusError, match=r"even number of samples a side.*got 255 x 255"):
        System4f(Grid(255, 255, pitch, GREEN), FOCAL)
    with pytest.raises(VitruviusError, match="a lens has no aperture, since planes repeat"):
        critical(256, lens_radius_m=1e-3)
    coarse = Grid(256, 256, 3 * pitch, GREEN)
    with pytest.raises(VitruviusError, match="a lens of 50 mm is aliased at") as both:
        System4f(coarse, FOCAL, object_m=(1e-3, 1e-3))
    assert "expected a pitch of at most" in str(both.value)
    with pytest.raises(VitruviusError, match="a distance of 400 mm is aliased on 512 samples"):
        System4f(Grid(256, 256, pitch, GREEN), 0.4, object_m=(1e-4, 1e-4))
    with pytest.raises(VitruviusError, match=r"rad from paraxial.*or method 'exact'"):
        System4f(Grid(2000, 2000, 1e-6, GREEN), 2e-3, object_m=(3e-4, 3e-4), bandwidth_per_m=1e5)
    with pytest.raises(VitruviusError, match=r"expected a mask \[..., 256, 256\], got \[64, 64\]"):
        critical(256).camera_field(torch.ones(256, 256), torch.ones(64, 64))
    with pytest.raises(VitruviusError, match="focal_m must be a positive length, got -1"):
        System4f(coarse, -1)


def test_round_lenses_that_cut_the_corners_are_refused() -> None:
    """Each axis alone would pass; computed all the same, such a system errs by 3.6 %."""
    with pytest.raises(
        VitruviusError, match=r"light reaches 2\.155 mm from the axis of lenses of 1"
    ):
        physical(510, 64)
    physical(510, 44)


def test_an_order_wider_than_the_mask_is_refused() -> None:
    panel = Panel(64, 64, 5e-6, samples=1)
    system = System4f(panel.grid(GREEN), FOCAL, checked=False)
    with pytest.raises(
        VitruviusError, match=r"one diffraction order of the panel is 5\.32 mm, wider"
    ):
        order_mask(torch.ones(3, 3), panel, system)
