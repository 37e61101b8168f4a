"""Panels, camera and the whole bench against formulas and measured error tables."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.optical.bench import Bench
from vitruvius.optical.camera import Camera
from vitruvius.optical.devices import (
    binary_planes,
    phase_efficiency,
    quantized,
    quantized_phase,
    shifted,
    shown_mask,
)
from vitruvius.optical.grid import Grid, critical_pitch
from vitruvius.optical.system4f import System4f


def test_levels_are_even_and_signed() -> None:
    values = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    got = quantized(values, 16)
    assert len(got.unique()) == 31
    assert float((got - values).abs().max()) == pytest.approx(1 / 30, rel=1e-2)
    phases = torch.polar(torch.ones_like(values), math.pi * values)
    assert len((quantized_phase(phases, 8).angle() * 8 / (2 * math.pi)).round().unique()) in (8, 9)


def test_rounding_passes_gradients_straight_through() -> None:
    values = torch.rand(5, dtype=torch.float64, requires_grad=True)
    quantized(values, 4).sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("levels", [2, 4, 8, 256])
def test_a_quantized_blaze_diffracts_as_the_formula_says(levels: int) -> None:
    """First-order efficiency sinc^2(1/L): a phase ramp of one period a window, quantized."""
    samples = 4096
    # half a sample off the steps' edges, so that no sample lies on one
    ramp = (torch.arange(samples, dtype=torch.float64) + 0.25) * 2 * math.pi / samples
    wave = quantized_phase(torch.polar(torch.ones_like(ramp), ramp), levels)
    order = torch.fft.fft(wave)[1].abs() / samples
    assert float(order) ** 2 == pytest.approx(phase_efficiency(levels), rel=1e-4)
    published = {2: 0.405, 4: 0.811, 8: 0.950, 256: 0.99995}[levels]
    assert phase_efficiency(levels) == pytest.approx(published, abs=6e-4)


def test_mirrors_show_grey_in_binary_frames() -> None:
    values = torch.linspace(0, 1, 101, dtype=torch.float64)
    frames = binary_planes(values, 4)
    assert len(frames) == 4
    assert all(set(frame.unique().tolist()) <= {0.0, 1.0} for _, frame in frames)
    total = sum((weight * frame for weight, frame in frames), torch.zeros_like(values))
    assert torch.allclose(total, quantized(values, 16))
    with pytest.raises(VitruviusError, match=r"mirrors show values from 0 to 1, got -0.5 to 1"):
        binary_planes(torch.tensor([-0.5, 1.0]), 4)


def test_binary_frames_convolve_to_the_quantized_image() -> None:
    """Every frame is one exposure; electronics add the square roots with the frames' weights."""
    image, kernel, _ = standard(16)
    bench = Bench((32, 32))
    kernel = kernel.abs()
    frames = binary_planes(image, 3)
    got = sum(w * bench.convolve(f, kernel, signed_input=False) for w, f in frames)
    wanted = functional.conv2d(quantized(image, 8), kernel, padding="same")
    assert isinstance(got, Tensor)
    assert relative(got, wanted) < 1e-13


def test_whole_and_half_shifts() -> None:
    generator = torch.Generator().manual_seed(1)
    plane = torch.randn(2, 6, 8, generator=generator, dtype=torch.complex128)
    assert torch.allclose(shifted(plane, (2, -3)), plane.roll((2, -3), (-2, -1)))
    # two half shifts are a whole one but for the highest frequency, whose phase is ambiguous
    smooth = torch.exp(2j * math.pi * torch.arange(8, dtype=torch.float64) / 8).expand(6, 8)
    half = shifted(smooth.contiguous(), (0, 0.5))
    assert torch.allclose(half, smooth * torch.exp(torch.tensor(-1j * math.pi / 8)), atol=1e-6)
    assert torch.allclose(shifted(half, (0, 0.5)), smooth.roll(1, -1), atol=1e-12)


