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

import torch
from torch import Tensor
from torch.nn import functional

from .bench import Bench, Wave, dft_wave
from .convolution import Readout
from .devices import quantized, shifted, shown_mask
from .planes import fourier_mask, input_plane, kernel_plane
from .schemes import Exposure, Scheme, exposures, kernel_offset, recombined
from .tiles import check_plane, tiles_of

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
    wave: how light gets to the camera: a propagation, or the two transforms of ``dft_wave``.
    """

    bench: Bench
    scheme: Scheme = "split"
    signed_input: bool = True
    signed_kernel: bool = True
    wave: Wave = dft_wave

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
        [n, out, h', w']; channels are summed by electronics. As many images as fit share a plane.

        Raises ``VitruviusError`` when one does not fit.
        """
        if light is None:
            light = self.light_of_convolution(
                images, weight, readout=readout, stride=stride, groups=groups
            )
        shown_images = self._shown(images, light.input_scale)
        parts = []
        for part, kernels, shown, fields in self._camera(
            shown_images, weight, readout, stride, groups
        ):
            largest = light.largest[:, :, part, None, None]
            values = self._detected(shown, fields, largest, generator)
            if self.scheme == "offset":
                box = _box(shown_images, weight, readout, stride, groups)
                values = values - kernel_offset(kernels) * box
            parts.append(values.sum(dim=2))
        read = torch.cat(parts, dim=2).flatten(1, 2)
        return read * self._factor(light.input_scale)

    def light_of_convolution(
        self,
        images: Tensor,
        weight: Tensor,
        *,
        readout: Readout,
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> Light:
        """The light for these images, of every (input, output) channel pair
        [groups, in / groups, out / groups].
        """
        scale = _scale(images)
        found = [
            _largest(fields, (0, -2, -1))[0, ..., 0, 0]
            for _, _, _, fields in self._camera(
                self._shown(images, scale), weight, readout, stride, groups
            )
        ]
        return Light(scale, torch.cat(found, dim=-1))

    def responses(self, kernels: Tensor) -> Tensor:
        """The point response [..., N, M] of the masks of ``kernels`` as the devices show them,
        complex, about sample ``N // 2``.
        """
        rows, cols = self.bench.size
        point = kernels.new_zeros((rows, cols))
        point[rows // 2, cols // 2] = 1
        mask, gain = fourier_mask(kernel_plane(kernels, self.bench.size))
        return self._field(point, mask) * gain

    def _field(self, plane: Tensor, mask: Tensor) -> Tensor:
        bench = self.bench
        mask = shown_mask(
            mask,
            bench.mask,
            amplitude_levels=bench.mask_amplitude_levels,
            phase_levels=bench.mask_phase_levels,
        )
        if any(bench.mask_shift):
            mask = shifted(mask, bench.mask_shift)
        field = self.wave(plane, mask)
        return shifted(field, bench.camera_shift) if any(bench.camera_shift) else field

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
        check_plane(self.bench.size, size, size, "valid")
        shown = self._exposures(shown_images, kernels)
        taps = {id(e.kernel): e.kernel for e in shown}
        seen = {key: _taps(self.responses(kernel), size) for key, kernel in taps.items()}
        return shown, [_products(e.image.flatten(-2), seen[id(e.kernel)]) for e in shown]

    def _camera(
        self,
        shown_images: Tensor,
        weight: Tensor,
        readout: Readout,
        stride: tuple[int, int],
        groups: int,
    ) -> Iterator[tuple[slice, Tensor, list[Exposure], list[Tensor]]]:
        """Some kernels at a time: which, themselves [groups, in / groups, some, kh, kw], their
        exposures, and what the camera reads, [n, groups, in / groups, some, h', w'].
        """
        count, channels, *_ = shown_images.shape
        size = (shown_images.shape[-2], shown_images.shape[-1])
        kernel = (weight.shape[-2], weight.shape[-1])
        grouped = shown_images.reshape(count, groups, channels // groups, *size)
        kernels = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2)
        tiles = tiles_of(self.bench.size, size, kernel, readout)
        planes = -(-count // tiles.count)
        step = max(1, _SAMPLES // (planes * channels * prod(self.bench.size)))
        for first in range(0, kernels.shape[2], step):
            part = slice(first, first + step)
            shown = self._exposures(grouped, kernels[:, :, part])
            fields = []
            for exposure in shown:
                plane = input_plane(tiles.laid(exposure.image), self.bench.size)
                mask, gain = fourier_mask(kernel_plane(exposure.kernel, self.bench.size))
                field = self._field(plane[:, :, :, None], mask) * gain
                fields.append(tiles.read(field, count, stride))
            yield part, kernels[:, :, part], shown, fields

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
    """Fields of real ``images`` [..., n, k] through complex ``taps`` [..., m, k]; real ones where
    no tap has a phase worth its rounding.
    """
    real = images @ taps.real.mT
    bound = 8 * torch.finfo(images.dtype).eps * float(taps.detach().abs().amax())
    if float(taps.detach().imag.abs().amax()) <= bound:
        return real
    return torch.complex(real, images @ taps.imag.mT)


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


def _box(
    images: Tensor, weight: Tensor, readout: Readout, stride: tuple[int, int], groups: int
) -> Tensor:
    """Sums under the kernel's window [n, groups, in / groups, 1, h', w']."""
    channels, taps = images.shape[1], weight.shape[-2:]
    padded = images
    if readout != "valid":
        both = [((k - 1) // 2, k // 2) if readout == "same" else (k - 1, k - 1) for k in taps]
        padded = functional.pad(images, (*both[1], *both[0]))
    ones = images.new_ones((channels, 1, *taps))
    sums = functional.conv2d(padded, ones, stride=stride, groups=channels)
    return sums.reshape(len(sums), groups, channels // groups, 1, *sums.shape[-2:])
