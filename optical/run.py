"""Labelled images through the optics with one set of devices after another: what each does to
labels, logits and every operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from itertools import product

import torch
from torch import Tensor

from ..models.graph import Graph
from .execution import (
    DeviceOptics,
    MathOptics,
    Optics,
    calibrated,
    execute_through,
    layout_of,
)
from .mapping import OpticalWork, Placed
from .options import DeviceOptions
from .schemes import passes

__all__ = [
    "CellRun",
    "LayerRun",
    "OperatorRun",
    "RunReport",
    "cells",
    "digest",
    "exposures_of",
    "layer_run",
    "run_cell",
    "run_layers",
]

_TOGETHER = 32
Progress = Callable[[int], None]


@dataclass(frozen=True)
class OperatorRun:
    """One operator on optics. For one image of the model: ``passes`` of every (input channel,
    output channel) pair and planes, ``exposures`` in all, with as many planes to a frame as fit.

    own_error: relative L2 error against PyTorch on the inputs that the operator got;
    carried_error: against the exact model, errors of the operators before included.
    """

    name: str
    kind: str
    passes: int
    exposures: int
    own_error: float
    carried_error: float


@dataclass(frozen=True)
class CellRun:
    """One set of devices. agree: images with PyTorch's label; correct: with the true one, if
    known. logit_error: relative L2 over all logits; largest_error: of one logit.
    """

    options: DeviceOptions
    images: int
    agree: int
    correct: int | None
    logit_error: float
    largest_error: float
    operators: tuple[OperatorRun, ...]

    def record(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(replace(self)) | {"options": self.options.model_dump(mode="json")}

    @classmethod
    def restored(cls, record: Mapping[str, object]) -> CellRun:
        """The cell that ``record`` was made of; raises ``KeyError``, ``TypeError`` or
        ``ValueError`` for anything else.
        """
        values = dict(record)
        operators = values.pop("operators")
        options = DeviceOptions.model_validate(values.pop("options"))
        if not isinstance(operators, list):
            raise TypeError("operators must be a list")
        rows = tuple(OperatorRun(**row) for row in operators)
        return cls(options=options, operators=rows, **values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class LayerRun:
    """A few images through one of the three layers: ``layer`` is math, devices or propagation."""

    layer: str
    images: int
    agree: int
    logit_error: float
    largest_error: float


@dataclass(frozen=True)
class RunReport:
    """A sweep. exact_correct: images that PyTorch labels correctly; electronics: operators that
    compute off the optics, with the reason.
    """

    model: str
    on_optics: tuple[str, ...]
    images: int
    calibration_images: int
    seed: int
    exact_correct: int | None
    layers: tuple[LayerRun, ...]
    cells: tuple[CellRun, ...]
    electronics: tuple[tuple[str, str, str], ...]

    def record(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(replace(self, cells=())) | {"cells": [cell.record() for cell in self.cells]}


def cells(
    base: DeviceOptions,
    *,
    photons: Sequence[float],
    adc_bits: Sequence[int],
    panel_bits: Sequence[int],
) -> list[DeviceOptions]:
    """Every combination, noisiest last; an empty list leaves its option as ``base`` has it."""
    found = []
    lights: list[float | None] = [*sorted(photons, reverse=True)] or [base.photons]
    converters: list[int | None] = [*sorted(adc_bits, reverse=True)] or [base.adc_bits]
    panels: list[int | None] = [*sorted(panel_bits, reverse=True)] or [base.panel_bits]
    for bits, adc, light in product(panels, converters, lights):
        values = base.model_dump() | {"photons": light, "adc_bits": adc, "panel_bits": bits}
        found.append(DeviceOptions.of(**values))
    return found


def digest(graph: Graph, images: Tensor) -> str:
    """Names a model's values and its images: what a figure belongs to."""
    found = sha256()
    for key in sorted(graph.tensors):
        found.update(key.encode())
        found.update(graph.tensors[key].detach().contiguous().numpy().tobytes())
    found.update(images.contiguous().numpy().tobytes())
    return found.hexdigest()


def exposures_of(work: OpticalWork, options: DeviceOptions) -> tuple[int, int]:
    """Passes of one pair, and exposures for one image of the model."""
    each = passes(options.scheme, signed_input=work.signed_input, signed_kernel=work.signed_kernel)
    channels, kernels = work.in_channels // work.groups, work.out_channels // work.groups
    frames = layout_of(work, options).frames(work.images, channels, kernels, work.groups)
    return each, each * frames