@pytest.mark.parametrize("photons", [30.0, 1e4])
def test_noise_is_unbiased_with_the_variance_of_the_formula(photons: float) -> None:
    """Acceptance 5: mean within 4 standard errors; variance n + sigma_read^2 + dark."""
    print("seed 7")
    generator = torch.Generator().manual_seed(7)
    draws = 20000
    clean = torch.full((draws,), 0.6, dtype=torch.float64)
    camera = Camera(photons=photons, quantum_efficiency=0.8, read_noise_e=3, dark_e=5)
    noisy = camera.measure(clean, 1.0, generator)
    well = photons * 0.8
    sigma = math.sqrt(0.6 * well + 3**2 + 5) / well
    assert abs(float(noisy.mean()) - 0.6) < 4 * sigma / math.sqrt(draws)
    assert float(noisy.std()) == pytest.approx(sigma, rel=4 / math.sqrt(2 * draws))


@pytest.mark.parametrize("level", [1.0, 0.5])
def test_after_the_root_shot_noise_does_not_depend_on_the_signal(level: float) -> None:
    """Acceptance 5: sigma of |u| / u_max = 1 / (2 sqrt(N_peak)), at full and at quarter light."""
    print("seed 8")
    generator = torch.Generator().manual_seed(8)
    photons, draws = 1e4, 20000
    clean = torch.full((draws,), level**2, dtype=torch.float64)
    root = Camera(photons=photons).measure(clean, 1.0, generator).sqrt()
    sigma = 1 / (2 * math.sqrt(photons))
    assert float(root.std()) == pytest.approx(sigma, rel=4 / math.sqrt(2 * draws))
    assert abs(float(root.mean()) - level) < 4 * sigma / math.sqrt(draws)


def test_the_converter_has_its_codes_and_clips() -> None:
    camera = Camera(adc_bits=4)
    got = camera.measure(torch.linspace(0, 2, 401, dtype=torch.float64), 2.0, None)
    assert torch.equal(got, (got * 7.5).round() / 7.5)
    assert len(got.unique()) == 16
    bright = Camera(photons=10, adc_bits=8, read_noise_e=4)
    noisy = bright.measure(torch.ones(2000), 1.0, torch.Generator().manual_seed(1))
    assert float(noisy.max()) <= 1
    assert float(noisy.min()) >= 0


def test_gradients_pass_the_noise() -> None:
    light = torch.full((4,), 0.5, dtype=torch.float64, requires_grad=True)
    Camera(photons=100, adc_bits=8).measure(light, 1.0, None).sum().backward()
    assert light.grad is not None
    assert torch.equal(light.grad, torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"photons": -5}, "photons must be a positive number, got -5"),
        ({"photons": math.nan}, "photons must be a positive number, got nan"),
        ({"quantum_efficiency": 1.5}, "quantum_efficiency must be above 0 and at most 1, got 1.5"),
        ({"photons": 10, "read_noise_e": -1}, "read_noise_e must not be negative, got -1"),
        ({"read_noise_e": 2}, "read_noise_e counts electrons, which needs photons, got none"),
        ({"adc_bits": 0, "dark_e": -1}, "dark_e must not be negative, got -1; adc_bits must be"),
    ],
)
def test_bad_cameras(options: dict[str, float], text: str) -> None:
    with pytest.raises(VitruviusError) as refusal:
        Camera(**options)  # type: ignore[arg-type]
    assert text in str(refusal.value)


def test_negative_light_is_refused() -> None:
    with pytest.raises(VitruviusError, match="there are no negative photon counts"):
        Camera(photons=10).measure(torch.tensor([1.0, -0.1]), 1.0, None)


