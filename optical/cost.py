"""What convolutions cost on a 4f system: tiles, frames and time.

Many images share one plane, side by side, while one kernel is in the Fourier plane. A frame is
one setting of panels and camera. The time of flight through the lenses is not counted: 0.33 ns
per 100 mm of path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from ..errors import VitruviusError
from .convolution import Readout, passes, pitch

__all__ = [
    "FATNET_OPTICS",
    "PUBLISHED",
    "ConvolutionCost",
    "ConvolutionWork",
    "Optics",
    "PublishedTiming",
    "convolution_cost",
    "fatnet_time_per_image",
]


@dataclass(frozen=True)
class Optics:
    """One 4f system: usable samples of a plane and how fast its parts change.

    Times are seconds per frame. ``read_bits_per_s`` is the camera's link; infinite where a
    publication leaves it out. ``pipelined``: the parts work at the same time, so the slowest sets
    the pace; otherwise one after another. ``frames_per_pass`` counts the settings one exposure
    needs. ``source`` says where figures are from.
    """

    name: str
    rows: int
    cols: int
    input_panel_s: float
    filter_panel_s: float
    exposure_s: float
    source: str
    read_bits: int = 8
    read_bits_per_s: float = inf
    frames_per_pass: int = 1
    pipelined: bool = True

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least 1, got {value}"
            for name, value in (
                ("rows", self.rows),
                ("cols", self.cols),
                ("read_bits", self.read_bits),
                ("frames_per_pass", self.frames_per_pass),
            )
            if value < 1
        ]
        problems += [
            f"{name} must not be negative, got {value}"
            for name, value in (
                ("input_panel_s", self.input_panel_s),
                ("filter_panel_s", self.filter_panel_s),
                ("exposure_s", self.exposure_s),
            )
            if not value >= 0
        ]
        if not self.read_bits_per_s > 0:
            problems.append(f"read_bits_per_s must be above 0, got {self.read_bits_per_s}")
        if problems:
            raise VitruviusError(f"optics {self.name}: " + "; ".join(problems))

    def tiles(self, size: int, kernel: int, readout: Readout) -> int:
        """Images of ``size`` x ``size`` that fit one plane; 0 where not even one does."""
        side = pitch(size, kernel, readout)
        return (self.rows // side) * (self.cols // side)

    def frame(self) -> tuple[float, str]:
        """Seconds of one frame in which everything changes, and the part that takes longest."""
        parts = {
            "input panel": self.input_panel_s,
            "filter panel": self.filter_panel_s,
            "exposure": self.exposure_s,
            "read-out": self.rows * self.cols * self.read_bits / self.read_bits_per_s,
        }
        slowest = max(parts, key=lambda part: parts[part])
        return (parts[slowest] if self.pipelined else sum(parts.values())), slowest


@dataclass(frozen=True)
class ConvolutionWork:
    """One convolution layer on ``images`` images of ``size`` x ``size``, with ``kernel`` x
    ``kernel`` taps.

    ``tiled``: images share a plane while a kernel is shown; otherwise a frame holds one image.
    """

    images: int
    in_channels: int
    out_channels: int
    size: int
    kernel: int
    readout: Readout = "same"
    groups: int = 1
    signed_input: bool = True
    signed_kernel: bool = True
    tiled: bool = True

    def __post_init__(self) -> None:
        numbers = ("images", "in_channels", "out_channels", "size", "kernel", "groups")
        counts = {name: int(getattr(self, name)) for name in numbers}
        problems = [
            f"{n} must be at least 1, got {count}" for n, count in counts.items() if count < 1
        ]
        if not problems and (self.in_channels % self.groups or self.out_channels % self.groups):
            problems.append(
                f"groups must divide {self.in_channels} and {self.out_channels} channels, "
                f"got {self.groups}"
            )
        if problems:
            raise VitruviusError("convolution: " + "; ".join(problems))

    @property
    def pairs(self) -> int:
        """(input channel, output channel) pairs: single-plane convolutions per image."""
        return self.in_channels * self.out_channels // self.groups


@dataclass(frozen=True)
class ConvolutionCost:
    """``tiles`` images share a plane; ``frames`` settings in ``time_s``; ``bottleneck`` is the
    slowest part.
    """

    tiles: int
    passes: int
    frames: int
    frame_s: float
    time_s: float
    bottleneck: str
    source: str


def convolution_cost(work: ConvolutionWork, optics: Optics) -> ConvolutionCost:
    """Frames and time of one layer: ``passes * frames_per_pass * pairs * ceil(images / tiles)``
    frames.

    Every pair has a kernel of its own, so only images share a plane.
    Raises ``VitruviusError`` when one image with its guard band is larger than the plane.
    """
    fitting = optics.tiles(work.size, work.kernel, work.readout)
    if fitting == 0:
        side = pitch(work.size, work.kernel, work.readout)
        raise VitruviusError(
            f"optics {optics.name}: a plane of {optics.rows} x {optics.cols} samples holds no "
            f"image of {side} x {side} (size {work.size}, kernel {work.kernel}, {work.readout})"
        )
    tiles = fitting if work.tiled else 1
    exposures = passes(signed_input=work.signed_input, signed_kernel=work.signed_kernel)
    loads = -(-work.images // tiles)
    frames = exposures * optics.frames_per_pass * work.pairs * loads
    frame_s, bottleneck = optics.frame()
    return ConvolutionCost(
        tiles, exposures, frames, frame_s, frames * frame_s, bottleneck, f"formula: {optics.source}"
    )


FATNET_OPTICS = Optics(
    name="FatNet",
    rows=2160,
    cols=2160,
    input_panel_s=0.5e-6,
    filter_panel_s=0.5e-6,
    exposure_s=0.5e-6,
    frames_per_pass=2,
    source=(
        "Ibadulla et al., arXiv 2210.16914: panels of about 2 MHz; its timings imply four frame "
        "periods per convolution, taken as two passes (kernel split) of two frames each; "
        "no read-out limit"
    ),
)
"""The system whose timings FatNet publishes: 2.000 us per convolution, 3136 images of 32 x 32 per
plane.
"""


@dataclass(frozen=True)
class PublishedTiming:
    """A published time per image on optics: ``convolutions`` single-plane convolutions, ``batch``
    images.
    """

    network: str
    convolutions: int
    batch: int
    time_per_image_s: float
    source: str


_FATNET = (
    "published: Ibadulla et al., FatNet, AI 2023, 4(2), 361-374, "
    "doi 10.3390/ai4020018 (arXiv 2210.16914)"
)

PUBLISHED: tuple[PublishedTiming, ...] = (
    PublishedTiming("ResNet-18", 1_220_800, 64, 3.815e-2, _FATNET),
    PublishedTiming("ResNet-18", 1_220_800, 3136, 7.786e-4, _FATNET),
    PublishedTiming("FatNet", 148_637, 64, 4.645e-3, _FATNET),
    PublishedTiming("FatNet", 148_637, 3136, 9.479e-5, _FATNET),
)
"""FatNet's own comparison on CIFAR-100, as quoted in secondary notes on the paper; four digits."""


def fatnet_time_per_image(
    layers: Sequence[tuple[int, int]], *, batch: int, size: int = 32, kernel: int = 7
) -> float:
    """Seconds per image by FatNet's timing model: convolutions x 2.000 us / batch.

    ``layers`` are (input channels, output channels). The model has no electronics, no loading of
    weights and no read-out, and lets ``size`` and ``kernel`` of the first stage limit the batch
    for every layer.

    Raises ``VitruviusError`` when ``batch`` images do not fit one plane.
    """
    tiles = FATNET_OPTICS.tiles(size, kernel, "full")
    if not 1 <= batch <= tiles:
        raise VitruviusError(f"batch must be 1 to {tiles}, the images on one plane, got {batch}")
    works = (
        ConvolutionWork(batch, fan_in, fan_out, size, kernel, "full", signed_input=False)
        for fan_in, fan_out in layers
    )
    return sum(convolution_cost(work, FATNET_OPTICS).time_s for work in works) / batch
