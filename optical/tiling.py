"""Where tiles lie on the planes of a 4f system, and how their results are taken out again.

All tilings are one arrangement. Along each axis the planes are cut into slots of one pitch. The
input panel shows channel ``c`` of image ``a`` in slot ``a n + c``; the point response of the mask
holds channel ``c`` of kernel ``b`` in slot ``b A n + n - 1 - c``, with ``A`` images and ``n``
channels a plane. A convolution adds positions, so image ``a`` meets kernel ``b`` in slot
``(b A + a) n + n - 1``, where all channels add up as fields, before detection (S. Li and P. Gupta,
2022, doi 10.1117/12.2614731). Every other sum of slots is at least one slot away, also where the
plane wraps round, if ``A B n`` slots fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, isqrt, prod
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import VitruviusError

__all__ = ["Layout", "Readout", "Tiling", "arrange", "blocks", "check_known", "pitch"]

Readout: TypeAlias = Literal["valid", "same", "full"]
"""Which part of the convolution is read: M - K + 1, M or M + K - 1 samples a side."""

Tiling: TypeAlias = Literal["none", "input", "kernel", "channel", "mixed"]
"""What shares a plane:

none: one channel of one image, one kernel;
input: many images, one kernel;
kernel: one image, many kernels;
channel: the channels of many images and of one kernel, summed by the light;
mixed: many images and many kernels, every pair of them in one frame.
"""

SAMPLES = 2**22
"""Samples of camera planes computed at once, which bounds the memory of a large layer."""


def pitch(size: int, kernel: int, readout: Readout) -> int:
    """Samples a side that one image of ``size`` occupies before its wrapped neighbours reach what
    is read.

    The DFT wraps round: what is read stays clear of it from M + K - 1 (full), M + K // 2 (same)
    and M (valid) samples on. Never less than the kernel, which lies in a slot as well.

    >>> [pitch(32, 7, readout) for readout in ("full", "same", "valid")]
    [38, 35, 32]
    """
    return max(kernel, size + {"full": kernel - 1, "same": kernel // 2, "valid": 0}[readout])


@dataclass(frozen=True)
class Layout:
    """How images, channels and kernels share a plane; ``arrange`` makes it. Pairs are rows and
    columns.

    plane: samples; size, kernel: samples of one image and one kernel.
    images, channels, kernels: how many lie side by side.
    """

    plane: tuple[int, int]
    size: tuple[int, int]
    kernel: tuple[int, int]
    readout: Readout
    images: tuple[int, int] = (1, 1)
    channels: tuple[int, int] = (1, 1)
    kernels: tuple[int, int] = (1, 1)

    @property
    def pitch(self) -> tuple[int, int]:
        """Samples of a slot."""
        return _pitches(self.size, self.kernel, self.readout)

    @property
    def output(self) -> tuple[int, int]:
        """Samples that are read of one image and one kernel, before any stride."""
        rows, cols = (
            {"valid": size - taps + 1, "same": size, "full": size + taps - 1}[self.readout]
            for size, taps in zip(self.size, self.kernel, strict=True)
        )
        return rows, cols

    def window(self, stride: tuple[int, int] = (1, 1)) -> tuple[slice, slice]:
        """The rows and columns of a full convolution that are read."""
        rows, cols = (
            slice(start, start + count, step)
            for start, count, step in zip(
                (
                    {"valid": taps - 1, "same": taps // 2, "full": 0}[self.readout]
                    for taps in self.kernel
                ),
                self.output,
                stride,
                strict=True,
            )
        )
        return rows, cols

    def frames(self, images: int, channels: int, kernels: int, groups: int = 1) -> int:
        """Frames in which ``images`` of ``channels`` meet ``kernels``, per pass; channels that do
        not share a plane are summed by electronics. Of several ``groups``, the channels and
        kernels are those of one.
        """
        loads = zip(
            (images, channels, kernels), (self.images, self.channels, self.kernels), strict=True
        )
        return groups * prod(-(-count // prod(grid)) for count, grid in loads)

    def image_tiles(self, images: Tensor) -> Tensor:
        """``images`` [N, groups, C, h, w] as [N', groups, C', images, channels, h, w]: what each
        of N' C' frames shows, the last ones filled up with dark tiles.
        """
        tiles = _dealt(_dealt(images, 2, prod(self.channels)), 0, prod(self.images))
        return tiles.movedim(1, 3)

    def kernel_tiles(self, kernels: Tensor) -> Tensor:
        """``kernels`` [groups, O, C, kh, kw] as [groups, O', C', kernels, channels, kh, kw]."""
        tiles = _dealt(_dealt(kernels, 2, prod(self.channels)), 1, prod(self.kernels))
        return tiles.movedim(2, 3)

    def gathered(self, read: Tensor, images: int, kernels: int) -> Tensor:
        """``read`` [N', groups, O', kernels, images, h', w'] as [N, groups, O, h', w'], without
        what filled up the last frames.
        """
        whole = read.movedim(4, 1).flatten(3, 4).flatten(0, 1)
        return whole[:images, :, :kernels]

    def input_planes(self, tiles: Tensor) -> Tensor:
        """``tiles`` [..., images, channels, h, w] on planes [..., *plane], the first one at the
        first sample.
        """
        return self._placed(tiles, self.images, (1, 1))

    def kernel_planes(self, tiles: Tensor) -> Tensor:
        """``tiles`` [..., kernels, channels, kh, kw] on point responses [..., *plane]: flipped,
        since optics convolve where ``conv2d`` correlates, and so is the order of channels.
        """
        return self._placed(tiles.flip(-3, -2, -1), self.kernels, self.images)

    def read(self, camera: Tensor, stride: tuple[int, int] = (1, 1)) -> Tensor:
        """Every stride-th sample of the readout of all pairs on the upright plane ``camera``
        [..., *plane], [..., kernels, images, h', w'].
        """
        rows, cols = self.window(stride)
        slots = self._slots(camera, self.kernels, self.images)
        # the light adds the channels up in the last of their slots
        pairs = slots[..., :, :, -1, rows, :, :, -1, cols]
        tiles = pairs.movedim((-3, -5, -2, -4), (-5, -4, -3, -2))
        return tiles.flatten(-4, -3).flatten(-5, -4)

    @property
    def centring(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns by which to roll ``input_planes`` and ``kernel_planes`` so that what
        they hold lies about the optical axis, sample N // 2. The camera's plane is to be rolled
        back by their sum, less that of the axis.
        """
        (top, first), (left, second) = (
            (
                plane // 2 - ((images * channels - 1) * step + size) // 2,
                plane // 2
                - (((kernels - 1) * images * channels + channels - 1) * step + taps) // 2,
            )
            for plane, size, taps, step, images, channels, kernels in zip(
                self.plane,
                self.size,
                self.kernel,
                self.pitch,
                self.images,
                self.channels,
                self.kernels,
                strict=True,
            )
        )
        return (top, left), (first, second)

    def _placed(self, tiles: Tensor, grid: tuple[int, int], apart: tuple[int, int]) -> Tensor:
        """``tiles`` [..., grid, channels, h, w], ``apart`` times the channels' slots apart."""
        rows, cols = tiles.shape[-2:]
        plane = tiles.new_zeros((*tiles.shape[:-4], *self.plane))
        slots = self._slots(plane, grid, apart)
        # [..., grid, grid, channels, channels, h, w], pairs of rows and columns
        own = torch.unflatten(torch.unflatten(tiles, -3, self.channels), -5, grid)
        slots[..., :, 0, :, :rows, :, 0, :, :cols] = own.movedim((-4, -2, -5), (-5, -4, -3))
        return plane

    def _slots(self, plane: Tensor, outer: tuple[int, int], inner: tuple[int, int]) -> Tensor:
        """A view [..., outer, inner, channels, pitch, outer, inner, channels, pitch]: the rows'
        four axes, then the columns'.
        """
        rows, cols = zip(outer, inner, self.channels, self.pitch, strict=True)
        used = plane[..., : prod(rows), : prod(cols)]
        return torch.unflatten(torch.unflatten(used, -1, cols), -5, rows)