def run_cell(
    graph: Graph,
    placed: Sequence[Placed],
    options: DeviceOptions,
    images: Tensor,
    calibration: Tensor,
    *,
    labels: Tensor | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> CellRun:
    """Runs ``images`` [n, ...] with one set of devices, whose light ``calibration`` sets.

    ``progress`` is called with the number of images done. Raises ``VitruviusError`` for a plane
    that is too small.
    """
    lights = calibrated(graph, calibration, placed, DeviceOptics(options))
    optics = DeviceOptics(options, lights, generator=torch.Generator().manual_seed(seed))
    sums = _Errors()
    logits, exact = _executed(graph, images, placed, optics, sums, progress)
    agree, error, largest = _compared(logits, exact)
    rows = []
    for item in placed:
        if item.work is not None:
            own, carried = sums.of(item.operator.name)
            each, count = exposures_of(item.work, options)
            rows.append(
                OperatorRun(item.operator.name, item.operator.kind, each, count, own, carried)
            )
    return CellRun(
        options=options,
        images=len(images),
        agree=agree,
        correct=None if labels is None else int((logits.argmax(-1) == labels).sum()),
        logit_error=error,
        largest_error=largest,
        operators=tuple(rows),
    )


def run_layers(
    graph: Graph,
    placed: Sequence[Placed],
    options: DeviceOptions,
    images: Tensor,
    calibration: Tensor,
    *,
    seed: int = 0,
) -> Iterator[LayerRun]:
    """A few ``images`` through the math layer, through propagation with ideal devices, and, if
    ``options`` are not ideal, through propagation with those, all operators alike.
    """
    ideal = DeviceOptions(scheme=options.scheme)
    if options.scheme == "split":
        yield layer_run("math", graph, placed, MathOptics(), images)
    waves = DeviceOptics(ideal, propagated=True)
    yield layer_run("propagation", graph, placed, waves, images)
    if not options.ideal:
        smallest = options.model_copy(update={"plane": None})
        lights = calibrated(graph, calibration, placed, DeviceOptics(smallest))
        generator = torch.Generator().manual_seed(seed)
        waves = DeviceOptics(smallest, lights, generator=generator, propagated=True)
        yield layer_run("propagation with devices", graph, placed, waves, images)


def layer_run(
    layer: str, graph: Graph, placed: Sequence[Placed], optics: Optics, images: Tensor
) -> LayerRun:
    """``images`` through one kind of optics."""
    logits, exact = _executed(graph, images, placed, optics, None, None)
    return LayerRun(layer, len(images), *_compared(logits, exact))


class _Errors:
    """Squared errors and squared values of every operator, summed over pieces of a run."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def __call__(self, placed: Placed, output: Tensor, same: Tensor, exact: Tensor) -> None:
        sums = self._sums.setdefault(placed.operator.name, [0.0] * 4)
        for place, values in enumerate((output - same, same, output - exact, exact)):
            sums[place] += float(values.double().square().sum())

    def of(self, name: str) -> tuple[float, float]:
        """Own and carried error, relative L2."""
        own, same, carried, exact = self._sums[name]
        return (own / same) ** 0.5 if same else 0.0, (carried / exact) ** 0.5 if exact else 0.0


def _executed(
    graph: Graph,
    images: Tensor,
    placed: Sequence[Placed],
    optics: Optics,
    sums: _Errors | None,
    progress: Progress | None,
) -> tuple[Tensor, Tensor]:
    outputs, exacts, done = [], [], 0
    with torch.no_grad():
        for part in torch.split(images, _TOGETHER):
            output, exact = execute_through(graph, part, placed, optics, sums)
            outputs.append(output.flatten(1))
            exacts.append(exact.flatten(1))
            done += len(part)
            if progress is not None:
                progress(done)
    return torch.cat(outputs), torch.cat(exacts)


def _compared(logits: Tensor, exact: Tensor) -> tuple[int, float, float]:
    """Equal labels, relative L2 error, largest error."""
    difference = (logits - exact).double()
    agree = int((logits.argmax(-1) == exact.argmax(-1)).sum())
    norm = float(exact.double().norm())
    relative = float(difference.norm()) / norm if norm else 0.0
    return agree, relative, float(difference.abs().max())
