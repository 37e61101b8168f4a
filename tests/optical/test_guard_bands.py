"""Acceptance 4: tiles side by side on one plane are exact at their pitch, and wrong below it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vitruvius.optical import convolution
from vitruvius.optical import tiling as tiling_module
from vitruvius.optical.bench import dft_wave
from vitruvius.optical.convolution import Conv4f
from vitruvius.optical.grid import Grid, critical_pitch
from vitruvius.optical.planes import kernel_plane
from vitruvius.optical.system4f import System4f
from vitruvius.optical.tiling import Layout, Readout, Tiling, pitch

TILES, SIDE, TAPS = 4, 8, 5
READOUTS: tuple[Readout, ...] = ("full", "same", "valid")


def error(readout: Readout, step: int, *, propagated: bool = False) -> float:
    """Relative error of the worst of 4 x 4 random tiles, ``step`` samples apart on a plane that
    repeats.
    """
    generator = torch.Generator().manual_seed(11)
    tiles = torch.rand(TILES, TILES, SIDE, SIDE, generator=generator, dtype=torch.float64)
    kernel = torch.rand(TAPS, TAPS, generator=generator, dtype=torch.float64)
    size = TILES * step
    plane = torch.zeros(size, size, dtype=torch.float64)
    for row in range(TILES):
        for col in range(TILES):
            # below a pitch of their own side, tiles overlap: that is wrong as well
            plane[row * step : row * step + SIDE, col * step : col * step + SIDE] += tiles[
                row, col, : size - row * step, : size - col * step
            ]
    response = kernel_plane(kernel, (size, size))
    mask = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(response)))
    if propagated:
        grid = Grid(size, size, critical_pitch(size, 0.05, 532e-9), 532e-9)
        seen = System4f(grid, 0.05, padding=1).camera_field(plane, mask).real
    else:
        seen = dft_wave(plane, mask).real
    before, count = {
        "full": (-(TAPS - 1 - (TAPS - 1) // 2), SIDE + TAPS - 1),
        "same": (0, SIDE),
        "valid": ((TAPS - 1) // 2, SIDE - TAPS + 1),
    }[readout]
    pad = {"full": TAPS - 1, "same": TAPS // 2, "valid": 0}[readout]
    worst = 0.0
    for row in range(TILES):
        for col in range(TILES):
            rows = (torch.arange(count) + row * step + before) % size
            cols = (torch.arange(count) + col * step + before) % size
            got: Tensor = seen[rows][:, cols]
            image = tiles[row, col][None, None]
            wanted = functional.conv2d(image, kernel[None, None], padding=pad)[0, 0]
            worst = max(worst, float((got - wanted).norm() / wanted.norm()))
    return worst


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("propagated", [False, True], ids=["dft", "propagated"])
def test_tiles_are_exact_at_their_pitch(readout: Readout, propagated: bool) -> None:
    assert error(readout, pitch(SIDE, TAPS, readout), propagated=propagated) < 1e-10


@pytest.mark.parametrize("readout", ["same", "valid"])
@pytest.mark.parametrize("propagated", [False, True], ids=["dft", "propagated"])
def test_tiles_are_wrong_one_sample_below(readout: Readout, propagated: bool) -> None:
    assert error(readout, pitch(SIDE, TAPS, readout) - 1, propagated=propagated) > 0.1


def test_a_full_readout_one_sample_below_reads_its_neighbour() -> None:
    assert error("full", pitch(SIDE, TAPS, "full") - 1) > 0.05


def tiled_error(
    tiling: Tiling, readout: Readout, guard: int, taps: int, monkeypatch: pytest.MonkeyPatch
) -> float:
    """Relative error of the layer with ``guard`` samples between signed tiles, on a plane that
    they fill: 16 images or kernels, or 9 channels of 4 images.
    """
    print("seed 12")
    generator = torch.Generator().manual_seed(12)
    count = 9 if tiling == "channel" else 1
    images = torch.randn(16, count, SIDE, SIDE, generator=generator, dtype=torch.float64)
    weight = torch.randn(16, count, taps, taps, generator=generator, dtype=torch.float64)
    if tiling == "input":
        weight = weight[:1]
    elif tiling == "kernel":
        images = images[:1]
    else:
        images, weight = images[:4], weight[:2]
    right = convolution.camera_field
    start = {"valid": taps - 1, "same": taps // 2, "full": 0}[readout]
    count = {"valid": SIDE - taps + 1, "same": SIDE, "full": SIDE + taps - 1}[readout]

    def rolled(field: Tensor, mask: Tensor, size: tuple[int, int]) -> Tensor:
        """What is read, first: in slots that are too narrow it would end behind them."""
        return right(field, mask, size).roll((-start, -start), (-2, -1))

    with monkeypatch.context() as patch:
        patch.setattr(tiling_module, "pitch", lambda size, kernel, readout: size + guard)
        patch.setattr(Layout, "window", lambda self, stride: (slice(count), slice(count)))
        patch.setattr(convolution, "camera_field", rolled)
        got = Conv4f(weight, readout=readout, tiling=tiling)(images)
    ends = {"same": (taps // 2, (taps - 1) // 2), "valid": (0, 0), "full": (taps - 1, taps - 1)}
    after, before = ends[readout]
    wanted = functional.conv2d(functional.pad(images, (before, after) * 2), weight)
    return float((got - wanted).detach().norm() / wanted.norm())


TILED: tuple[Tiling, ...] = ("input", "kernel", "channel", "mixed")


@pytest.mark.parametrize("tiling", TILED)
@pytest.mark.parametrize("taps", [3, 4, 5])
def test_every_tiling_is_exact_at_its_pitch_and_wrong_below(
    tiling: Tiling, taps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    guards: dict[Readout, int] = {"valid": 0, "same": taps // 2, "full": taps - 1}
    for readout, guard in guards.items():
        assert tiled_error(tiling, readout, guard, taps, monkeypatch) < 1e-12, readout
    assert tiled_error(tiling, "same", taps // 2 - 1, taps, monkeypatch) > 0.1


@pytest.mark.parametrize(
    ("tiling", "taps", "measured"), [("input", 5, (0.56, 0.31)), ("channel", 3, (0.71,))]
)
def test_errors_of_narrow_guard_bands_are_those_measured(
    tiling: Tiling, taps: int, measured: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another script found, on one random scene each, 56 % and 31 % without and with one sample
    between tokens, 5 taps, and 71 % of 9 channels with 3. Scenes differ by up to a factor 2.
    """
    for guard, error in enumerate(measured):
        assert error / 2 < tiled_error(tiling, "same", guard, taps, monkeypatch) < error * 2
    assert tiled_error(tiling, "same", len(measured), taps, monkeypatch) < 1e-12
