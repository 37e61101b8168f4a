"""A 4f system of real devices: convolutions with levels, noise and misalignment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import VitruviusError
from .camera import Camera
from .convolution import paired
from .devices import MaskKind, quantized, shifted, shown_mask
from .planes import fourier_mask
from .schemes import Scheme, box_sum, exposures, kernel_offset, recombined
from .tiling import Layout, Readout, Tiling, arrange, blocks

__all__ = ["Bench", "Wave", "dft_wave"]

Wave: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The field at the camera from the input panel's field and the mask, upright: ``dft_wave``, or a
critically sampled ``System4f.camera_field``."""


def dft_wave(plane: Tensor, mask: Tensor) -> Tensor:
    """Two lenses as two DFTs. Turning the second one's result upright makes it an inverse DFT."""
    axes = (-2, -1)
    field = torch.fft.fft2(torch.fft.ifftshift(plane, dim=axes))
    seen: Tensor = torch.fft.ifft2(field * torch.fft.ifftshift(mask, dim=axes))
    centred: Tensor = torch.fft.fftshift(seen, dim=axes)
    return centred


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

    def filtered(self, mask: Tensor) -> Tensor:
        """What the filter panel makes of the complex ``mask`` [..., N, M], where it lies."""
        mask = shown_mask(
            mask,
            self.mask,
            amplitude_levels=self.mask_amplitude_levels,
            phase_levels=self.mask_phase_levels,
        )
        return shifted(mask, self.mask_shift) if any(self.mask_shift) else mask

    def seen(self, plane: Tensor, filtered: Tensor, wave: Wave = dft_wave) -> Tensor:
        """The field [..., N, M] where the camera lies, upright, of the input ``plane`` behind a
        mask as ``filtered`` gives it.
        """
        field = wave(plane, filtered)
        return shifted(field, self.camera_shift) if any(self.camera_shift) else field

    def convolve(
        self,
        images: Tensor,
        weight: Tensor,
        *,
        readout: Readout = "same",
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
        tiling: Tiling = "none",
        scheme: Scheme = "split",
        signed_input: bool = True,
        generator: torch.Generator | None = None,
        wave: Wave = dft_wave,
        floor: float = 1e-30,
    ) -> Tensor:
        """``conv2d`` of ``images`` [batch, in, h, w] with ``weight`` [out, in / groups, kh, kw] as
        this bench computes it, [batch, out, h', w']. Channels that do not share a plane are summed
        by electronics; tiles lie about the optical axis.

        Every mask uses the panel's whole range; the light of an exposure is set so that all
        exposures of one filled plane have one scale and one camera setting, at which the brightest
        pixel of this call fills the well. ``generator`` draws the noise.

        Raises ``VitruviusError`` for shapes that do not fit each other or the plane.
        """
        self._check(images, weight, groups)
        size, kernel = ((t.shape[-2], t.shape[-1]) for t in (images, weight))
        grouped = torch.unflatten(images, 1, (groups, -1))
        kernels = torch.unflatten(weight, 0, (groups, -1))
        layout = arrange(
            tiling,
            size,
            kernel,
            readout,
            self.size,
            images=images.shape[0],
            channels=weight.shape[1],
            kernels=kernels.shape[1],
        )
        run = _Run(scheme, signed_input, bool((weight < 0).any()), generator, wave, floor)
        return self._convolved(grouped, kernels, layout, run, stride).flatten(1, 2)

    def correlations(
        self,
        queries: Tensor,
        keys: Tensor,
        *,
        scheme: Scheme = "split",
        generator: torch.Generator | None = None,
        wave: Wave = dft_wave,
        floor: float = 1e-30,
    ) -> Tensor:
        """``convolution.correlations`` of ``queries`` [..., n, h, w] with ``keys`` [..., m, h, w]
        as this bench computes it, [..., n, m]: all pairs in frames of mixed tiling.

        Raises ``VitruviusError`` for shapes that do not fit each other or the plane.
        """
        images, kernels = paired(queries, keys)
        size = (images.shape[-2], images.shape[-1])
        n, m = images.shape[0], kernels.shape[1]
        layout = arrange("mixed", size, size, "valid", self.size, images=n, kernels=m)
        signed = [bool((planes < 0).any()) for planes in (images, kernels)]
        run = _Run(scheme, signed[0], signed[1], generator, wave, floor)
        scores = self._convolved(images, kernels, layout, run)[..., 0, 0]
        return scores.movedim(0, 1).reshape(*queries.shape[:-3], n, m)

    def _convolved(
        self,
        images: Tensor,
        kernels: Tensor,
        layout: Layout,
        run: _Run,
        stride: tuple[int, int] = (1, 1),
    ) -> Tensor:
        """``images`` [N, groups, C, h, w] with ``kernels`` [groups, O, C, kh, kw],
        [N, groups, O, h', w'].
        """
        scale = images.detach().abs().amax().clamp(min=torch.finfo(images.dtype).tiny)
        shown_images = images / scale
        if self.input_levels is not None:
            shown_images = quantized(shown_images, self.input_levels)
        image_tiles, kernel_tiles = layout.image_tiles(shown_images), layout.kernel_tiles(kernels)
        loads, groups, sums = image_tiles.shape[:3]
        outs = kernel_tiles.shape[1]
        parts: dict[tuple[int, int], list[Tensor]] = {}
        # One camera setting holds for all images, so those are never computed apart; up to four
        # exposures have a complex field each.
        for o, g, c in blocks((outs, groups, sums), 8 * loads * prod(self.size)):
            seen = self._seen(image_tiles[:, g, c], kernel_tiles[g, o, c], layout, run)
            parts.setdefault((g.start, o.start), []).append(layout.read(seen, stride).sum(dim=3))
        starts = sorted({start for start, _ in parts}), sorted({start for _, start in parts})
        read = torch.cat(
            [
                torch.cat([torch.stack(parts[g, o]).sum(0) for o in starts[1]], dim=2)
                for g in starts[0]
            ],
            dim=1,
        )
        total = layout.gathered(read, images.shape[0], kernels.shape[1])
        if run.scheme == "offset":
            # the sum under the window of every image and channel, [N, groups, C, h', w']
            box = torch.unflatten(box_sum(shown_images.flatten(1, 2), kernels), 1, (groups, -1))
            box = box[..., *layout.window(stride)]
            total = total - torch.einsum("goc,ngchw->ngohw", kernel_offset(kernels)[..., 0, 0], box)
        return total * (scale**2 if run.scheme == "intensity" else scale)

    def _seen(self, images: Tensor, kernels: Tensor, layout: Layout, run: _Run) -> Tensor:
        """What electronics make of the exposures of tiles ``images`` [N', groups, C', ...] and
        ``kernels`` [groups, O', C', ...], [N', groups, O', C', *size], its first slot first.
        """
        shown = exposures(
            images,
            kernels,
            run.scheme,
            signed_input=run.signed_input,
            signed_kernel=run.signed_kernel,
        )
        input_shift, kernel_shift = layout.centring
        axes = (-2, -1)
        masks = [
            fourier_mask(layout.kernel_planes(e.kernel).roll(kernel_shift, axes)) for e in shown
        ]
        gain = torch.stack([own for _, own in masks]).amax(0)
        waves = [
            self.seen(
                layout.input_planes(e.image).roll(input_shift, axes)[:, :, None],
                self.filtered(mask),
                run.wave,
            )
            * (own / gain)
            for e, (mask, own) in zip(shown, masks, strict=True)
        ]
        largest = torch.stack([w.detach().abs().amax(dim=(0, -2, -1)) for w in waves]).amax(0)
        largest = largest[..., None, None].clamp(min=torch.finfo(gain.dtype).tiny)
        reference = self.reference * largest
        measured = self._measured(
            [
                w + e.reference * reference if e.reference else w
                for w, e in zip(waves, shown, strict=True)
            ],
            run.generator,
        )
        total = recombined(
            shown,
            [intensity * gain.square() for intensity in measured],
            run.scheme,
            reference=reference * gain,
            floor=run.floor,
        )
        back = [
            side // 2 - first - second
            for side, first, second in zip(self.size, input_shift, kernel_shift, strict=True)
        ]
        return total.roll(back, axes)

    def _measured(self, waves: list[Tensor], generator: torch.Generator | None) -> list[Tensor]:
        intensities = [wave.real.square() + wave.imag.square() for wave in waves]
        brightest = torch.stack([i.detach().amax(dim=(0, -2, -1)) for i in intensities]).amax(0)
        brightest = brightest.clamp(min=torch.finfo(brightest.dtype).tiny)[..., None, None]
        return [self.camera.measure(i, brightest, generator) for i in intensities]

    def _check(self, images: Tensor, weight: Tensor, groups: int) -> None:
        shapes_fit = images.dim() == weight.dim() == 4 and groups >= 1
        if shapes_fit:
            shapes_fit = (
                images.shape[1] == weight.shape[1] * groups and not weight.shape[0] % groups
            )
        if not shapes_fit or 0 in (*images.shape, *weight.shape):
            raise VitruviusError(
                "expected images [batch, in, h, w] and a weight [out, in / groups, kh, kw], got "
                f"{list(images.shape)} and {list(weight.shape)} with groups {groups}"
            )


@dataclass(frozen=True)
class _Run:
    """How one call is run."""

    scheme: Scheme
    signed_input: bool
    signed_kernel: bool
    generator: torch.Generator | None
    wave: Wave
    floor: float
