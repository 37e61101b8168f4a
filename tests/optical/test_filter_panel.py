"""A filter panel's pixels: what they do to a kernel, against the formula and ``conv2d``."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.optical.filter_panel import held, precompensated, repetition_m
from vitruvius.optical.grid import Grid, critical_pitch
from vitruvius.optical.panel import Panel
from vitruvius.optical.planes import fourier_mask, input_plane, kernel_plane
from vitruvius.optical.system4f import System4f

FOCAL, GREEN, SAMPLES, N = 50e-3, 532e-9, 4, 128
PITCH = critical_pitch(N, FOCAL, GREEN)
SEED = 9


def system() -> System4f:
    return System4f(Grid(N, N, PITCH, GREEN), FOCAL, padding=1)


def panel(fill: float, samples: int = SAMPLES) -> Panel:
    return Panel(N // samples, N // samples, samples * PITCH, fill_factor=fill, samples=samples)


def camera(image: Tensor, kernel: Tensor, shown: Panel) -> Tensor:
    """The middle of the camera's field with a mask that has pixels."""
    mask, gain = fourier_mask(kernel_plane(kernel, (N, N)))
    field = system().camera_field(input_plane(image, (N, N)), held(mask, shown)) * gain
    side = image.shape[-1]
    first = N // 2 - side // 2
    return field.real[first : first + side, first : first + side]


def scene(side: int, taps: int) -> tuple[Tensor, Tensor]:
    print(f"seed {SEED}")
    generator = torch.Generator().manual_seed(SEED)
    image = torch.rand(side, side, generator=generator, dtype=torch.float64)
    return image, torch.randn(taps, taps, generator=generator, dtype=torch.float64)


def convolved(image: Tensor, kernel: Tensor) -> Tensor:
    taps = kernel.shape[-1]
    before = (taps - 1) // 2
    padded = functional.pad(image, (before, taps - 1 - before, before, taps - 1 - before))
    return functional.conv2d(padded[None, None], kernel[None, None])[0, 0]


@pytest.mark.parametrize("fill", [1.0, 0.64])
@pytest.mark.parametrize("taps", [5, 8])
def test_pixels_weigh_the_taps_with_their_spectrum(fill: float, taps: int) -> None:
    image, kernel = scene(20, taps)
    shown = panel(fill)
    # the spectrum of a pixel written out: covered samples of SAMPLES, at x / N of a cycle each
    width = SAMPLES * fill**0.5 / 2
    cover = torch.tensor(
        [max(0.0, min(width - abs(j) + 0.5, 1.0)) for j in range(-3, 4)], dtype=torch.float64
    )
    places = torch.arange(taps, dtype=torch.float64) - (taps - 1) // 2
    turns = torch.arange(-3, 4, dtype=torch.float64) / N
    one = (torch.cos(2 * torch.pi * places[:, None] * turns) * cover).sum(-1) / SAMPLES
    got = camera(image, kernel, shown)
    torch.testing.assert_close(
        got, convolved(image, kernel * one[:, None] * one), rtol=0, atol=1e-10
    )
    plain = convolved(image, kernel) * fill
    assert float((got - plain).norm() / plain.norm()) > 1e-3, "the test would not see the pixels"


@pytest.mark.parametrize("fill", [1.0, 0.64])
def test_divided_taps_convolve_as_without_pixels(fill: float) -> None:
    image, kernel = scene(20, 6)
    shown = panel(fill)
    side = 20 * PITCH
    divided = precompensated(kernel, shown, system(), image_m=(side, side), pitch_m=PITCH)
    torch.testing.assert_close(
        camera(image, divided, shown), convolved(image, kernel), rtol=0, atol=1e-10
    )


def test_a_repeated_kernel_reaches_into_a_larger_image() -> None:
    shown = panel(0.64)
    assert repetition_m(shown, system()) == pytest.approx(N // SAMPLES * PITCH)
    # 30 samples and the 2 taps behind the centre just fit 32, one more does not
    errors = {}
    for side in (30, 31):
        image, kernel = scene(side, 5)
        divided = precompensated(
            kernel, shown, system(), image_m=(30 * PITCH, 30 * PITCH), pitch_m=PITCH
        )
        wanted = convolved(image, kernel)
        errors[side] = float((camera(image, divided, shown) - wanted).norm() / wanted.norm())
    assert errors[30] < 1e-10
    assert errors[31] > 1e-4
    with pytest.raises(VitruviusError, match=r"repeats the kernel every .* mm, and image and"):
        precompensated(kernel, shown, system(), image_m=(31 * PITCH, 31 * PITCH), pitch_m=PITCH)


def test_a_mask_on_another_grid_is_refused() -> None:
    with pytest.raises(VitruviusError, match=r"expected a mask \[..., 128, 128\], 4 samples for"):
        held(torch.ones(64, 64), panel(1.0))