def arrange(
    tiling: Tiling,
    size: tuple[int, int],
    kernel: tuple[int, int],
    readout: Readout,
    plane: tuple[int, int] | None = None,
    *,
    images: int = 1,
    channels: int = 1,
    kernels: int = 1,
) -> Layout:
    """The layout that takes the fewest frames for ``images`` of ``channels`` and ``kernels``, on
    ``plane`` or on the smallest even plane that holds them all at once.

    Channels lie in a square as published; where that does not fit, as many as do share a plane.

    >>> arrange("mixed", (8, 8), (8, 8), "valid", (96, 96), images=9, kernels=16).kernels
    (4, 4)

    Raises ``VitruviusError`` for an unknown tiling, an odd plane, a plane smaller than one tile,
    and a kernel larger than the image where the readout is valid.
    """
    check_known(tiling, readout)
    if readout == "valid" and (size[0] < kernel[0] or size[1] < kernel[1]):
        raise VitruviusError(
            f"a valid readout expects images of at least {kernel[0]} x {kernel[1]}, the kernel, "
            f"got {size[0]} x {size[1]}"
        )
    steps = _pitches(size, kernel, readout)
    if plane is None:
        unlimited = images * channels * kernels
        room = (unlimited, unlimited)
    else:
        _check(plane, steps, size, kernel, readout)
        room = (plane[0] // steps[0], plane[1] // steps[1])
    square = isqrt(channels - 1) + 1
    own = (1, 1)
    if tiling == "channel":
        own = (square, square) if square <= min(room) else _grid(channels, room)
        room = (room[0] // own[0], room[1] // own[1])
    side_by_side, filters = (1, 1), (1, 1)
    if tiling in ("input", "channel"):
        side_by_side = _grid(images, room)
    elif tiling == "kernel":
        filters = _grid(kernels, room)
    elif tiling == "mixed":
        side_by_side, filters = _mixed(images, kernels, room)
    if plane is None:
        rows, cols = (prod(parts) for parts in zip(steps, own, side_by_side, filters, strict=True))
        plane = (rows + rows % 2, cols + cols % 2)
    return Layout(plane, size, kernel, readout, side_by_side, own, filters)


def blocks(counts: tuple[int, ...], samples: int) -> Iterator[tuple[slice, ...]]:
    """Slices that cover ``counts``, each of as many items of ``samples`` as ``SAMPLES`` holds, the
    first axis first, and of one at least.

    >>> [(a.stop - a.start, b.start) for a, b in blocks((2, 3), SAMPLES // 3)]
    [(2, 0), (2, 1), (2, 2)]
    """
    room = max(1, SAMPLES // samples)
    sizes = []
    for count in counts:
        sizes.append(min(count, room))
        room = max(1, room // sizes[-1])
    starts = [range(0, count, size) for count, size in zip(counts, sizes, strict=True)]
    for first in product(*starts):
        yield tuple(slice(at, at + size) for at, size in zip(first, sizes, strict=True))


def check_known(tiling: str, readout: str) -> None:
    """Raises ``VitruviusError`` for an unknown tiling or readout."""
    for name, value, known in (("tiling", tiling, Tiling), ("readout", readout, Readout)):
        if value not in get_args(known):
            raise VitruviusError(f"{name} must be {', '.join(get_args(known))}, got {value!r}")


def _pitches(size: tuple[int, int], kernel: tuple[int, int], readout: Readout) -> tuple[int, int]:
    return pitch(size[0], kernel[0], readout), pitch(size[1], kernel[1], readout)


def _check(
    plane: tuple[int, int],
    steps: tuple[int, int],
    size: tuple[int, int],
    kernel: tuple[int, int],
    readout: Readout,
) -> None:
    if any(side % 2 for side in plane):
        raise VitruviusError(
            "a plane has an even number of samples a side, the axis in its middle, got "
            f"{plane[0]} x {plane[1]}"
        )
    for side, step, samples, taps in zip(plane, steps, size, kernel, strict=True):
        if step > side:
            raise VitruviusError(
                f"a plane of {plane[0]} x {plane[1]} samples is too small: an image of {samples} "
                f"and a kernel of {taps} samples need {step} for a {readout} readout, or the "
                "image wraps round into itself"
            )


def _grid(count: int, room: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns for ``count`` tiles, as square as ``room`` lets them, or all of it."""
    square = isqrt(count - 1) + 1
    cols = min(room[1], max(square, ceil(count / room[0])))
    return min(room[0], -(-count // cols)), cols


def _mixed(
    images: int, kernels: int, room: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grids of images and of kernels whose product fits ``room``, for the fewest frames."""
    grids = _grid(images, (images, images)), _grid(kernels, (kernels, kernels))
    if all(a * b <= side for a, b, side in zip(*grids, room, strict=True)):
        return grids

    def frames(shares: tuple[tuple[int, int], tuple[int, int]]) -> tuple[int, int, int]:
        (a, b), (c, d) = shares
        count = -(-images // (a * c)) * -(-kernels // (b * d))
        return count, abs(a - c), abs(b - d)

    rows, cols = (list(_shares(side)) for side in room)
    (a, b), (c, d) = min(((row, col) for row in rows for col in cols), key=frames)
    return _grid(images, (a, c)), _grid(kernels, (b, d))


def _shares(side: int) -> Iterator[tuple[int, int]]:
    """All (A, B) with A B slots on a side of which neither can grow."""
    last = 0
    for kernels in range(side, 0, -1):
        images = side // kernels
        if images > last:
            yield images, side // images
            last = images


def _dealt(values: Tensor, dim: int, share: int) -> Tensor:
    """``values`` with the axis ``dim`` as (count, share), the last share filled up with zeros."""
    missing = -values.shape[dim] % share
    if missing:
        values = functional.pad(values, [0, 0] * (values.dim() - 1 - dim) + [0, missing])
    return torch.unflatten(values, dim, (-1, share))
