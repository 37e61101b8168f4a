"""Acceptance 4: tiles side by side on one plane are exact at their pitch, and wrong below it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vitruvius.optical.bench import dft_wave
from vitruvius.optical.convolution import Readout, pitch
from vitruvius.optical.grid import Grid, critical_pitch
from vitruvius.optical.planes import kernel_plane
from vitruvius.optical.system4f import System4f

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
