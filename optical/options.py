"""What a 4f system is built of when a whole model runs through it, as a user gives it."""

from __future__ import annotations

from math import isfinite
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from ..errors import VitruviusError
from .bench import Bench
from .camera import Camera
from .devices import MaskKind
from .schemes import Scheme

__all__ = ["DeviceOptions"]


class DeviceOptions(BaseModel):
    """The devices that every operator meets; as it stands, all of them are ideal.

    photons: of the brightest pixel in the calibration; read_noise_e, dark_e, quantum_efficiency,
        adc_bits: see ``Camera``.
    panel_bits: of the amplitudes of both panels and of the mask's phases.
    mask: what the filter panel shows, see ``shown_mask``.
    mask_shift, camera_shift: rows and columns, in samples and in pixels.
    scheme: how the sign survives the camera, see ``schemes``.
    plane: samples a side of the planes, filled with as many images as fit; without it each image
        has the smallest even plane on which it does not wrap round.
    tiling: what shares a plane: "input", images alone, or "channel", channels that add up as light.

    ``of`` makes them with errors in one sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photons: float | None = None
    quantum_efficiency: float = 1.0
    read_noise_e: float = 0.0
    dark_e: float = 0.0
    adc_bits: int | None = None
    panel_bits: int | None = None
    mask: MaskKind = "complex"
    mask_shift: tuple[float, float] = (0.0, 0.0)
    camera_shift: tuple[float, float] = (0.0, 0.0)
    scheme: Scheme = "split"
    plane: int | None = None
    tiling: Literal["input", "channel"] = "input"

    @classmethod
    def of(cls, **values: object) -> DeviceOptions:
        """The options of these values; raises ``VitruviusError`` for those out of range, all at
        once.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            texts = [
                f"{'.'.join(str(part) for part in item['loc'])}: "
                f"{item['msg'].removeprefix('Value error, ')}"
                for item in error.errors()
            ]
            raise VitruviusError("; ".join(texts)) from error

    @field_validator("scheme", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if value not in get_args(Scheme):
            raise ValueError(f"expected {', '.join(get_args(Scheme))}, got '{value}'")
        return value

    @field_validator("panel_bits", "adc_bits")
    @classmethod
    def _bits(cls, value: int | None) -> int | None:
        if value is not None and not 1 <= value <= _MOST_BITS:
            raise ValueError(f"expected 1 to {_MOST_BITS} bits, got {value}")
        return value

    @field_validator("photons")
    @classmethod
    def _light(cls, value: float | None) -> float | None:
        if value is not None and not (isfinite(value) and value > 0):
            raise ValueError(f"expected a number above 0, got {value:g}")
        return value

    @field_validator("mask_shift", "camera_shift")
    @classmethod
    def _finite(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(isfinite(part) for part in value):
            raise ValueError(f"expected finite numbers, got {value}")
        return value

    @field_validator("plane")
    @classmethod
    def _even(cls, value: int | None) -> int | None:
        if value is not None and (value < 2 or value % 2):
            raise ValueError(f"expected an even number of samples, got {value}")
        return value

    @model_validator(mode="after")
    def _camera(self) -> DeviceOptions:
        self.bench((2, 2))
        return self

    @property
    def ideal(self) -> bool:
        """Whether nothing but the scheme, the size of planes and what shares them was chosen."""
        return (
            self.model_copy(update={"scheme": "split", "plane": None, "tiling": "input"})
            == DeviceOptions()
        )

    @property
    def noisy(self) -> bool:
        """Whether two runs differ."""
        return self.photons is not None

    def bench(self, size: tuple[int, int]) -> Bench:
        """These devices with planes of ``size`` samples."""
        levels = None if self.panel_bits is None else 2**self.panel_bits
        return Bench(
            size,
            input_levels=levels,
            mask=self.mask,
            mask_amplitude_levels=levels,
            mask_phase_levels=levels,
            mask_shift=self.mask_shift,
            camera_shift=self.camera_shift,
            camera=Camera(
                photons=self.photons,
                quantum_efficiency=self.quantum_efficiency,
                read_noise_e=self.read_noise_e if self.photons is not None else 0.0,
                dark_e=self.dark_e if self.photons is not None else 0.0,
                adc_bits=self.adc_bits,
            ),
        )


_MOST_BITS = 24
