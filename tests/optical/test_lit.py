"""A bench whose light is set beforehand, against PyTorch and against ``Bench.convolve``."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import pytest
import torch
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.optical.bench import Bench
from vitruvius.optical.camera import Camera
from vitruvius.optical.lit import Light, LitBench
from vitruvius.optical.schemes import Scheme
from vitruvius.optical.tiling import Readout

EXACT: tuple[Scheme, ...] = ("split", "offset", "reference")
PADDING = {"valid": (0, 0, 0, 0), "same": (0, 1, 1, 1), "full": (1, 1, 2, 2)}


def scene(seed: int, *shape: int, signed: bool = True) -> torch.Tensor:
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn if signed else torch.rand
    return draw(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("tiling", ["input", "channel"])
@pytest.mark.parametrize("plane", [(12, 10), (30, 24)], ids=["one image", "tiles"])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("scheme", EXACT)
def test_convolutions_equal_conv2d(
    scheme: Scheme, signed: bool, plane: tuple[int, int], tiling: Literal["input", "channel"]
) -> None:
    images = scene(1, 5, 4, 8, 6, signed=signed)
    weight = scene(2, 6, 2, 3, 2)
    bench = LitBench(Bench(plane), scheme, signed_input=signed, tiling=tiling)
    for readout in get_args(Readout):
        got = bench.convolve(images, weight, readout=readout, stride=(2, 1), groups=2)
        padded = functional.pad(images, PADDING[readout])
        wanted = functional.conv2d(padded, weight, stride=(2, 1), groups=2)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("scheme", EXACT)
def test_dot_products_equal_a_matrix_product(scheme: Scheme, signed: bool) -> None:
    images, kernels = scene(3, 2, 3, 7, 3, 5, signed=signed), scene(4, 2, 3, 6, 3, 5)
    got = LitBench(Bench((4, 6)), scheme, signed_input=signed).dot_products(images, kernels)
    wanted = images.flatten(-2) @ kernels.flatten(-2).mT
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_channels_added_up_as_light_have_one_camera_setting_and_its_noise() -> None:
    """16 equal channels: apart, 16 pixels of sigma w / (2 sqrt N) each; together one of 16 w."""
    images = torch.ones(500, 16, 2, 2, dtype=torch.float64)
    weight = torch.ones(1, 16, 2, 2, dtype=torch.float64)
    sigmas = []
    for tiling in get_args(Literal["input", "channel"]):
        bench = LitBench(
            Bench((8, 8), camera=Camera(photons=1e4)),
            signed_input=False,
            signed_kernel=False,
            tiling=tiling,
        )
        light = bench.light_of_convolution(images[:2], weight, readout="valid")
        assert light.largest.shape == ((1, 16, 1) if tiling == "input" else (1, 1, 1))
        got = bench.convolve(
            images,
            weight,
            readout="valid",
            light=light,
            generator=torch.Generator().manual_seed(12),
        )
        # half of the noise is cut off at the well, which is set at the mean
        assert float(got.mean()) == pytest.approx(64, rel=0.01)
        sigmas.append(float(got.std()))
    assert sigmas[0] == pytest.approx(4 * 4 / 200, rel=0.5)
    assert sigmas[1] == pytest.approx(64 / 200, rel=0.5)


@pytest.mark.parametrize("scheme", ["split", "offset", "intensity", "absolute"])
def test_levels_and_shifts_are_those_of_the_bench(scheme: Scheme) -> None:
    """What a single pixel sees through the masks' responses is what the transforms give."""
    bench = Bench(
        (10, 8),
        input_levels=16,
        mask_amplitude_levels=16,
        mask_phase_levels=16,
        mask_shift=(0.3, -0.2),
        camera_shift=(0.1, 0.2),
    )
    images, weight = scene(5, 7, 1, 8, 6), scene(6, 5, 1, 8, 6)
    wanted = bench.convolve(images, weight, readout="valid", scheme=scheme)
    lit = LitBench(bench, scheme)
    products = lit.dot_products(images[:, 0], weight[:, 0])
    torch.testing.assert_close(products, wanted[..., 0, 0], rtol=0, atol=1e-11)
    got = lit.convolve(images, weight, readout="valid")
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-11)
    exact = functional.conv2d(images, weight)
    assert float((got - exact).norm() / exact.norm()) > 0.02


