"""What was published about 4f accelerators, as data: timings, layers, a GPU, a claim."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from .cost import optical_cost
from .mapping import OpticalWork
from .target import OpticalSystem

__all__ = [
    "FatnetTiming",
    "Gpu",
    "LiGuptaTiming",
    "Published",
    "fatnet_time_per_image",
    "published",
]

_TABLE = Path(__file__).parent / "published.toml"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FatnetTiming(_Row):
    """Seconds per image of a network of ``convolutions`` single planes, ``batch`` images."""

    network: str
    convolutions: int
    batch: int
    optics_s: float
    gpu_s: float


class LiGuptaTiming(_Row):
    """Seconds per image on a GPU, with channel tiling, and without any."""

    network: str
    task: str
    gpu_s: float
    channel_s: float
    none_s: float


class Gpu(_Row):
    """Most operations and bytes a second."""

    name: str
    flop_s: float = Field(gt=0)
    bytes_s: float = Field(gt=0)

    def roofline_s(self, macs: float, moved_bytes: float) -> float:
        """Seconds that the slower of arithmetic and memory takes at its peak."""
        return max(2 * macs / self.flop_s, moved_bytes / self.bytes_s)


class Published(_Row):
    """All of ``published.toml``. layers: (input channels, output channels, pixels a side, kernel
    side) by network.
    """

    sources: dict[str, str]
    claim: dict[str, float]
    gpu: Gpu
    fatnet: tuple[FatnetTiming, ...]
    li_gupta: tuple[LiGuptaTiming, ...]
    layers: dict[str, tuple[tuple[int, int, int, int], ...]]

    def convolutions(self, network: str) -> int:
        """Pairs of input and output channels.

        >>> published().convolutions("FatNet")
        148792
        """
        return sum(fan_in * fan_out for fan_in, fan_out, _, _ in self.layers[network])

    def macs(self, network: str) -> int:
        """Products of one image, outputs as large as inputs."""
        return sum(i * o * side**2 * taps**2 for i, o, side, taps in self.layers[network])

    def gpu_flop_s(self, row: FatnetTiming) -> float:
        """Operations a second that the GPU of FatNet's table did."""
        return 2 * self.macs(row.network) / row.gpu_s


@cache
def published() -> Published:
    """The table."""
    return Published.model_validate(tomllib.loads(_TABLE.read_text(encoding="utf-8")))


def fatnet_time_per_image(convolutions: int, batch: int, system: OpticalSystem) -> float:
    """Seconds per image by FatNet's timing model: convolutions x 2.000 us / batch.

    Kernels are split by sign, inputs are not; the 32 pixels and kernels of 7 of the first stage
    limit the batch for all layers. No electronics, no loading of weights, no read-out. Raises
    ``VitruviusError`` where not one image fits.
    """
    work = OpticalWork(1, 1, convolutions, 1, (32, 32), (7, 7), "full", (1, 1), False, False, True)
    return optical_cost(work, system, "input", batch).time_s / batch
