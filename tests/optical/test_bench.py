"""Many tiles on the planes of a bench: exact when ideal, and what its defects do to them."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.optical import tiling as tiling_module
from vitruvius.optical.bench import Bench, dft_wave
from vitruvius.optical.camera import Camera
from vitruvius.optical.grid import Grid, critical_pitch
from vitruvius.optical.planes import centred_dft, upright
from vitruvius.optical.schemes import Scheme
from vitruvius.optical.system4f import System4f
from vitruvius.optical.tiling import Readout, Tiling

TILINGS = get_args(Tiling)
EXACT: tuple[Scheme, ...] = ("split", "offset", "reference")


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def relative(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("tiling", TILINGS)
@pytest.mark.parametrize("scheme", EXACT)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_an_ideal_bench_equals_conv2d(tiling: Tiling, scheme: Scheme, groups: int) -> None:
    """Signed both, depthwise among them; the last planes are partly filled."""
    images, weight = normal(3, 4, 7, 6, seed=1), normal(8, 4 // groups, 3, 4, seed=2)
    pads: dict[Readout, tuple[int, int, int, int]] = {
        "valid": (0, 0, 0, 0),
        "same": (1, 2, 1, 1),
        "full": (3, 3, 2, 2),
    }
    for readout, pad in pads.items():
        got = Bench((30, 22)).convolve(
            images,
            weight,
            readout=readout,
            stride=(1, 2),
            groups=groups,
            tiling=tiling,
            scheme=scheme,
        )
        padded = functional.pad(images, pad)
        wanted = functional.conv2d(padded, weight, stride=(1, 2), groups=groups)
        assert relative(got, wanted) < 1e-12, readout


def test_two_forward_lenses_are_one_transform_and_its_inverse() -> None:
    plane, mask = (
        normal(2, 8, 10, seed=3),
        torch.complex(normal(8, 10, seed=4), normal(8, 10, seed=5)),
    )
    twice = upright(centred_dft(centred_dft(plane) * mask) / 80)
    assert relative(torch.view_as_real(dft_wave(plane, mask)), torch.view_as_real(twice)) < 1e-14


@pytest.mark.parametrize("scheme", EXACT)
def test_scores_of_an_ideal_bench(scheme: Scheme) -> None:
    queries, keys = normal(2, 3, 5, 4, 6, seed=6), normal(2, 3, 7, 4, 6, seed=7)
    got = Bench((24, 30)).correlations(queries, keys, scheme=scheme)
    assert relative(got, queries.flatten(-2) @ keys.flatten(-2).mT) < 1e-12


@pytest.mark.parametrize("tiling", TILINGS)
def test_memory_is_bounded_without_a_trace(tiling: Tiling, monkeypatch: pytest.MonkeyPatch) -> None:
    images, weight = normal(3, 4, 6, 6, seed=8), normal(6, 2, 3, 3, seed=9)
    bench = Bench((20, 20), input_levels=16, mask_phase_levels=64, camera=Camera(adc_bits=10))
    whole = bench.convolve(images, weight, groups=2, tiling=tiling)
    monkeypatch.setattr(tiling_module, "SAMPLES", 1)
    assert relative(bench.convolve(images, weight, groups=2, tiling=tiling), whole) < 1e-12


def test_the_light_sums_channels_with_their_signs() -> None:
    """Of signed fields on one plane only the total loses its sign; apart, each channel does."""
    images, weight = normal(2, 4, 8, 8, seed=10), normal(3, 4, 3, 3, seed=11)
    signed = functional.conv2d(images, weight)
    bench = Bench((32, 32))
    together = bench.convolve(images, weight, readout="valid", scheme="absolute", tiling="channel")
    assert relative(together, signed.abs()) < 1e-12
    apart = bench.convolve(images, weight, readout="valid", scheme="absolute", tiling="input")
    assert relative(apart, signed.abs()) > 0.5
    squares = bench.convolve(images, weight, readout="valid", scheme="intensity", tiling="channel")
    wanted = sum(
        sign * functional.conv2d(x, k).square()
        for sign, x, k in (
            (1, images.clamp(min=0), weight.clamp(min=0)),
            (1, (-images).clamp(min=0), (-weight).clamp(min=0)),
            (-1, images.clamp(min=0), (-weight).clamp(min=0)),
            (-1, (-images).clamp(min=0), weight.clamp(min=0)),
        )
    )
    assert isinstance(wanted, Tensor)
    assert relative(squares, wanted) < 1e-12


@pytest.mark.parametrize("readout", get_args(Readout))
def test_tiles_of_a_propagated_bench(readout: Readout) -> None:
    images, weight = normal(2, 2, 6, 6, seed=12), normal(2, 2, 3, 3, seed=13)
    bench = Bench((40, 40))
    system = System4f(Grid(40, 40, critical_pitch(40, 0.05, 532e-9), 532e-9), 0.05, padding=1)
    tilings: tuple[Tiling, ...] = ("channel", "mixed")
    for tiling in tilings:
        collapsed, through = (
            bench.convolve(images, weight, readout=readout, tiling=tiling, wave=wave)
            for wave in (dft_wave, system.camera_field)
        )
        assert relative(through, collapsed) < 1e-10, tiling


def test_a_mask_shift_hurts_where_kernels_far_apart_interfere() -> None:
    """It turns the point response by exp(i 2 pi d x / N). A kernel as a whole may lie anywhere, its
    phase is lost in the camera; channels that the light adds up lie in different places.
    """
    images, weight = normal(4, 9, 8, 8, seed=14).abs(), normal(4, 9, 3, 3, seed=15).abs()
    wanted = functional.conv2d(images, weight)
    errors = {}
    for tiling in TILINGS:
        got = Bench((48, 48), mask_shift=(0.25, 0.25)).convolve(
            images, weight, readout="valid", tiling=tiling, signed_input=False
        )
        errors[tiling] = relative(got, wanted)
    for tiling in ("input", "kernel", "mixed"):
        assert errors[tiling] == pytest.approx(errors["none"], rel=0.2)
    assert errors["channel"] > 20 * errors["none"]


def test_mask_levels_spread_over_all_kernels_of_a_plane() -> None:
    images, weight = normal(2, 1, 16, 16, seed=16).abs(), normal(16, 1, 3, 3, seed=17).abs()
    wanted = functional.conv2d(images, weight)
    bench = Bench((64, 64), mask_amplitude_levels=64)
    errors = {}
    for tiling in TILINGS:
        got = bench.convolve(images, weight, readout="valid", tiling=tiling, signed_input=False)
        errors[tiling] = relative(got, wanted)
    print(errors)
    assert errors["input"] < 2 * errors["none"]
    assert errors["kernel"] > 5 * errors["input"]


def test_bad_groups_are_one_sentence() -> None:
    with pytest.raises(VitruviusError, match=r"\[1, 4, 8, 8\] and \[6, 2, 3, 3\] with groups 4"):
        Bench((16, 16)).convolve(torch.ones(1, 4, 8, 8), torch.ones(6, 2, 3, 3), groups=4)
