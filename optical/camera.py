"""A camera: light to photons, electrons, noise and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from ..errors import VitruviusError

__all__ = ["Camera"]


@dataclass(frozen=True)
class Camera:
    """Parameters of one pixel; the default is ideal.

    photons: that the brightest pixel receives; without them there is no shot noise.
    quantum_efficiency: electrons a photon.
    read_noise_e, dark_e: standard deviation of the read-out, and mean of the dark electrons.
    adc_bits: codes from 0 to the electrons of the brightest pixel, the well; without them a real
        number comes out.

    Electrons are Poisson, read noise is Gaussian (variance n + read_noise^2 + dark). Raises
    ``VitruviusError`` for values out of range, all at once.
    """

    photons: float | None = None
    quantum_efficiency: float = 1.0
    read_noise_e: float = 0.0
    dark_e: float = 0.0
    adc_bits: int | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.photons is not None and not (isfinite(self.photons) and self.photons > 0):
            problems.append(f"photons must be a positive number, got {self.photons}")
        if not 0 < self.quantum_efficiency <= 1:
            problems.append(
                f"quantum_efficiency must be above 0 and at most 1, got {self.quantum_efficiency}"
            )
        for name, value in (("read_noise_e", self.read_noise_e), ("dark_e", self.dark_e)):
            if not (isfinite(value) and value >= 0):
                problems.append(f"{name} must not be negative, got {value}")
            elif value and self.photons is None:
                problems.append(f"{name} counts electrons, which needs photons, got none")
        if self.adc_bits is not None and self.adc_bits < 1:
            problems.append(f"adc_bits must be at least 1, got {self.adc_bits}")
        if problems:
            raise VitruviusError("camera: " + "; ".join(problems))

    def measure(
        self, intensity: Tensor, full_scale: Tensor | float, generator: torch.Generator | None
    ) -> Tensor:
        """``intensity`` as this camera reports it, in the same units: an estimate that may be
        negative where there is read noise and no converter. ``full_scale`` is the intensity of a
        pixel that receives ``photons``. Gradients pass straight through the noise.

        Raises ``VitruviusError`` for a negative intensity, which no light has.
        """
        if intensity.numel() and bool((intensity < 0).any()):
            raise VitruviusError(
                f"expected an intensity of at least 0, got {float(intensity.min()):g}: "
                "there are no negative photon counts"
            )
        seen = intensity.detach() / full_scale
        if self.photons is not None:
            well = self.photons * self.quantum_efficiency
            electrons = torch.poisson(seen * well + self.dark_e, generator=generator)
            if self.read_noise_e:
                noise = torch.randn(
                    seen.shape, generator=generator, dtype=seen.dtype, device=seen.device
                )
                electrons = electrons + self.read_noise_e * noise
            seen = (electrons - self.dark_e) / well
        if self.adc_bits is not None:
            top = 2**self.adc_bits - 1
            seen = (seen * top).round().clamp(0, top) / top
        return intensity + (seen * full_scale - intensity).detach()
