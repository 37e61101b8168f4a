"""Many images with one kernel on one plane, side by side at the pitch of the readout."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import VitruviusError
from .convolution import Readout, pitch

__all__ = ["Tiles", "check_plane", "smallest_plane", "tiles_of"]


def smallest_plane(
    size: tuple[int, int], kernel: tuple[int, int], readout: Readout
) -> tuple[int, int]:
    """Rows and columns of the smallest even plane on which one image does not wrap round."""
    rows, cols = (
        max(pitch(side, taps, readout), taps) for side, taps in zip(size, kernel, strict=True)
    )
    return rows + rows % 2, cols + cols % 2


@dataclass(frozen=True)
class Tiles:
    """Images of ``size`` side by side on ``plane``, at the pitch of the readout; in the middle."""

    plane: tuple[int, int]
    size: tuple[int, int]
    kernel: tuple[int, int]
    readout: Readout

    @property
    def pitch(self) -> tuple[int, int]:
        rows, cols = (
            max(pitch(side, taps, self.readout), taps)
            for side, taps in zip(self.size, self.kernel, strict=True)
        )
        return rows, cols

    @property
    def sides(self) -> tuple[int, int]:
        (rows, cols), (height, width) = self.plane, self.pitch
        return rows // height, cols // width

    @property
    def count(self) -> int:
        return prod(self.sides)

    def laid(self, images: Tensor) -> Tensor:
        """Images [n, ..., h, w] as [planes, ..., rows, cols], row by row; the last plane may have
        dark tiles.
        """
        if self.count == 1:
            return images
        (rows, cols), (height, width) = self.sides, self.pitch
        missing = -len(images) % self.count
        lower, right = height - self.size[0], width - self.size[1]
        images = functional.pad(images, (0, right, 0, lower))
        images = torch.cat([images, images.new_zeros((missing, *images.shape[1:]))])
        images = images.reshape(-1, rows, cols, *images.shape[1:])
        return images.movedim((1, 2), (-4, -2)).flatten(-4, -3).flatten(-2)

    def read(self, field: Tensor, count: int, stride: tuple[int, int]) -> Tensor:
        """The first ``count`` tiles' readouts [count, ..., h', w'] of
        fields [planes, ..., N, M].
        """
        across = self.sides if self.count > 1 else (1, 1)
        cells = self.pitch if self.count > 1 else self.size
        for axis, tiles, cell, size, taps, step in zip(
            (-2, -1), across, cells, self.size, self.kernel, stride, strict=True
        ):
            samples = field.shape[axis]
            before = (taps - 1) // 2
            start, kept = {
                "valid": (before, size - taps + 1),
                "same": (0, size),
                "full": (before - (taps - 1), size + taps - 1),
            }[self.readout]
            first = samples // 2 - tiles * cell // 2 + start
            index = torch.arange(0, kept, step) + cell * torch.arange(tiles)[:, None] + first
            chosen = field.index_select(axis, (index % samples).flatten().to(field.device))
            field = _cut_up(chosen, axis, tiles)
            if axis == -2:
                field = field.movedim(-3, 1)  # [planes, tile rows, ..., h', M]
        return field.movedim(-2, 2).flatten(0, 2)[:count]


def tiles_of(
    plane: tuple[int, int], size: tuple[int, int], kernel: tuple[int, int], readout: Readout
) -> Tiles:
    """The tiles of a plane; raises ``VitruviusError`` when not even one image fits."""
    check_plane(plane, size, kernel, readout)
    return Tiles(plane, size, kernel, readout)


def check_plane(
    plane: tuple[int, int], size: tuple[int, int], kernel: tuple[int, int], readout: Readout
) -> None:
    """Raises ``VitruviusError`` when not even one image fits ``plane``."""
    for side, taps, samples in zip(size, kernel, plane, strict=True):
        needed = max(pitch(side, taps, readout), taps)
        if needed > samples:
            raise VitruviusError(
                f"a plane of {plane[0]} x {plane[1]} samples is too small: an image of {side} and "
                f"a kernel of {taps} samples need {needed} for a {readout} readout, or the image "
                "wraps round into itself"
            )


def _cut_up(values: Tensor, axis: int, parts: int) -> Tensor:
    """``values`` with ``axis``, counted from the end, as [parts, ...] in its place."""
    shape = list(values.shape)
    shape[axis:] = [parts, shape[axis] // parts, *shape[len(shape) + axis + 1 :]]
    return values.reshape(shape)
