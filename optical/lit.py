"""A bench with one operator on it, its light set beforehand: what a camera needs that cannot see
the images of tomorrow.

``Bench.convolve`` sets light for the brightest pixel of each call. Here calibration images set it
once, for each kernel, and the value that the input panel shows at full amplitude. Only pixels that
are read count; a pixel brighter than the well stays at the well. Where every plane is read in one
pixel, its field is a dot product with the mask's own point response, which saves the transforms of
the inputs: the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from .bench import Bench, Wave, dft_wave
from .devices import quantized
from .planes import fourier_mask, kernel_plane
from .schemes import Exposure, Scheme, box_sum, exposures, kernel_offset, recombined
from .tiling import Layout, Readout, arrange

__all__ = ["Light", "LitBench"]

_SAMPLES = 1 << 21
"""Complex samples of planes that are in memory at a time."""


@dataclass(frozen=True)
class Light:
    """input_scale: the value that the input panel shows at full amplitude. largest: the field
    amplitude at the camera that fills the well, [..., kernels], in units of the convolution of
    inputs up to 1.
    """

    input_scale: Tensor
    largest: Tensor

    def covering(self, other: Light) -> Light:
        """The light in which neither overflows."""
        return Light(
            torch.maximum(self.input_scale, other.input_scale),
            torch.maximum(self.largest, other.largest),
        )


@dataclass(frozen=True)
class LitBench:
    """The devices of ``bench`` with one operator's kernels.

    scheme, signed_input, signed_kernel: which exposures there are, see ``schemes``.
    tiling: "input", or "channel", where channels add up as light; see ``tiling.Tiling``.
    wave: how light gets to the camera: a propagation, or the two transforms of ``dft_wave``.
    untransformed: take the response of a mask that nothing changes to be its kernel, which it is
        up to rounding, for speed.
    """

    bench: Bench
    scheme: Scheme = "split"
    signed_input: bool = True
    signed_kernel: bool = True
    tiling: Literal["input", "channel"] = "input"
    wave: Wave = dft_wave
    untransformed: bool = False

    def dot_products(
        self,
        images: Tensor,
        kernels: Tensor,
        light: Light | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Dot products [..., n, m] of planes ``images`` [..., n, h, w] with ``kernels``
        [..., m, h, w], each one pixel of a plane of its own. Without ``light`` it is set for
        these images.
        """
        scale = _scale(images) if light is None else light.input_scale
        shown_images = self._shown(images, scale)
        shown, fields = self._pixels(shown_images, kernels)
        if light is None:
            light = Light(scale, _largest(fields, (-2,)).squeeze(-2))
        values = self._detected(shown, fields, light.largest.unsqueeze(-2), generator)
        if self.scheme == "offset":
            box = shown_images.flatten(-2).sum(-1)[..., None]
            values = values - kernel_offset(kernels)[..., 0, 0].unsqueeze(-2) * box
        return values * self._factor(scale)

    def light_of_dot_products(self, images: Tensor, kernels: Tensor, shared: int) -> Light:
        """The light for these planes: one setting for every kernel, or, where they come from the
        image, one for all kernels and the first ``shared`` axes (of the batch).
        """
        scale = _scale(images)
        _, fields = self._pixels(self._shown(images, scale), kernels)
        axes = (*range(shared), -2, -1) if shared else (-2,)
        return Light(scale, _largest(fields, axes).squeeze(-2))

    def convolve(
        self,
        images: Tensor,
        weight: Tensor,
        *,
        readout: Readout,
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
        light: Light | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``conv2d`` of ``images`` [n, in, h, w] with ``weight`` [out, in / groups, kh, kw],
        [n, out, h', w']; as many images as fit share a plane, and electronics sum the channels
        that do not.

        Raises ``VitruviusError`` when one image does not fit.
        """
        if light is None:
            light = self.light_of_convolution(
                images, weight, readout=readout, stride=stride, groups=groups
            )
        shown_images = self._shown(images, light.input_scale)
        kernels = torch.unflatten(weight, 0, (groups, -1))
        layout = self._layout(shown_images, kernels, readout)
        parts = []
        for part, shown, fields in self._camera(shown_images, kernels, layout, stride):
            largest = light.largest.mT[:, part, :, None, None, None, None]
            parts.append(self._detected(shown, fields, largest, generator).sum(dim=3))
        read = layout.gathered(torch.cat(parts, dim=2), len(images), kernels.shape[1])
        if self.scheme == "offset":
            box = torch.unflatten(box_sum(shown_images, weight), 1, (groups, -1))
            box = box[..., *layout.window(stride)]
            offset = kernel_offset(kernels)[..., 0, 0]
            read = read - torch.einsum("goc,ngchw->ngohw", offset, box)
        return read.flatten(1, 2) * self._factor(light.input_scale)

    def light_of_convolution(
        self,
        images: Tensor,
        weight: Tensor,
        *,
        readout: Readout,
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> Light:
        """The light for these images, [groups, in / groups, out / groups]: of every pair of
        channels, or of those that share a plane.
        """
        scale = _scale(images)
        shown_images = self._shown(images, scale)
        kernels = torch.unflatten(weight, 0, (groups, -1))
        layout = self._layout(shown_images, kernels, readout)
        found = [
            _largest(fields, (0, 4, 5, 6, 7))[0, ..., 0, 0, 0, 0]
            for _, _, fields in self._camera(shown_images, kernels, layout, stride)
        ]
        return Light(scale, torch.cat(found, dim=1).mT)

    def responses(self, kernels: Tensor) -> Tensor:
        """The point response [..., N, M] of the masks of ``kernels`` as the devices show them,
        complex, about sample ``N // 2``.
        """
        rows, cols = self.bench.size
        point = kernels.new_zeros((rows, cols))
        point[rows // 2, cols // 2] = 1
        mask, gain = fourier_mask(kernel_plane(kernels, self.bench.size))
        return self._field(point, mask) * gain

    @property
    def _faithful(self) -> bool:
        """Whether masks are shown as they are, and where they belong."""
        bench = self.bench
        levels = (bench.mask_amplitude_levels, bench.mask_phase_levels)
        shifts = (*bench.mask_shift, *bench.camera_shift)
        return bench.mask == "complex" and levels == (None, None) and not any(shifts)

    def _field(self, plane: Tensor, mask: Tensor) -> Tensor:
        return self.bench.seen(plane, self.bench.filtered(mask), self.wave)

    def _shown(self, images: Tensor, scale: Tensor) -> Tensor:
        """What the input panel shows: of full amplitude at most."""
        shown = images / scale
        levels = self.bench.input_levels
        return shown if levels is None else quantized(shown.clamp(-1, 1), levels)

    def _exposures(self, images: Tensor, kernels: Tensor) -> list[Exposure]:
        return exposures(
            images,
            kernels,
            self.scheme,
            signed_input=self.signed_input,
            signed_kernel=self.signed_kernel,
        )

    def _pixels(self, shown_images: Tensor, kernels: Tensor) -> tuple[list[Exposure], list[Tensor]]:
        """Exposures and their fields [..., n, m], each at the one pixel that is read."""
        size = (kernels.shape[-2], kernels.shape[-1])
        arrange("none", size, size, "valid", self.bench.size)
        shown = self._exposures(shown_images, kernels)
        taps = {id(e.kernel): e.kernel for e in shown}
        seen = {
            key: kernel.flatten(-2)
            if self.untransformed and self._faithful
            else _taps(self.responses(kernel), size)
            for key, kernel in taps.items()
        }
        return shown, [_products(e.image.flatten(-2), seen[id(e.kernel)]) for e in shown]

    def _layout(self, images: Tensor, kernels: Tensor, readout: Readout) -> Layout:
        size, kernel = ((t.shape[-2], t.shape[-1]) for t in (images, kernels))
        return arrange(
            self.tiling,
            size,
            kernel,
            readout,
            self.bench.size,
            images=len(images),
            channels=kernels.shape[2],
        )

    def _camera(
        self, shown_images: Tensor, kernels: Tensor, layout: Layout, stride: tuple[int, int]
    ) -> Iterator[tuple[slice, list[Exposure], list[Tensor]]]:
        """Some kernels [groups, out, in, kh, kw] at a time: which, their exposures, and the fields
        that the camera reads, [planes, groups, some, channel planes, 1, images, h', w'].
        """
        grouped = torch.unflatten(shown_images, 1, (len(kernels), -1))
        if self.untransformed and self._faithful and self.tiling == "input":
            shown = self._exposures(grouped, kernels)
            yield (
                slice(None),
                shown,
                [_convolved(e.image, e.kernel, layout.readout, stride) for e in shown],
            )
            return
        image_tiles, kernel_tiles = layout.image_tiles(grouped), layout.kernel_tiles(kernels)
        input_shift, kernel_shift = layout.centring
        axes = (-2, -1)
        back = [
            side // 2 - first - second
            for side, first, second in zip(layout.plane, input_shift, kernel_shift, strict=True)
        ]
        step = max(1, _SAMPLES // (prod(image_tiles.shape[:3]) * prod(layout.plane)))
        for first in range(0, kernels.shape[1], step):
            part = slice(first, first + step)
            shown = self._exposures(image_tiles, kernel_tiles[:, part])
            fields = []
            for exposure in shown:
                plane = layout.input_planes(exposure.image).roll(input_shift, axes)
                points = layout.kernel_planes(exposure.kernel).roll(kernel_shift, axes)
                mask, gain = fourier_mask(points)
                field = self._field(plane[:, :, None], mask) * gain
                fields.append(layout.read(field.roll(back, axes), stride))
            yield part, shown, fields

    def _detected(
        self,
        shown: Sequence[Exposure],
        fields: Sequence[Tensor],
        largest: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """What electronics make of the exposures, in units of the fields."""
        referenced = any(exposure.reference for exposure in shown)
        reference = self.bench.reference if referenced else 0.0
        well = (1 + reference) * largest
        camera = self.bench.camera
        real = camera.photons is not None or camera.adc_bits is not None
        measured = []
        for exposure, field in zip(shown, fields, strict=True):
            intensity = _intensity(field + exposure.reference * reference * largest) / well**2
            if real:
                intensity = camera.measure(intensity.clamp(max=1), 1.0, generator)
            measured.append(intensity)
        total = recombined(shown, measured, self.scheme, reference=reference / (1 + reference))
        return total * (well**2 if self.scheme == "intensity" else well)

    def _factor(self, scale: Tensor) -> Tensor:
        return scale**2 if self.scheme == "intensity" else scale


def _taps(response: Tensor, size: tuple[int, int]) -> Tensor:
    """The weights [..., m, h w] with which the pixel of a valid readout sees an image of the
    kernel's size: tap j is at centre - j from the axis.
    """
    for axis, taps in zip((-2, -1), size, strict=True):
        samples = response.shape[axis]
        index = (samples // 2 + (taps - 1) // 2 - torch.arange(taps)) % samples
        response = response.index_select(axis, index.to(response.device))
    return response.flatten(-2)


def _products(images: Tensor, taps: Tensor) -> Tensor:
    """Fields of real ``images`` [..., n, k] through ``taps`` [..., m, k]; real ones where no tap
    has a phase worth its rounding.
    """
    if not taps.is_complex():
        return images @ taps.mT
    real = images @ taps.real.mT
    bound = 8 * torch.finfo(images.dtype).eps * float(taps.detach().abs().amax())
    if float(taps.detach().imag.abs().amax()) <= bound:
        return real
    return torch.complex(real, images @ taps.imag.mT)


def _convolved(
    images: Tensor, kernels: Tensor, readout: Readout, stride: tuple[int, int]
) -> Tensor:
    """``images`` [n, groups, in, h, w] with ``kernels`` [groups, out, in, kh, kw] pair by pair, as
    a camera sees them that shows one image to a plane, [n, groups, out, in, 1, 1, h', w'].
    """
    groups, outs, channels, *taps = kernels.shape
    rows, cols = (
        {"valid": (0, 0), "same": ((k - 1) // 2, k // 2), "full": (k - 1, k - 1)}[readout]
        for k in taps
    )
    read = functional.conv2d(
        functional.pad(images.flatten(1, 2), (*cols, *rows)),
        kernels.transpose(1, 2).reshape(-1, 1, *taps),
        stride=stride,
        groups=groups * channels,
    )
    pairs = read.reshape(len(images), groups, channels, outs, 1, 1, *read.shape[-2:])
    return pairs.transpose(2, 3)


def _intensity(field: Tensor) -> Tensor:
    if field.is_complex():
        return field.real.square() + field.imag.square()
    return field.square()


def _largest(fields: Sequence[Tensor], axes: tuple[int, ...]) -> Tensor:
    tiny = torch.finfo(fields[0].real.dtype).tiny ** 0.5
    found = [field.detach().abs().amax(dim=axes, keepdim=True) for field in fields]
    return torch.stack(found).amax(0).clamp(min=tiny)


def _scale(images: Tensor) -> Tensor:
    return images.detach().abs().amax().clamp(min=torch.finfo(images.dtype).tiny)
