"""The planes of a 4f system as discrete Fourier transforms, without any loss or noise.

Input plane, lens, Fourier plane with the mask, lens, camera. The optical axis is sample ``N // 2``
of every (even) plane. Both lenses transform forwards, so the camera sees the convolution rotated by
180 degrees about the axis (J. W. Goodman, *Introduction to Fourier Optics*, section 8.2). Batch and
channel axes come first and are never shifted: every transform names the last two axes.

``spectrum``, ``camera_field`` and ``detected`` say the same with the axis at sample 0, upright, for
real planes: half the samples of the Fourier plane, and no copies that only move the axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import VitruviusError

__all__ = [
    "camera_amplitude",
    "camera_field",
    "centred_dft",
    "detected",
    "fourier_mask",
    "input_plane",
    "kernel_plane",
    "spectrum",
    "upright",
]

_AXES = (-2, -1)


def centred_dft(plane: Tensor) -> Tensor:
    """What one lens does: the forward DFT over the last two axes, origins at sample ``N // 2``."""
    origin_first = torch.fft.ifftshift(plane, dim=_AXES)
    transformed: Tensor = torch.fft.fftshift(torch.fft.fft2(origin_first, dim=_AXES), dim=_AXES)
    return transformed


def upright(plane: Tensor) -> Tensor:
    """Undoes the 180-degree rotation about sample ``N // 2``: index ``i`` goes to
    ``(N - i) mod N``.
    """
    return plane.flip(_AXES).roll((1, 1), dims=_AXES)


def input_plane(image: Tensor, size: tuple[int, int]) -> Tensor:
    """``image`` [..., h, w] in the middle of a dark plane [..., *size].

    Raises ``VitruviusError`` when it does not fit.
    """
    height, width = image.shape[-2:]
    rows, cols = size
    if height > rows or width > cols:
        raise VitruviusError(
            f"an image of {height} x {width} does not fit a plane of {rows} x {cols}"
        )
    plane = image.new_zeros((*image.shape[:-2], rows, cols))
    top, left = rows // 2 - height // 2, cols // 2 - width // 2
    plane[..., top : top + height, left : left + width] = image
    return plane


def kernel_plane(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """``kernel`` [..., kh, kw] as the point response [..., *size] that makes a true convolution
    ``conv2d``.

    Optics convolve, ``conv2d`` correlates: tap ``j`` lies at ``centre - j`` from the axis, both
    ways. The centre is ``(k - 1) // 2``, PyTorch's ``padding="same"`` for odd and even kernels.
    """
    rows, cols = size
    height, width = kernel.shape[-2:]
    if height > rows or width > cols:
        raise VitruviusError(
            f"a kernel of {height} x {width} does not fit a plane of {rows} x {cols}"
        )
    plane = kernel.new_zeros((*kernel.shape[:-2], rows, cols))
    # The flipped kernel's first sample is tap k - 1, at centre - (k - 1) = -(k // 2) from the axis.
    top, left = rows // 2 - height // 2, cols // 2 - width // 2
    plane[..., top : top + height, left : left + width] = kernel.flip(_AXES)
    return plane


def fourier_mask(response: Tensor) -> tuple[Tensor, Tensor]:
    """The passive mask of a point response [..., N, M]: complex, magnitude at most 1, and its gain
    [..., 1, 1].

    A mask cannot amplify, so it is normalised by its largest magnitude; electronics multiply by the
    gain. A response of zeros has a dark mask and gain 1.
    """
    mask = centred_dft(response)
    gain = mask.abs().amax(dim=_AXES, keepdim=True)
    gain = torch.where(gain > 0, gain, torch.ones_like(gain))
    return mask / gain, gain


def camera_amplitude(field: Tensor, mask: Tensor, floor: float) -> Tensor:
    """Field amplitude at the camera [..., N, M], upright: the square root of the intensity it
    measures.

    The sign of a real field is lost here. ``floor`` is added to the intensity under the root and
    its root taken off again, which keeps the slope finite where it is dark; the bias is at most
    ``sqrt(floor)``.
    """
    samples = field.shape[-2] * field.shape[-1]
    wave = centred_dft(centred_dft(field) * mask) / samples
    intensity = wave.real.square() + wave.imag.square()
    return upright(torch.sqrt(intensity + floor) - floor**0.5)


def spectrum(plane: Tensor) -> Tensor:
    """The field of a real plane [..., N, M] behind one lens, the half [..., N, M // 2 + 1] of it
    that says the rest.
    """
    transformed: Tensor = torch.fft.rfft2(plane, dim=_AXES)
    return transformed


def camera_field(field: Tensor, mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The real field at the camera [..., *size], upright, of the spectra of an input plane and of a
    point response.
    """
    at_camera: Tensor = torch.fft.irfft2(field * mask, s=size, dim=_AXES)
    return at_camera


def detected(field: Tensor, gain: Tensor, floor: float) -> Tensor:
    """The amplitude that the camera reads from a real ``field``, as ``camera_amplitude`` times
    ``gain``: the field is that of a mask whose magnitudes reach ``gain`` instead of 1.
    """
    bias = gain * floor**0.5
    amplitude: Tensor = torch.sqrt(torch.addcmul(bias.square(), field, field)) - bias
    return amplitude
