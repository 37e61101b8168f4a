"""A 4f system of real devices: convolutions with levels, noise and misalignment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import VitruviusError
from .camera import Camera
from .convolution import Readout, pitch
from .devices import MaskKind, quantized, shifted, shown_mask
from .planes import centred_dft, fourier_mask, input_plane, kernel_plane, upright
from .schemes import Scheme, box_sum, exposures, kernel_offset, recombined

__all__ = ["Bench", "Wave", "dft_wave"]

Wave: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The field at the camera from the input panel's field and the mask, upright: ``dft_wave``, or a
critically sampled ``System4f.camera_field``."""


def dft_wave(plane: Tensor, mask: Tensor) -> Tensor:
    """Two lenses as two DFTs."""
    samples = plane.shape[-2] * plane.shape[-1]
    return upright(centred_dft(centred_dft(plane) * mask) / samples)


@dataclass(frozen=True)
class Bench:
    """The devices of one 4f system. As it stands it is ideal; every option adds one defect.

    size: rows and columns of the planes.
    input_levels: amplitudes the input panel shows, signs apart.
    mask, mask_amplitude_levels, mask_phase_levels: see ``shown_mask``.
    mask_shift: rows and columns by which the mask lies off, in samples of the Fourier plane,
        wavelength f / (N D).
    camera_shift: rows and columns by which the camera lies off, in its pixels.
    camera: see ``Camera``.
    reference: amplitude of the reference of the scheme "reference", in the largest |u| of a
        kernel.

    Raises ``VitruviusError`` for a plane that is not even.
    """

    size: tuple[int, int]
    input_levels: int | None = None
    mask: MaskKind = "complex"
    mask_amplitude_levels: int | None = None
    mask_phase_levels: int | None = None
    mask_shift: tuple[float, float] = (0.0, 0.0)
    camera_shift: tuple[float, float] = (0.0, 0.0)
    camera: Camera = field(default_factory=Camera)
    reference: float = 1.0

    def __post_init__(self) -> None:
        if min(self.size) < 2 or any(side % 2 for side in self.size):
            raise VitruviusError(
                f"a bench expects planes with an even number of samples a side, got "
                f"{self.size[0]} x {self.size[1]}"
            )
        if not self.reference > 0:
            raise VitruviusError(f"reference must be above 0, got {self.reference}")

    def convolve(
        self,
        images: Tensor,
        weight: Tensor,
        *,
        readout: Readout = "same",
        scheme: Scheme = "split",
        signed_input: bool = True,
        generator: torch.Generator | None = None,
        wave: Wave = dft_wave,
        floor: float = 1e-30,
    ) -> Tensor:
        """``conv2d`` of ``images`` [batch, in, h, w] with ``weight`` [out, in, kh, kw] as this
        bench computes it, [batch, out, h', w']; channels are summed by electronics.

        Every mask uses the panel's whole range; the light of an exposure is set so that all
        exposures of one (input, output) channel pair have one scale and one camera setting, at
        which the brightest pixel of this call fills the well. ``generator`` draws the noise.

        Raises ``VitruviusError`` for shapes that do not fit each other or the plane.
        """
        kernel_size = (weight.shape[-2], weight.shape[-1])
        self._check(images, weight, readout)
        signed_kernel = bool((weight < 0).any())
        scale = images.detach().abs().amax().clamp(min=torch.finfo(images.dtype).tiny)
        shown_images = images / scale
        if self.input_levels is not None:
            shown_images = quantized(shown_images, self.input_levels)
        outputs = []
        for kernels in weight:
            shown = exposures(
                shown_images,
                kernels,
                scheme,
                signed_input=signed_input,
                signed_kernel=signed_kernel,
            )
            planes = [fourier_mask(kernel_plane(e.kernel, self.size)) for e in shown]
            gain = torch.stack([own for _, own in planes]).amax(0)
            waves = [
                self._wave(input_plane(e.image, self.size), mask, wave) * (own / gain)
                for e, (mask, own) in zip(shown, planes, strict=True)
            ]
            largest = torch.stack([w.detach().abs().amax(dim=(0, -2, -1)) for w in waves]).amax(0)
            largest = largest[:, None, None].clamp(min=torch.finfo(images.dtype).tiny)
            reference = self.reference * largest
            measured = self._measured(
                [
                    w + e.reference * reference if e.reference else w
                    for w, e in zip(waves, shown, strict=True)
                ],
                generator,
            )
            total = recombined(
                shown,
                [intensity * gain.square() for intensity in measured],
                scheme,
                reference=reference * gain,
                floor=floor,
            )
            read = _read(total, images.shape[-2:], kernel_size, readout)
            if scheme == "offset":
                box = box_sum(shown_images, kernels)
                read = read - kernel_offset(kernels) * _cut(box, kernel_size, readout)
            outputs.append(read.sum(dim=1))
        factor = scale**2 if scheme == "intensity" else scale
        return torch.stack(outputs, dim=1) * factor

    def _wave(self, plane: Tensor, mask: Tensor, wave: Wave) -> Tensor:
        mask = shown_mask(
            mask,
            self.mask,
            amplitude_levels=self.mask_amplitude_levels,
            phase_levels=self.mask_phase_levels,
        )
        if any(self.mask_shift):
            mask = shifted(mask, self.mask_shift)
        at_camera = wave(plane, mask)
        return shifted(at_camera, self.camera_shift) if any(self.camera_shift) else at_camera

    def _measured(self, waves: list[Tensor], generator: torch.Generator | None) -> list[Tensor]:
        intensities = [wave.real.square() + wave.imag.square() for wave in waves]
        brightest = torch.stack([i.detach().amax(dim=(0, -2, -1)) for i in intensities]).amax(0)
        brightest = brightest.clamp(min=torch.finfo(brightest.dtype).tiny)[:, None, None]
        return [self.camera.measure(i, brightest, generator) for i in intensities]

    def _check(self, images: Tensor, weight: Tensor, readout: Readout) -> None:
        shapes_fit = images.dim() == weight.dim() == 4 and images.shape[1] == weight.shape[1]
        if not shapes_fit or 0 in (*images.shape, *weight.shape):
            raise VitruviusError(
                "expected images [batch, in, h, w] and a weight [out, in, kh, kw], got "
                f"{list(images.shape)} and {list(weight.shape)}"
            )
        for side, taps, axis in zip(images.shape[-2:], weight.shape[-2:], (0, 1), strict=True):
            if readout == "valid" and taps > side:
                raise VitruviusError(
                    f"a valid readout expects images of at least {taps} samples a side, the "
                    f"kernel, got {side}"
                )
            needed = max(pitch(side, taps, readout), taps)
            if needed > self.size[axis]:
                raise VitruviusError(
                    f"a plane of {self.size[0]} x {self.size[1]} samples is too small: an image "
                    f"of {side} and a kernel of {taps} samples need {needed} for a {readout} "
                    "readout, or the image wraps round into itself"
                )


def _cut(full: Tensor, kernel: tuple[int, int], readout: Readout) -> Tensor:
    """The readout's part of a full convolution [..., h + kh - 1, w + kw - 1]."""
    for axis, taps in zip((-2, -1), kernel, strict=True):
        size = full.shape[axis] - taps + 1
        start, count = {
            "valid": (taps - 1, size - taps + 1),
            "same": (taps - 1 - (taps - 1) // 2, size),
            "full": (0, full.shape[axis]),
        }[readout]
        full = full.narrow(axis, start, count)
    return full


def _read(plane: Tensor, image: torch.Size, kernel: tuple[int, int], readout: Readout) -> Tensor:
    """The readout's part of a camera plane that wraps round."""
    for axis, size, taps in zip((-2, -1), image, kernel, strict=True):
        samples = plane.shape[axis]
        start = samples // 2 - size // 2 + (taps - 1) // 2 - (taps - 1)
        index = torch.arange(start, start + size + taps - 1, device=plane.device) % samples
        plane = plane.index_select(axis, index)
    return _cut(plane, kernel, readout)
