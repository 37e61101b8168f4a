"""ConvShareViT's speed-up over a GPU as a bracket: what is counted decides the ratio.

Published is "up to 3.04 times a GPU", without frame rate, resolution, batch or GPU. Here a network
of its kind is counted as FatNet's timing model does, and then with what that model leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf, log2

from .cost import optical_cost, slots
from .mapping import OpticalWork, linear_work
from .published import Gpu, Published
from .target import OpticalSystem

__all__ = [
    "READINGS",
    "GpuTime",
    "Reading",
    "ShareNetwork",
    "at_rate",
    "frames_per_image",
    "gpu_times",
    "image_s",
    "needed_hz",
]


@dataclass(frozen=True)
class ShareNetwork:
    """A ConvShareViT by its sizes: tokens of ``side`` x ``side``, an MLP ``ratio`` times as wide,
    one head.
    """

    side: int = 8
    tokens: int = 65
    depth: int = 8
    ratio: int = 2

    @property
    def features(self) -> int:
        """Of a token."""
        return self.side**2

    @property
    def macs(self) -> int:
        """Products of one image: four maps, two of the MLP, scores and weighted values."""
        d = self.features
        block = self.tokens * d * d * (4 + 2 * self.ratio) + 2 * self.tokens**2 * d
        return self.depth * block

    @property
    def moved_bytes(self) -> int:
        """Activations of one image that a GPU writes and reads again, in float32."""
        d = self.features
        block = self.tokens * d * (4 + self.ratio + 1) + 2 * self.tokens**2
        return self.depth * block * 2 * 4

    def batch(self, system: OpticalSystem) -> int:
        """Images whose tokens fill one plane."""
        return slots(self._linear(self.features, 1, signed=True), system) // self.tokens

    def works(self, *, signed: bool, hidden: bool, scores: bool) -> list[OpticalWork]:
        """The convolutions of one block.

        signed: tokens may be negative, as they are behind LayerNorm. hidden: the MLP's second map
        reads all ``ratio`` planes of its hidden token, not one. scores: every query by every key.
        """
        d, wide = self.features, self.ratio * self.features
        found = [
            *(self._linear(d, d, signed=signed) for _ in range(4)),
            self._linear(d, wide, signed=signed),
            self._linear(wide if hidden else d, d, signed=signed),
        ]
        if scores:
            found.append(replace(self._linear(d, self.tokens, signed=signed), dynamic=True))
        return found

    def _linear(self, features: int, outputs: int, *, signed: bool) -> OpticalWork:
        return replace(linear_work(self.tokens, features, outputs), signed_input=signed)


@dataclass(frozen=True)
class Reading:
    """What is counted. masks: Fourier transforms of keys at the GPU's peak. link_bits_s, results:
    of the camera, and whether it sends results only.
    """

    name: str
    signed: bool = True
    hidden: bool = True
    scores: bool = False
    masks: bool = False
    link_bits_s: float = inf
    results: bool = False
    frames_per_pass: int = 1


_LINK = 50e9
READINGS: Mapping[str, Reading] = {
    "bare": Reading(
        "kernels split, tokens not: 2 passes of one frame; no scores", signed=False, hidden=False
    ),
    "fatnet": Reading(
        "the same at FatNet's 2.000 µs a convolution: two frames a pass",
        signed=False,
        hidden=False,
        frames_per_pass=2,
    ),
    "hidden": Reading("one frame a pass, all planes of the MLP's hidden tokens", signed=False),
    "signed": Reading("and tokens split by sign: 4 passes"),
    "scores": Reading("and scores, their masks given", scores=True),
    "masks": Reading("and their masks computed by the GPU", scores=True, masks=True),
    "results": Reading(
        "4 passes, no scores, results read at 50 Gbit/s", results=True, link_bits_s=_LINK
    ),
    "frames": Reading("4 passes, no scores, whole frames read at 50 Gbit/s", link_bits_s=_LINK),
}
"""From what publications count to what a bench has to do."""


@dataclass(frozen=True)
class GpuTime:
    """Seconds of one image on a GPU, and where the figure is from."""

    name: str
    seconds: float
    source: str


def gpu_times(network: ShareNetwork, known: Published) -> list[GpuTime]:
    """A stated roofline, and the rates of the GPU in FatNet's table, shortest first."""
    gpu = known.gpu
    found = [
        GpuTime(
            f"roofline of an {gpu.name}",
            gpu.roofline_s(network.macs, network.moved_bytes),
            known.sources["gpu"],
        )
    ]
    for row in known.fatnet:
        rate = known.gpu_flop_s(row)
        found.append(
            GpuTime(
                f"{rate / 1e12:.2f} TFLOP/s, {row.network}, batch {row.batch}",
                2 * network.macs / rate,
                known.sources["fatnet"],
            )
        )
    return sorted(found, key=lambda item: item.seconds)


def at_rate(system: OpticalSystem, rate_hz: float, reading: Reading) -> OpticalSystem:
    """``system`` with panels and camera at so many frames a second."""
    period = 1 / rate_hz
    return system.model_copy(
        update={
            "input_panel_s": period,
            "filter_panel_s": period,
            "exposure_s": period,
            "read_bits_per_s": reading.link_bits_s,
            "read": "results" if reading.results else "frame",
            "frames_per_pass": reading.frames_per_pass,
        }
    )


def image_s(
    network: ShareNetwork,
    system: OpticalSystem,
    rate_hz: float,
    reading: Reading,
    gpu: Gpu,
    *,
    light: bool = False,
) -> float:
    """Seconds of one image at full planes and ``rate_hz`` frames a second. ``light``: frames wait
    for the laser too.
    """
    optics = at_rate(system, rate_hz, reading)
    if not light:
        optics = optics.model_copy(update={"power_w": 1e6})
    batch = network.batch(optics)
    works = network.works(signed=reading.signed, hidden=reading.hidden, scores=reading.scores)
    costs = [optical_cost(work, optics, "auto", batch) for work in works]
    total = sum(cost.time_s for cost in costs) / batch
    if reading.masks:
        shown = sum(
            cost.count.rounds // batch * cost.count.filters
            for cost, work in zip(costs, works, strict=True)
            if work.dynamic
        )
        transform = 2.5 * optics.pixels * log2(optics.pixels)
        total += shown * transform / gpu.flop_s
    return network.depth * total


def frames_per_image(network: ShareNetwork, system: OpticalSystem, reading: Reading) -> float:
    """Frames of one image at full planes."""
    batch = network.batch(system)
    works = network.works(signed=reading.signed, hidden=reading.hidden, scores=reading.scores)
    own = at_rate(system, 1.0, reading)
    frames = sum(optical_cost(work, own, "auto", batch).count.frames for work in works)
    return network.depth * frames / batch


def needed_hz(
    network: ShareNetwork,
    system: OpticalSystem,
    reading: Reading,
    gpu: Gpu,
    wanted_s: float,
) -> float:
    """Frames a second at which one image takes ``wanted_s``; inf where none are enough."""
    slow, fast = 1.0, 1e15
    if image_s(network, system, fast, reading, gpu) > wanted_s:
        return inf
    for _ in range(50):
        middle = (slow * fast) ** 0.5
        if image_s(network, system, middle, reading, gpu) > wanted_s:
            slow = middle
        else:
            fast = middle
    return fast
