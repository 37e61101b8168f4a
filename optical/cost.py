"""What convolutions of planes cost on a 4f system: tiles, frames, time, light and conversions.

A frame is one setting of both panels that the camera records. The time of flight through the lenses
is not counted: 0.33 ns per 100 mm of path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import isqrt, prod
from typing import Literal, get_args

from ..errors import VitruviusError
from .mapping import OpticalWork
from .schemes import passes
from .target import OpticalSystem
from .tiling import Layout, Tiling, arrange, pitch

__all__ = ["Brackets", "FrameCount", "OpticalCost", "fits", "frame_count", "optical_cost", "slots"]


@dataclass(frozen=True)
class FrameCount:
    """Frames of one operator.

    Of each of ``rounds``, which share nothing, every one of ``inputs`` settings of the input panel
    meets every one of ``filters`` settings of the filter panel. passes: of one pair, by the signs.
    merged: groups whose pairs with each other are computed too and thrown away. use: pairs that are
    wanted of those that the planes hold.
    """

    tiling: Tiling
    layout: Layout
    rounds: int
    inputs: int
    filters: int
    passes: int
    merged: int
    use: float

    @property
    def frames(self) -> int:
        """Settings of both panels, one after another."""
        return self.rounds * self.inputs * self.filters


@dataclass(frozen=True)
class Brackets:
    """Seconds that the same frames take where one thing alone sets their pace.

    light: the laser at full power. panels: both panels, their data links, and the camera's period.
    read: the camera's link.
    """

    light_s: float = 0.0
    panels_s: float = 0.0
    read_s: float = 0.0

    def __add__(self, other: Brackets) -> Brackets:
        return Brackets(
            self.light_s + other.light_s,
            self.panels_s + other.panels_s,
            self.read_s + other.read_s,
        )

    @property
    def ruling(self) -> str:
        """The longest of the three, or nothing where all are 0."""
        parts = {"light": self.light_s, "panels": self.panels_s, "read-out": self.read_s}
        return max(parts, key=parts.__getitem__) if any(parts.values()) else ""


@dataclass(frozen=True)
class OpticalCost:
    """One operator on optics, for a batch: time_s with the system's own timing, and the energy of
    light and converters.

    input_changes, filter_changes: new patterns. read_samples: that the camera converts; results:
    of them, values that electronics go on with.
    """

    count: FrameCount
    time_s: float
    brackets: Brackets
    light_j: float
    dac_j: float
    adc_j: float
    input_changes: int
    filter_changes: int
    read_samples: int
    results: int


def slots(work: OpticalWork, system: OpticalSystem) -> int:
    """Tiles of one pitch that a plane holds; 0 where not even one fits.

    >>> from .target import load_optical
    >>> token = OpticalWork(1, 1, 1, 1, (8, 8), (8, 8), "valid", (1, 1), False, True, True)
    >>> slots(token, load_optical("optical:4f-2mhz").system)
    72900
    """
    sides = zip((system.rows, system.cols), work.size, work.kernel, strict=True)
    return prod(side // pitch(size, taps, work.readout) for side, size, taps in sides)


def fits(work: OpticalWork, system: OpticalSystem) -> str:
    """Why the operator does not fit the planes; empty where it does."""
    if slots(work, system):
        return ""
    rows, cols = (
        pitch(size, taps, work.readout) for size, taps in zip(work.size, work.kernel, strict=True)
    )
    return (
        f"a tile of {rows} x {cols} samples (image {work.size[0]} x {work.size[1]}, kernel "
        f"{work.kernel[0]} x {work.kernel[1]}, {work.readout}) does not fit a plane of "
        f"{system.rows} x {system.cols}"
    )


@cache
def frame_count(
    work: OpticalWork,
    plane: tuple[int, int],
    scheme: str,
    frames_per_pass: int = 1,
    tiling: Tiling | Literal["auto"] = "auto",
    batch: int = 1,
) -> FrameCount:
    """``passes * frames_per_pass * ceil(work / tiles)`` frames for ``batch`` inputs of the model.

    Kernels that come from the image are shown for each input of the batch anew. "auto" takes the
    tiling with the fewest frames; of equals the one with the fewest sums by electronics.

    Raises ``VitruviusError`` for an operator that does not fit the plane.
    """
    every = get_args(Tiling) if tiling == "auto" else (tiling,)
    found = [
        _counted(one, merged, work, plane, scheme, frames_per_pass, batch)
        for one in every
        for merged in _merging(one, work, plane)
    ]
    return min(found, key=lambda item: (item.frames, item.rounds))


def optical_cost(
    work: OpticalWork,
    system: OpticalSystem,
    tiling: Tiling | Literal["auto"] = "auto",
    batch: int = 1,
) -> OpticalCost:
    """Time and energy of the light, panels and camera for ``batch`` inputs of the model.

    Panels change only where the next frame needs another pattern, in the order that takes less
    time. Raises ``VitruviusError`` for an operator that does not fit the plane.
    """
    if problem := fits(work, system):
        raise VitruviusError(f"optical system {system.name}: {problem}")
    plane = (system.rows, system.cols)
    count = frame_count(work, plane, system.scheme, system.frames_per_pass, tiling, batch)
    loads = -(-(work.in_channels // work.groups) // prod(count.layout.channels))
    values = work.images * batch * loads * work.out_channels * prod(work.result)
    results = values * count.passes * system.frames_per_pass
    read_samples = results if system.read == "results" else count.frames * system.pixels
    read_s = read_samples / count.frames * system.read_bits / system.read_bits_per_s
    orders = [_changes(count, inner) for inner in ("filters", "inputs")]
    times = [_time(order, count.frames, read_s, system) for order in orders]
    best = min((0, 1), key=lambda place: (times[place], sum(orders[place][:2])))
    input_changes, filter_changes, _ = orders[best]
    written = system.pixels * system.dac_j
    return OpticalCost(
        count=count,
        time_s=times[best],
        brackets=Brackets(
            light_s=count.frames * system.light_s,
            panels_s=_panels(orders[best], count.frames, system),
            read_s=count.frames * read_s,
        ),
        light_j=count.frames * system.laser_j,
        dac_j=(input_changes + filter_changes) * written,
        adc_j=read_samples * system.adc_j,
        input_changes=input_changes,
        filter_changes=filter_changes,
        read_samples=read_samples,
        results=results,
    )


def _merging(tiling: Tiling, work: OpticalWork, plane: tuple[int, int]) -> Iterator[int]:
    """How many groups may meet in one frame: one; and as many as leave room for all pairs."""
    yield 1
    if tiling != "mixed" or work.groups == 1:
        return
    steps = [
        pitch(size, taps, work.readout) for size, taps in zip(work.size, work.kernel, strict=True)
    ]
    room = prod(side // step for side, step in zip(plane, steps, strict=True))
    each = work.images * (work.out_channels // work.groups)
    most = min(work.groups, isqrt(room // each))
    if most > 1:
        yield most


def _counted(
    tiling: Tiling,
    merged: int,
    work: OpticalWork,
    plane: tuple[int, int],
    scheme: str,
    frames_per_pass: int,
    batch: int,
) -> FrameCount:
    images = work.images if work.dynamic else work.images * batch
    channels = work.in_channels // work.groups
    kernels = work.out_channels // work.groups
    layout = arrange(
        tiling,
        work.size,
        work.kernel,
        work.readout,
        plane,
        images=images * merged,
        channels=channels,
        kernels=kernels * merged,
    )
    loads = [
        -(-number // prod(grid))
        for number, grid in (
            (images * merged, layout.images),
            (channels, layout.channels),
            (kernels * merged, layout.kernels),
        )
    ]
    all_passes = passes(
        scheme,  # type: ignore[arg-type]
        signed_input=work.signed_input,
        signed_kernel=work.signed_kernel,
    )
    parts = 2 if work.signed_input and scheme in ("split", "intensity", "offset") else 1
    rounds = -(-work.groups // merged) * loads[1] * (batch if work.dynamic else 1)
    inputs = loads[0] * parts * frames_per_pass
    filters = loads[2] * all_passes // parts
    wanted = work.images * batch * work.pairs * all_passes * frames_per_pass
    tiles = prod(side // step for side, step in zip(plane, layout.pitch, strict=True))
    use = wanted / (rounds * inputs * filters * tiles)
    return FrameCount(tiling, layout, rounds, inputs, filters, all_passes, merged, use)


def _changes(count: FrameCount, inner: str) -> tuple[int, int, int]:
    """New patterns on the input panel and on the filter panel, and frames in which both change,
    where the inner loop is over ``inner``.
    """
    outer = count.inputs if inner == "filters" else count.filters
    both = count.rounds * outer
    return (both, count.frames, both) if inner == "filters" else (count.frames, both, both)


def _time(
    changes: tuple[int, int, int], frames: int, read_s: float, system: OpticalSystem
) -> float:
    exposed = max(system.exposure_s, system.light_s)
    total = 0.0
    for number, panels in _kinds(changes, frames, system):
        if system.pipelined:
            total += number * max(*panels, exposed, read_s)
        else:
            total += number * (sum(panels) + exposed + read_s)
    return total


def _panels(changes: tuple[int, int, int], frames: int, system: OpticalSystem) -> float:
    together = max if system.pipelined else sum
    return sum(
        number * together((*panels, system.exposure_s))
        for number, panels in _kinds(changes, frames, system)
    )


def _kinds(
    changes: tuple[int, int, int], frames: int, system: OpticalSystem
) -> list[tuple[int, tuple[float, float]]]:
    """Frames in which both panels change, and those in which one does, with the times of both."""
    link = system.pixels * system.write_bits / system.write_bits_per_s
    times = (max(system.input_panel_s, link), max(system.filter_panel_s, link))
    input_changes, filter_changes, both = changes
    return [
        (both, times),
        (input_changes - both, (times[0], 0.0)),
        (filter_changes - both, (0.0, times[1])),
        (frames - input_changes - filter_changes + both, (0.0, 0.0)),
    ]