def test_channels_share_the_camera_setting_of_their_own_pair() -> None:
    bench = Bench((10, 10), input_levels=8, camera=Camera(adc_bits=6))
    images, weight = scene(7, 1, 3, 8, 8, signed=False), scene(8, 2, 3, 8, 8, signed=False)
    got = LitBench(bench, signed_input=False, signed_kernel=False).convolve(
        images, weight, readout="valid"
    )
    # one pixel of one image is its own brightest: the converter's top code, no error but the levels
    levels = (images / images.max() * 7).round() / 7 * images.max()
    torch.testing.assert_close(got, functional.conv2d(levels, weight), rtol=1e-12, atol=0)


@pytest.mark.parametrize("photons", [100.0, 10_000.0])
def test_noise_is_that_of_a_camera(photons: float) -> None:
    """Shot noise of a full pixel is 1 / (2 sqrt N) of full amplitude after the root; on the bench
    as well.
    """
    count = 4000
    images = torch.ones(count, 1, 2, 2, dtype=torch.float64)
    weight = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    bench = Bench((2, 2), camera=Camera(photons=photons))
    print("seed", 9)
    lit = LitBench(bench, signed_input=False, signed_kernel=False).dot_products(
        images[:, 0], weight[:, 0], generator=torch.Generator().manual_seed(9)
    )
    plain = bench.convolve(
        images,
        weight,
        readout="valid",
        signed_input=False,
        generator=torch.Generator().manual_seed(9),
    )
    for values in (lit, plain):
        assert float(values.std() / 4) == pytest.approx(0.5 / photons**0.5, rel=0.06)
        assert float(values.mean()) == pytest.approx(4, rel=5 / photons)


def test_a_pixel_brighter_than_the_well_stays_at_the_well() -> None:
    bench = LitBench(
        Bench((2, 2), camera=Camera(adc_bits=8)), signed_input=False, signed_kernel=False
    )
    dim, kernel = torch.full((1, 2, 2), 0.5), torch.ones(1, 2, 2)
    light = bench.light_of_dot_products(dim, kernel, shared=0)
    assert bench.dot_products(dim, kernel, light).item() == pytest.approx(2.0)
    assert bench.dot_products(2 * dim, kernel, light).item() == pytest.approx(2.0)
    brighter = bench.light_of_dot_products(2 * dim, kernel, shared=0).covering(light)
    assert bench.dot_products(2 * dim, kernel, brighter).item() == pytest.approx(4.0)


def test_light_of_dynamic_kernels_is_one_for_all_of_a_head() -> None:
    bench = LitBench(Bench((2, 2)))
    queries, keys = torch.ones(3, 2, 4, 2, 2), torch.ones(3, 2, 5, 2, 2)
    keys[1, 1] = 7
    light = bench.light_of_dot_products(queries, keys, shared=1)
    assert isinstance(light, Light)
    assert light.largest.flatten().tolist() == pytest.approx([4.0, 28.0])


@pytest.mark.parametrize("levels", [None, 8])
def test_untransformed_masks_change_nothing(levels: int | None) -> None:
    """Ideal masks are their kernels; others are transformed all the same."""
    bench = Bench((4, 6), mask_phase_levels=levels, input_levels=16, camera=Camera(adc_bits=8))
    images, kernels = scene(10, 2, 7, 3, 5), scene(11, 2, 6, 3, 5)
    slow = LitBench(bench).dot_products(images, kernels)
    quick = LitBench(bench, untransformed=True).dot_products(images, kernels)
    torch.testing.assert_close(quick, slow, rtol=0, atol=1e-9)
    planes = replace(bench, size=(16, 10))
    images, weight = scene(12, 3, 4, 8, 6), scene(13, 6, 2, 3, 2)
    for readout in get_args(Readout):
        slow, quick = (
            LitBench(planes, untransformed=direct).convolve(
                images, weight, readout=readout, stride=(2, 1), groups=2
            )
            for direct in (False, True)
        )
        torch.testing.assert_close(quick, slow, rtol=0, atol=1e-9)


def test_a_plane_too_small_is_refused() -> None:
    images, weight = torch.ones(1, 1, 8, 8), torch.ones(1, 1, 3, 3)
    with pytest.raises(VitruviusError, match=r"plane of 8 x 8 samples is too small.* need 9"):
        LitBench(Bench((8, 8))).convolve(images, weight, readout="same")
    with pytest.raises(VitruviusError, match="need 8 for a valid readout"):
        LitBench(Bench((6, 6))).dot_products(images[0], images[0])
