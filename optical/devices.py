"""What panels can show and where things lie: levels, binary mirrors, incomplete masks, shifts.

Rounding passes gradients straight through, so that a layer can be trained with its panels.
"""

from __future__ import annotations

from math import pi
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..errors import VitruviusError

__all__ = [
    "MaskKind",
    "binary_planes",
    "phase_efficiency",
    "quantized",
    "quantized_phase",
    "shifted",
    "shown_mask",
]

MaskKind: TypeAlias = Literal["complex", "phase", "amplitude", "real", "binary"]
"""What a filter panel modulates: all of H, only its phase, only |H|, only its real part, or mirrors
that are on where the real part is positive.
"""


def quantized(values: Tensor, levels: int) -> Tensor:
    """``values`` in [-1, 1] with their magnitudes on ``levels`` even steps from 0 to 1, signs
    kept.

    >>> quantized(torch.tensor([0.1, 0.4, -0.9]), 3)
    tensor([ 0.0000,  0.5000, -1.0000])
    """
    _check_levels(levels)
    steps = levels - 1
    rounded = (values * steps).round() / steps
    return values + (rounded - values).detach()


def quantized_phase(mask: Tensor, levels: int) -> Tensor:
    """The complex ``mask`` with its phase on ``levels`` even steps of the circle, zero included."""
    _check_levels(levels)
    step = 2 * pi / levels
    phase = mask.angle()
    rounded = phase + ((phase / step).round() * step - phase).detach()
    return torch.polar(mask.abs(), rounded)


def phase_efficiency(levels: int) -> float:
    """First-order efficiency of a blazed phase with ``levels`` steps, sinc^2(1 / L) (Goodman).

    >>> [round(phase_efficiency(levels), 3) for levels in (2, 4, 8)]
    [0.405, 0.811, 0.95]
    """
    _check_levels(levels)
    return float(torch.sinc(torch.tensor(1 / levels, dtype=torch.float64)).square())


def binary_planes(values: Tensor, bits: int) -> list[tuple[float, Tensor]]:
    """The frames of on and off mirrors that show ``values`` in [0, 1] with ``bits`` bits, most
    significant first, each with its weight: their weighted sum is ``quantized(values, 2**bits)``.

    Raises ``VitruviusError`` for values outside: a mirror shows no sign.
    """
    if bits < 1:
        raise VitruviusError(f"bits must be at least 1, got {bits}")
    if values.numel() and not (float(values.min()) >= 0 and float(values.max()) <= 1):
        raise VitruviusError(
            f"mirrors show values from 0 to 1, got {float(values.min()):g} to "
            f"{float(values.max()):g}"
        )
    top = 2**bits - 1
    codes = (values * top).round().to(torch.int64)
    return [(2**bit / top, ((codes >> bit) & 1).to(values.dtype)) for bit in reversed(range(bits))]


def shown_mask(
    mask: Tensor,
    kind: MaskKind = "complex",
    *,
    amplitude_levels: int | None = None,
    phase_levels: int | None = None,
) -> Tensor:
    """What a filter panel makes of the complex ``mask``, of magnitude at most 1.

    Raises ``VitruviusError`` for an unknown kind, or fewer than 2 levels.
    """
    if kind not in get_args(MaskKind):
        raise VitruviusError(f"mask must be {', '.join(get_args(MaskKind))}, got {kind!r}")
    if kind == "binary":
        return (mask.real > 0).to(mask.dtype)
    if kind == "phase":
        mask = torch.polar(torch.ones_like(mask.real), mask.angle())
    elif kind == "amplitude":
        mask = mask.abs().to(mask.dtype)
    elif kind == "real":
        mask = mask.real.to(mask.dtype)
    if amplitude_levels is not None:
        mask = torch.polar(quantized(mask.abs(), amplitude_levels), mask.angle())
    if phase_levels is not None:
        mask = quantized_phase(mask, phase_levels)
    return mask


def shifted(plane: Tensor, by: tuple[float, float]) -> Tensor:
    """``plane`` [..., N, M], complex, moved by (down, right) samples, whole or not, wrapping
    round: by the phase of its Fourier transform.
    """
    spectrum = torch.fft.fft2(plane)
    for axis, distance in zip((-2, -1), by, strict=True):
        frequency = torch.fft.fftfreq(plane.shape[axis], dtype=torch.float64, device=plane.device)
        turn = torch.exp(-2j * pi * distance * frequency).to(plane.dtype)
        spectrum = spectrum * (turn[:, None] if axis == -2 else turn)
    moved: Tensor = torch.fft.ifft2(spectrum)
    return moved


def _check_levels(levels: int) -> None:
    if levels < 2:
        raise VitruviusError(f"levels must be at least 2, got {levels}")
