"""A convolution layer computed by a 4f system: equal to ``torch.nn.functional.conv2d`` up to
rounding.

A camera measures intensity, so a signed sum cannot be read in one exposure. Kernel and input are
    each split
into a positive and a negative part ("pseudo-negativity"; J. Chang et al., 2018, doi
    10.1038/s41598-018-30619-y),
every pair is one optical pass of non-negative fields, and electronics add the square roots with
    their signs.
Channels are summed in electronics too: one exposure carries one (input channel, output channel)
    pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from ..errors import VitruviusError
from .planes import camera_amplitude, fourier_mask, input_plane, kernel_plane

__all__ = ["Conv4f", "Readout", "passes", "pitch"]

Readout: TypeAlias = Literal["valid", "same", "full"]
"""Which part of the convolution is read: M - K + 1, M or M + K - 1 samples a side."""


def passes(*, signed_input: bool, signed_kernel: bool) -> int:
    """Exposures per (input channel, output channel) pair: each signed factor doubles them.

    >>> passes(signed_input=False, signed_kernel=True)
    2
    """
    return (2 if signed_input else 1) * (2 if signed_kernel else 1)


def pitch(size: int, kernel: int, readout: Readout) -> int:
    """Samples a side that one image of ``size`` occupies before its wrapped neighbours reach what
    is read.

    The DFT wraps round: what is read stays clear of it from M + K - 1 (full), M + K // 2 (same)
    and M (valid) samples on.

    >>> [pitch(32, 7, readout) for readout in ("full", "same", "valid")]
    [38, 35, 32]
    """
    return size + {"full": kernel - 1, "same": kernel // 2, "valid": 0}[readout]


class Conv4f(nn.Module):
    """``conv2d`` through two lenses, a Fourier mask and a camera, without noise.

    Parameters
    ----------
    weight: [out, in / groups, kh, kw], real floating point; becomes the parameter.
    readout: "valid", "same" or "full" (``conv2d`` with padding 0, "same", k - 1).
    stride: rows and columns kept of what the camera reads; nothing is saved optically.
    groups: as in ``conv2d``; groups = channels is depthwise.
    signed_input: whether inputs may be negative; the negative part costs exposures of its own.
    floor: see ``camera_amplitude``; training wants it well above rounding, such as 1e-6.

    Input [batch, in, h, w] to output [batch, out, h', w'], in the weight's type.

    Raises ``VitruviusError`` for a weight, readout, stride or groups out of range; when called,
    for an input of another shape, one smaller than the kernel where the readout is valid, or a
    negative one although ``signed_input`` is false.
    """

    weight: nn.Parameter

    def __init__(
        self,
        weight: Tensor,
        *,
        readout: Readout = "valid",
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
        signed_input: bool = True,
        floor: float = 1e-30,
    ) -> None:
        super().__init__()
        if weight.dim() != 4 or 0 in weight.shape or not weight.is_floating_point():
            raise VitruviusError(
                "expected a floating-point weight [out, in / groups, kh, kw], got "
                f"{str(weight.dtype).removeprefix('torch.')} {list(weight.shape)}"
            )
        if readout not in get_args(Readout):
            raise VitruviusError(f"readout must be {', '.join(get_args(Readout))}, got {readout!r}")
        if min(stride) < 1:
            raise VitruviusError(f"stride must be at least 1, got {stride}")
        if groups < 1 or weight.shape[0] % groups:
            raise VitruviusError(
                f"groups must divide the {weight.shape[0]} output channels, got {groups}"
            )
        if floor < 0:
            raise VitruviusError(f"floor must not be negative, got {floor}")
        self.weight = nn.Parameter(weight.detach().clone())
        self.readout: Readout = readout
        self.stride = stride
        self.groups = groups
        self.signed_input = signed_input
        self.floor = floor

    @property
    def passes(self) -> int:
        """Exposures per channel pair, from the signs of the input and of the weights as they are
        now.
        """
        return passes(signed_input=self.signed_input, signed_kernel=bool((self.weight < 0).any()))

    def plane(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the smallest even plane on which such an image does not wrap."""
        rows, cols = (
            max(pitch(size, kernel, self.readout), kernel)
            for size, kernel in zip((height, width), self.weight.shape[-2:], strict=True)
        )
        return rows + rows % 2, cols + cols % 2

    def forward(self, images: Tensor) -> Tensor:
        self._check(images)
        batch, channels, height, width = images.shape
        size = self.plane(height, width)
        per_group = self.weight.shape[0] // self.groups
        # [batch, group, in / groups, ...] against [group, out / groups, in / groups, ...]
        grouped = images.reshape(batch, self.groups, channels // self.groups, height, width)
        kernels = self.weight.reshape(self.groups, per_group, *self.weight.shape[1:])
        signed_kernel = bool((self.weight < 0).any())
        total = images.new_zeros((batch, self.groups, per_group, *size))
        for input_sign, part in _split(grouped, signed=self.signed_input):
            field = input_plane(part, size)
            for kernel_sign, kernel in _split(kernels, signed=signed_kernel):
                mask, gain = fourier_mask(kernel_plane(kernel, size))
                # One output channel at a time bounds the memory to the input's own planes.
                seen = [
                    (camera_amplitude(field, mask[:, o], self.floor) * gain[:, o]).sum(dim=2)
                    for o in range(per_group)
                ]
                total = total + input_sign * kernel_sign * torch.stack(seen, dim=2)
        read = self._read(total, height, width)
        return read.reshape(batch, self.weight.shape[0], *read.shape[-2:])

    def _read(self, plane: Tensor, height: int, width: int) -> Tensor:
        """The samples of the readout, every stride-th, from a camera plane that wraps round."""
        sides = zip((height, width), self.weight.shape[-2:], self.stride, (-2, -1), strict=True)
        for size, kernel, stride, axis in sides:
            samples = plane.shape[axis]
            first = samples // 2 - size // 2
            before = (kernel - 1) // 2
            start, count = {
                "valid": (first + before, size - kernel + 1),
                "same": (first, size),
                "full": (first + before - (kernel - 1), size + kernel - 1),
            }[self.readout]
            index = torch.arange(start, start + count, stride, device=plane.device) % samples
            plane = plane.index_select(axis, index)
        return plane

    def _check(self, images: Tensor) -> None:
        channels = self.weight.shape[1] * self.groups
        kernel = self.weight.shape[-2:]
        if images.dim() != 4 or images.shape[1] != channels or 0 in images.shape:
            raise VitruviusError(
                f"expected images [batch, {channels}, height, width], got {list(images.shape)}"
            )
        if images.dtype != self.weight.dtype:
            expected, got = (str(t.dtype).removeprefix("torch.") for t in (self.weight, images))
            raise VitruviusError(f"expected images of {expected}, the weight's type, got {got}")
        if self.readout == "valid" and (
            images.shape[-2] < kernel[0] or images.shape[-1] < kernel[1]
        ):
            raise VitruviusError(
                f"a valid readout expects images of at least {kernel[0]} x {kernel[1]}, "
                f"the kernel, got {images.shape[-2]} x {images.shape[-1]}"
            )
        if not self.signed_input and bool((images < 0).any()):
            raise VitruviusError(
                "expected a non-negative input (signed_input is false), "
                f"got {float(images.min()):g}: the camera would lose its sign"
            )


def _split(values: Tensor, *, signed: bool) -> Iterator[tuple[int, Tensor]]:
    """The non-negative parts of ``values`` with the sign each is added with."""
    if not signed:
        yield 1, values
        return
    yield 1, values.clamp(min=0)
    yield -1, (-values).clamp(min=0)