def standard(side: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """A uniform-random image, a normal-random 5 x 5 kernel and their conv2d."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, side, side, generator=generator, dtype=torch.float64)
    kernel = torch.randn(1, 1, 5, 5, generator=generator, dtype=torch.float64)
    return image, kernel, functional.conv2d(image, kernel, padding="same")


def relative(got: Tensor, wanted: Tensor, *, fitted: bool = False) -> float:
    assert got.shape == wanted.shape
    if fitted:
        got = got * (got * wanted).sum() / got.square().sum()
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(
    ("kind", "published"), [("phase", 0.24), ("amplitude", 0.71), ("real", 0.44)]
)
def test_incomplete_masks_transcribe_a_kernel_badly(kind: str, published: float) -> None:
    """Measured elsewhere for this scene, of the signed field."""
    image, kernel, wanted = standard()
    bench = Bench((256, 256), mask=kind)  # type: ignore[arg-type]
    got = bench.convolve(image, kernel, signed_input=False, scheme="reference")
    error = relative(got, wanted, fitted=True)
    assert published / 1.5 < error < published * 1.5


def test_a_binary_mask_is_zeros_and_ones() -> None:
    generator = torch.Generator().manual_seed(2)
    mask = torch.randn(8, 8, generator=generator, dtype=torch.complex128)
    assert set(shown_mask(mask, "binary").real.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(shown_mask(mask, "binary", amplitude_levels=4).imag, torch.zeros(8, 8))


def test_a_mask_shift_turns_the_phase_of_the_kernel_plane() -> None:
    """exp(i 2 pi delta x / (wavelength f)): harmless for small kernels, not for wide ones."""
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(1, 1, 64, 64, generator=generator, dtype=torch.float64)
    bench = Bench((128, 128), mask_shift=(1.0, 1.0))
    errors = []
    for taps in (3, 31):
        kernel = torch.rand(1, 1, taps, taps, generator=generator, dtype=torch.float64)
        wanted = functional.conv2d(image, kernel, padding="same")
        errors.append(relative(bench.convolve(image, kernel, signed_input=False), wanted))
    assert errors[0] < 3e-3
    assert errors[1] > 20 * errors[0]


def test_the_bench_runs_through_propagation() -> None:
    """Devices and noise on a propagated field: the same numbers as on the DFT's."""
    image, kernel, _ = standard(24)
    system = System4f(Grid(32, 32, critical_pitch(32, 0.05, 532e-9), 532e-9), 0.05, padding=1)
    bench = Bench(
        (32, 32),
        input_levels=256,
        mask_phase_levels=64,
        camera_shift=(0.1, 0.0),
        camera=Camera(photons=1e4, adc_bits=12),
    )
    both = [
        bench.convolve(image, kernel, generator=torch.Generator().manual_seed(4), **options)
        for options in ({}, {"wave": system.camera_field})
    ]
    assert relative(both[1], both[0]) < 1e-3


@pytest.mark.parametrize("scheme", ["split", "offset", "reference"])
def test_gradients_reach_image_and_kernel(scheme: str) -> None:
    print("seed 9")
    generator = torch.Generator().manual_seed(9)
    image = torch.rand(1, 2, 5, 5, generator=generator, dtype=torch.float64) + 0.1
    kernel = torch.randn(1, 2, 3, 3, generator=generator, dtype=torch.float64)
    image.requires_grad_()
    kernel.requires_grad_()
    bench = Bench((8, 8))
    torch.autograd.gradcheck(
        lambda x, k: bench.convolve(
            x / x.sum(),
            k,
            scheme=scheme,  # type: ignore[arg-type]
            readout="valid",
            signed_input=False,
            floor=1e-6,
        ),
        (image, kernel),
        atol=1e-4,
    )


def test_a_plane_too_small_and_bad_shapes_are_one_sentence_each() -> None:
    image, kernel, _ = standard(30)
    with pytest.raises(
        VitruviusError, match="a plane of 30 x 30 samples is too small: an image of"
    ):
        Bench((30, 30)).convolve(image, kernel)
    Bench((30, 30)).convolve(image, kernel, readout="valid")
    with pytest.raises(VitruviusError, match="even number of samples a side, got 31 x 32"):
        Bench((31, 32))
    with pytest.raises(VitruviusError, match=r"got \[1, 1, 30, 30\] and \[1, 2, 5, 5\]"):
        Bench((64, 64)).convolve(image, kernel.expand(1, 2, 5, 5))
    with pytest.raises(VitruviusError, match="images of at least 5 x 5, the kernel, got 4 x 4"):
        Bench((64, 64)).convolve(image[..., :4, :4], kernel, readout="valid")
    with pytest.raises(VitruviusError, match="mask must be complex, phase"):
        Bench((64, 64), mask="grey").convolve(image, kernel)  # type: ignore[arg-type]
    with pytest.raises(VitruviusError, match="levels must be at least 2, got 1"):
        Bench((64, 64), input_levels=1).convolve(image, kernel)
