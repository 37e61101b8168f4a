"""What panel, mask and camera hold while one layer computes: plane by plane, exposure by exposure.

The planes are those of ``tiling``: of a convolution one channel of one image with one kernel, of a
Linear all tokens side by side with one output's kernel, of scores every query with every key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import VitruviusError, nearest
from ..models.graph import Graph
from .devices import quantized
from .mapping import OpticalWork, Placed
from .options import DeviceOptions
from .planes import fourier_mask
from .schemes import Scheme, exposures, kernel_offset, passes, recombined
from .tiling import Layout, arrange

__all__ = ["Frame", "LayerFrames", "find_layer", "layer_frames"]


@dataclass(frozen=True)
class Frame:
    """One exposure; planes [N, M], the optical axis on sample N // 2.

    shown: which part of the input x and of the kernel k, such as "x+, k-".
    panel: amplitude behind the input panel, of magnitude up to 1.
    mask: complex transmission, of magnitude up to 1.
    intensity: at the camera, upright; the light of the exposures is set so that all have one scale.
    sign: with which its result is added; reference: sign of the coherent reference, or 0.
    """

    shown: str
    panel: Tensor
    mask: Tensor
    intensity: Tensor
    sign: int
    reference: int


@dataclass(frozen=True)
class LayerFrames:
    """The exposures of one frame of ``placed`` and what electronics make of them.

    kernels: the taps shown [kernels, kh, kw].
    total: the recombined camera plane [N, M], upright; read: which of its samples are kept, bool.
    result, expected: what was read and what ``conv2d`` gives, [images, kernels, h', w'].
    """

    placed: Placed
    layout: Layout
    kernels: Tensor
    frames: tuple[Frame, ...]
    total: Tensor
    read: Tensor
    result: Tensor
    expected: Tensor

    @property
    def error(self) -> float:
        """Relative L2 error of the result; 0 where both are 0."""
        norm = float(self.expected.norm())
        distance = float((self.result - self.expected).norm())
        return distance / norm if norm else distance


def find_layer(graph: Graph, layer: str, items: Sequence[Placed]) -> Placed:
    """The operator on optics called ``layer`` among ``items``, all of ``graph``, or the only one on
    the module path ``layer``.

    Raises ``VitruviusError``: with the reason where it stays in electronics, with the names where
    a module has several, and with those nearest where there is none.
    """
    placed = {item.operator.name: item for item in items}
    inside = [
        item
        for item in placed.values()
        if item.operator.path == layer or item.operator.path.startswith(f"{layer}.")
    ]
    optical = [item for item in inside if item.work is not None]
    if layer in placed:
        found = placed[layer]
    elif len(optical) == 1:
        found = optical[0]
    elif optical:
        raise VitruviusError(
            f"{layer} has {len(optical)} operators on optics, expected one of "
            + ", ".join(item.operator.name for item in optical)
        )
    elif inside:
        found = inside[0]
    else:
        names = [item.operator.name for item in items if item.work is not None]
        raise VitruviusError(
            f"{graph.name} has no layer '{layer}' on optics, " + nearest(layer, names)
        )
    if found.work is None:
        raise VitruviusError(
            f"{found.operator.name} ({found.operator.kind}) stays in electronics: {found.reason}"
        )
    return found


def layer_frames(
    placed: Placed,
    images: Tensor,
    kernels: Tensor,
    *,
    kernel: int = 0,
    channel: int = 0,
    options: DeviceOptions | None = None,
    generator: torch.Generator | None = None,
) -> LayerFrames:
    """One frame of ``placed``, of the planes ``images`` [images, in, h, w] and ``kernels``
    [out, in / groups, kh, kw] that its ``OpticalWork`` speaks of.

    Shows input channel ``channel`` (of its group) with output ``kernel``; of scores all keys of
    head ``channel``, and no ``kernel``. Raises ``VitruviusError`` for one that it does not have.
    """
    work = placed.work
    if work is None:
        raise VitruviusError(f"{placed.operator.name} stays in electronics: {placed.reason}")
    shown_images, shown_kernels = _chosen(work, images, kernels, kernel, channel)
    count, taps = len(shown_images), len(shown_kernels)
    layout = arrange(
        "mixed" if work.dynamic else "input",
        work.size,
        work.kernel,
        work.readout,
        images=count,
        kernels=taps,
    )
    options = options or DeviceOptions()
    bench = options.bench(layout.plane)
    scale = shown_images.abs().amax().clamp(min=torch.finfo(images.dtype).tiny)
    lit = shown_images / scale
    if bench.input_levels is not None:
        lit = quantized(lit, bench.input_levels)
    image_tiles = layout.image_tiles(lit[:, None, None])[0, 0, 0]
    kernel_tiles = layout.kernel_tiles(shown_kernels[None, :, None])[0, 0, 0]
    at_input, at_response = layout.centring
    shown = exposures(
        image_tiles,
        kernel_tiles,
        options.scheme,
        signed_input=work.signed_input,
        signed_kernel=work.signed_kernel,
    )
    panels = [layout.input_planes(e.image).roll(at_input, (-2, -1)) for e in shown]
    masks = [
        fourier_mask(layout.kernel_planes(e.kernel).roll(at_response, (-2, -1))) for e in shown
    ]
    gain = torch.stack([own for _, own in masks]).amax(0)
    seen = [bench.filtered(mask) for mask, _ in masks]
    fields = [
        bench.seen(panel, mask) * (own / gain)
        for panel, mask, (_, own) in zip(panels, seen, masks, strict=True)
    ]
    largest = torch.stack([field.abs().amax() for field in fields]).amax()
    reference = bench.reference * largest.clamp(min=torch.finfo(images.dtype).tiny)
    fields = [
        field + e.reference * reference if e.reference else field
        for field, e in zip(fields, shown, strict=True)
    ]
    intensities = [field.real.square() + field.imag.square() for field in fields]
    brightest = torch.stack([intensity.amax() for intensity in intensities]).amax()
    measured = [bench.camera.measure(i, brightest, generator) for i in intensities]
    total = recombined(
        shown, [i * gain.square() for i in measured], options.scheme, reference=reference * gain
    )
    total = total * (scale**2 if options.scheme == "intensity" else scale)
    back = [
        side // 2 - first - second
        for side, first, second in zip(layout.plane, at_input, at_response, strict=True)
    ]
    where = torch.arange(total.numel()).reshape(total.shape)
    kept = layout.read(where.roll(back, (-2, -1)), work.stride)
    result = total.flatten()[kept][:taps, :count].transpose(0, 1)
    if options.scheme == "offset":
        result = result - _offset(work, lit * scale, shown_kernels)
    read = torch.zeros(total.numel(), dtype=torch.bool)
    read[kept[:taps, :count].flatten()] = True
    return LayerFrames(
        placed,
        layout,
        shown_kernels,
        tuple(
            Frame(name, panel, mask, intensity, e.sign, e.reference)
            for name, panel, mask, intensity, e in zip(
                _names(work, options.scheme), panels, seen, measured, shown, strict=True
            )
        ),
        total,
        read.reshape(total.shape),
        result,
        _convolved(work, shown_images, shown_kernels),
    )


def _chosen(
    work: OpticalWork, images: Tensor, kernels: Tensor, kernel: int, channel: int
) -> tuple[Tensor, Tensor]:
    """The planes [n, h, w] and kernels [m, kh, kw] of one frame."""
    inputs, outputs = work.in_channels // work.groups, work.out_channels // work.groups
    if work.dynamic:
        _within("head", channel, work.groups)
        _within("kernel", kernel, 1)
        return images[:, channel], kernels[channel * outputs : (channel + 1) * outputs, 0]
    _within("kernel", kernel, work.out_channels)
    _within("channel", channel, inputs)
    return images[:, kernel // outputs * inputs + channel], kernels[kernel : kernel + 1, channel]


def _names(work: OpticalWork, scheme: Scheme) -> list[str]:
    """What the exposures of ``schemes.exposures`` show, in their order."""
    if scheme in ("reference", "absolute"):
        return ["x, k"] * passes(
            scheme, signed_input=work.signed_input, signed_kernel=work.signed_kernel
        )
    kernels = ["k"]
    if scheme == "offset":
        kernels = ["k + c"]
    elif work.signed_kernel:
        kernels = ["k+", "k-"]
    images = ["x+", "x-"] if work.signed_input else ["x"]
    return [f"{image}, {kernel}" for image in images for kernel in kernels]


def _within(name: str, value: int, count: int) -> None:
    if not 0 <= value < count:
        raise VitruviusError(f"{name} must be 0 to {count - 1}, got {value}")


def _padding(work: OpticalWork) -> list[int]:
    """Zeros on the left, right, top and bottom that ``conv2d`` needs for the readout."""
    padding = []
    for taps in reversed(work.kernel):
        before = (taps - 1) // 2
        padding += {
            "valid": [0, 0],
            "same": [before, taps - 1 - before],
            "full": [taps - 1, taps - 1],
        }[work.readout]
    return padding


def _convolved(work: OpticalWork, images: Tensor, kernels: Tensor) -> Tensor:
    padded = functional.pad(images[:, None], _padding(work))
    return functional.conv2d(padded, kernels[:, None], stride=work.stride)


def _offset(work: OpticalWork, images: Tensor, kernels: Tensor) -> Tensor:
    """What the scheme "offset" has too much: c times the sums under the window."""
    ones = torch.ones_like(kernels[:1])
    return _convolved(work, images, ones) * kernel_offset(kernels)[None, :, :, :]
