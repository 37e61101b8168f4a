"""A convolution layer computed by a 4f system: equal to ``torch.nn.functional.conv2d`` up to
rounding.

A camera measures intensity, so a signed sum cannot be read in one exposure. Kernel and input are
each split into a positive and a negative part ("pseudo-negativity"; J. Chang et al., 2018, doi
10.1038/s41598-018-30619-y), every pair is one optical pass of non-negative fields, and electronics
add the square roots with their signs. Electronics also sum the channels, unless they share a plane
(channel tiling): then the light adds the fields of one pass before the camera.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor, nn

from ..errors import VitruviusError
from .planes import camera_field, detected, spectrum
from .schemes import passes
from .tiling import Layout, Readout, Tiling, arrange, blocks, check_known, pitch

__all__ = ["Conv4f", "Readout", "Tiling", "correlations", "paired", "pitch"]


class Conv4f(nn.Module):
    """``conv2d`` through two lenses, a Fourier mask and a camera, without noise.

    Parameters
    ----------
    weight: [out, in / groups, kh, kw], real floating point; becomes the parameter.
    readout: "valid", "same" or "full" (``conv2d`` with padding 0, "same", k - 1).
    stride: rows and columns kept of what the camera reads; nothing is saved optically.
    groups: as in ``conv2d``; groups = channels is depthwise.
    signed_input: whether inputs may be negative; the negative part costs exposures of its own.
    floor: see ``planes.camera_amplitude``; training wants it well above rounding, such as 1e-6.
    tiling: what shares a plane, see ``tiling.Tiling``.
    plane: rows and columns of the planes, even; without it the smallest that hold all tiles.

    Input [batch, in, h, w] to output [batch, out, h', w'], in the weight's type.

    Raises ``VitruviusError`` for a weight, readout, stride, groups or tiling out of range; when
    called, for an input of another shape, one smaller than the kernel where the readout is valid,
    a plane smaller than one tile, or a negative input although ``signed_input`` is false.
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
        tiling: Tiling = "none",
        plane: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if weight.dim() != 4 or 0 in weight.shape or not weight.is_floating_point():
            raise VitruviusError(
                "expected a floating-point weight [out, in / groups, kh, kw], got "
                f"{str(weight.dtype).removeprefix('torch.')} {list(weight.shape)}"
            )
        check_known(tiling, readout)
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
        self.tiling: Tiling = tiling
        self.plane = plane

    @property
    def passes(self) -> int:
        """Exposures per channel pair, from the signs of the input and of the weights as they are
        now.
        """
        signed_kernel = bool((self.weight < 0).any())
        return passes("split", signed_input=self.signed_input, signed_kernel=signed_kernel)

    def layout(self, batch: int, height: int, width: int) -> Layout:
        """Where the tiles of such images lie."""
        out, channels, kh, kw = self.weight.shape
        return arrange(
            self.tiling,
            (height, width),
            (kh, kw),
            self.readout,
            self.plane,
            images=batch,
            channels=channels,
            kernels=out // self.groups,
        )

    def frames(self, batch: int, height: int, width: int) -> int:
        """Exposures that ``forward`` takes for such images, all passes together."""
        out, channels = self.weight.shape[:2]
        layout = self.layout(batch, height, width)
        return self.passes * layout.frames(batch, channels, out // self.groups, self.groups)

    def forward(self, images: Tensor) -> Tensor:
        self._check(images)
        batch, channels, height, width = images.shape
        grouped = images.reshape(batch, self.groups, channels // self.groups, height, width)
        kernels = torch.unflatten(self.weight, 0, (self.groups, -1))
        out = _convolved(
            grouped,
            kernels,
            self.layout(batch, height, width),
            stride=self.stride,
            signed_input=self.signed_input,
            floor=self.floor,
        )
        return out.flatten(1, 2)

    def _check(self, images: Tensor) -> None:
        channels = self.weight.shape[1] * self.groups
        if images.dim() != 4 or images.shape[1] != channels or 0 in images.shape:
            raise VitruviusError(
                f"expected images [batch, {channels}, height, width], got {list(images.shape)}"
            )
        if images.dtype != self.weight.dtype:
            expected, got = (str(t.dtype).removeprefix("torch.") for t in (self.weight, images))
            raise VitruviusError(f"expected images of {expected}, the weight's type, got {got}")
        if not self.signed_input and bool((images < 0).any()):
            raise VitruviusError(
                "expected a non-negative input (signed_input is false), "
                f"got {float(images.min()):g}: the camera would lose its sign"
            )


def correlations(
    queries: Tensor,
    keys: Tensor,
    *,
    plane: tuple[int, int] | None = None,
    floor: float = 1e-30,
) -> Tensor:
    """All pairwise sums of products of ``queries`` [..., n, h, w] and ``keys`` [..., m, h, w],
    [..., n, m]: valid correlations by mixed tiling, each leading index in frames of its own.

    Equals ``queries.flatten(-2) @ keys.flatten(-2).mT``: attention scores before their scale. Both
    may be signed, which takes 4 passes; ``arrange("mixed", ...)`` says the frames of one.

    Raises ``VitruviusError`` for shapes that do not fit each other, or the plane.
    """
    images, kernels = paired(queries, keys)
    size = (images.shape[-2], images.shape[-1])
    n, m = images.shape[0], kernels.shape[1]
    layout = arrange("mixed", size, size, "valid", plane, images=n, kernels=m)
    scores = _convolved(images, kernels, layout, floor=floor)[..., 0, 0]
    return scores.movedim(0, 1).reshape(*queries.shape[:-3], n, m)


def paired(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """``queries`` [..., n, h, w] as images [n, groups, 1, h, w] and ``keys`` [..., m, h, w] as
    kernels [groups, m, 1, h, w]: every leading index is a group.

    Raises ``VitruviusError`` for shapes that do not fit each other.
    """
    lead, size = queries.shape[:-3], queries.shape[-2:]
    alike = queries.dim() >= 3 and keys.shape[:-3] == lead and keys.shape[-2:] == size
    if not alike or keys.dim() != queries.dim() or keys.dtype != queries.dtype:
        raise VitruviusError(
            "expected queries [..., n, h, w] and keys [..., m, h, w] of one size and type, got "
            f"{list(queries.shape)} and {list(keys.shape)}"
        )
    images = queries.reshape(-1, queries.shape[-3], 1, *size).movedim(0, 1)
    return images, keys.reshape(-1, keys.shape[-3], 1, *size)


def _convolved(
    images: Tensor,
    kernels: Tensor,
    layout: Layout,
    *,
    stride: tuple[int, int] = (1, 1),
    signed_input: bool = True,
    floor: float = 1e-30,
) -> Tensor:
    """``images`` [N, groups, C, h, w] with ``kernels`` [groups, O, C, kh, kw] by the frames of
    ``layout``, [N, groups, O, h', w'].
    """
    inputs = list(_split(layout.image_tiles(images), signed=signed_input))
    filters = list(_split(layout.kernel_tiles(kernels), signed=bool((kernels < 0).any())))
    loads, groups, sums = inputs[0][1].shape[:3]
    outs = filters[0][1].shape[1]
    rows, cols = (-(-side // step) for side, step in zip(layout.output, stride, strict=True))
    tiles = (prod(layout.kernels), prod(layout.images))
    total = images.new_zeros((loads, groups, outs, *tiles, rows, cols))
    for n, g, c in blocks((loads, groups, sums), prod(layout.plane)):
        fields = [
            (sign, spectrum(layout.input_planes(part[n, g, c]))[:, :, None])
            for sign, part in inputs
        ]
        held = prod(fields[0][1].shape[:4]) * prod(layout.plane)
        for (o,) in blocks((outs,), held):
            for kernel_sign, part in filters:
                shown = part[g, o, c]
                # A sum of non-negative taps has its largest magnitude at frequency 0.
                gain = shown.sum(dim=(-4, -3, -2, -1))[..., *[None] * 4]
                gain = torch.where(gain > 0, gain, torch.ones_like(gain))
                mask = spectrum(layout.kernel_planes(shown))
                for input_sign, field in fields:
                    camera = layout.read(camera_field(field, mask, layout.plane), stride)
                    amplitude = detected(camera, gain, floor).sum(dim=3)
                    total[n, g, o] += input_sign * kernel_sign * amplitude
    return layout.gathered(total, images.shape[0], kernels.shape[1])


def _split(values: Tensor, *, signed: bool) -> Iterator[tuple[int, Tensor]]:
    """The non-negative parts of ``values`` with the sign each is added with."""
    if not signed:
        yield 1, values
        return
    yield 1, values.clamp(min=0)
    yield -1, (-values).clamp(min=0)
