"""A traced model whose convolutions, linear layers and scores go through a 4f system.

Everything that ``mapping.mapped`` leaves in electronics, biases included, is computed by PyTorch.
The model runs twice in step, through the optics and exactly, so that every operator shows its own
error (on the inputs that it got) and that which came up to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import VitruviusError
from ..models.graph import Graph, Operator, evaluate
from ..models.kind import number, wholes
from .bench import Wave, dft_wave
from .convolution import Conv4f
from .grid import Grid
from .lit import Light, LitBench
from .mapping import OpticalWork, Placed
from .options import DeviceOptions
from .system4f import System4f
from .tiling import Layout, arrange

__all__ = [
    "DeviceOptics",
    "MathOptics",
    "Observer",
    "Optics",
    "calibrated",
    "critical_wave",
    "execute_once",
    "execute_through",
    "layout_of",
]

Observer: TypeAlias = Callable[[Placed, Tensor, Tensor, Tensor], None]
"""Sees an operator on optics, its output, what PyTorch makes of the same operands, and what it
makes of the exact ones."""

Value = TypeVar("Value")

_WAVELENGTH_M = 532e-9
_PITCH_M = 8e-6
_TOGETHER = 32


class Optics(Protocol):
    """What computes an operator that is on optics."""

    def __call__(self, placed: Placed, operands: Sequence[Tensor], graph: Graph) -> Tensor:
        """The operator's output, as ``models.graph.evaluate`` gives it."""
        ...


@dataclass(frozen=True)
class Planes:
    """One operator's operands as planes: ``images`` [n, in, h, w] and a weight as ``Conv4f`` takes
    them, or, of scores, queries [..., n, h, w] and keys [..., m, h, w].
    """

    images: Tensor
    weight: Tensor
    work: OpticalWork

    @property
    def single_pixel(self) -> bool:
        """Whether each plane is read in one pixel."""
        return self.work.readout == "valid" and self.work.size == self.work.kernel

    def apart(self) -> tuple[Tensor, Tensor]:
        """Images [..., n, h, w] and kernels [..., m, h, w] of a single pixel's dot products, a
        pair of channels at a time.
        """
        if self.work.dynamic:
            return self.images, self.weight
        groups, (height, width) = self.work.groups, self.work.size
        count, channels = self.images.shape[:2]
        images = self.images.reshape(count, groups, channels // groups, height, width)
        kernels = self.weight.reshape(groups, -1, *self.weight.shape[1:])
        return images.movedim(0, 2), kernels.transpose(1, 2)

    def grouped(self) -> tuple[Tensor, Tensor, int]:
        """Images [n, in, h, w], weight and groups, with heads as groups."""
        if not self.work.dynamic:
            return self.images, self.weight, self.work.groups
        lead = _lead(self.images, self.weight, 3)
        heads, plane = prod(lead), self.work.size
        queries = self.images.expand(*lead, *self.images.shape[-3:])
        keys = self.weight.expand(*lead, *self.weight.shape[-3:])
        return queries.reshape(heads, -1, *plane).movedim(1, 0), keys.reshape(-1, 1, *plane), heads


class MathOptics:
    """The math layer, ``Conv4f``: no noise, no levels."""

    def __call__(self, placed: Placed, operands: Sequence[Tensor], graph: Graph) -> Tensor:
        planes = laid_out(placed, operands, graph)
        work = planes.work
        images, weight, groups = planes.grouped()
        layer = Conv4f(
            weight,
            readout=work.readout,
            stride=work.stride,
            groups=groups,
            signed_input=work.signed_input,
        )
        with torch.no_grad():
            return finished(placed, layer(images), operands, graph)


class DeviceOptics:
    """Devices with the light that ``calibrated`` set, by operator; without it, light is set for
    each call.

    generator: draws the noise. propagated: light travels through a critically sampled ``System4f``
    instead of two transforms.
    """

    def __init__(
        self,
        options: DeviceOptions,
        lights: Mapping[str, Light] | None = None,
        *,
        generator: torch.Generator | None = None,
        propagated: bool = False,
    ) -> None:
        self.options = options
        self.lights = dict(lights or {})
        self.generator = generator
        self.propagated = propagated

    def __call__(self, placed: Placed, operands: Sequence[Tensor], graph: Graph) -> Tensor:
        planes = laid_out(placed, operands, graph)
        bench = self.bench(planes.work)
        light = self.lights.get(placed.operator.name)
        if self._direct(planes):
            read = bench.dot_products(*planes.apart(), light, self.generator)
            return finished(placed, _joined(read, planes.work), operands, graph)
        images, weight, groups = planes.grouped()
        if light is not None and planes.work.dynamic:
            light = Light(light.input_scale, _per_head(light.largest, planes))
        read = bench.convolve(
            images,
            weight,
            readout=planes.work.readout,
            stride=planes.work.stride,
            groups=groups,
            light=light,
            generator=self.generator,
        )
        return finished(placed, read, operands, graph)

    def light(self, placed: Placed, operands: Sequence[Tensor], graph: Graph) -> Light:
        """The light in which these operands just fit."""
        planes = laid_out(placed, operands, graph)
        bench = self.bench(planes.work)
        if self._direct(planes) or planes.work.dynamic:
            return bench.light_of_dot_products(*planes.apart(), shared=int(planes.work.dynamic))
        images, weight, groups = planes.grouped()
        work = planes.work
        return bench.light_of_convolution(
            images, weight, readout=work.readout, stride=work.stride, groups=groups
        )

    def _direct(self, planes: Planes) -> bool:
        summed = self.options.tiling == "channel" and planes.work.in_channels > planes.work.groups
        shared = self.options.plane is not None or summed
        return planes.single_pixel and not (self.propagated or shared)

    def bench(self, work: OpticalWork) -> LitBench:
        """The devices with an operator's planes and signs."""
        size = layout_of(work, self.options).plane
        if self.propagated:
            size = (max(size), max(size))
        return LitBench(
            self.options.bench(size),
            self.options.scheme,
            signed_input=work.signed_input,
            signed_kernel=work.signed_kernel,
            tiling=self.options.tiling,
            wave=critical_wave(size[0]) if self.propagated else dft_wave,
        )


def layout_of(work: OpticalWork, options: DeviceOptions) -> Layout:
    """How the planes of one image of the model lie: on planes of their own, as small as can be, or
    as many as fit on those of ``options``.

    Raises ``VitruviusError`` when not one fits.
    """
    side = options.plane
    return arrange(
        options.tiling,
        work.size,
        work.kernel,
        work.readout,
        None if side is None else (side, side),
        images=1 if side is None else work.images,
        channels=work.in_channels // work.groups,
    )


def critical_wave(samples: int) -> Wave:
    """Light through two lenses and free space, critically sampled on ``samples`` a side, pixels of
    8 um at 532 nm.
    """
    grid = Grid(samples, samples, _PITCH_M, _WAVELENGTH_M)
    return System4f(grid, grid.critical_focal_m, padding=1).camera_field


def execute_through(
    graph: Graph,
    images: Tensor,
    placed: Sequence[Placed],
    optics: Optics,
    observe: Observer | None = None,
) -> tuple[Tensor, Tensor]:
    """The model's only output for ``images`` [n, ...] through ``optics``, and PyTorch's.

    Raises ``VitruviusError`` when the model has more than one input or output.
    """
    _check_ends(graph)
    if not graph.batched and len(images) > 1:
        both = [execute_through(graph, image[None], placed, optics, observe) for image in images]
        return torch.cat([seen for seen, _ in both]), torch.cat([exact for _, exact in both])

    def step(item: Placed, operands: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return _both(item, operands, graph, optics, observe)

    return _walk(graph, placed, (images, images), step)


def execute_once(graph: Graph, images: Tensor, placed: Sequence[Placed], optics: Optics) -> Tensor:
    """As ``execute_through``, without the exact model beside it, and with gradients."""
    _check_ends(graph)
    if not graph.batched and len(images) > 1:
        return torch.cat([execute_once(graph, image[None], placed, optics) for image in images])

    def step(item: Placed, operands: Sequence[Tensor]) -> Tensor:
        if item.work is None:
            return evaluate(item.operator, operands, graph)
        return optics(item, operands, graph)

    return _walk(graph, placed, images, step)


def calibrated(
    graph: Graph, images: Tensor, placed: Sequence[Placed], optics: DeviceOptics
) -> dict[str, Light]:
    """The light of every operator in which exact values for ``images`` [n, ...] just fit."""
    lights: dict[str, Light] = {}

    def observed(placed: Placed, operands: Sequence[Tensor], graph: Graph) -> Tensor:
        light = optics.light(placed, operands, graph)
        name = placed.operator.name
        lights[name] = lights[name].covering(light) if name in lights else light
        return evaluate(placed.operator, operands, graph)

    with torch.no_grad():
        for part in torch.split(images, _TOGETHER):
            execute_through(graph, part, placed, observed)
    return lights


def laid_out(placed: Placed, operands: Sequence[Tensor], graph: Graph) -> Planes:
    """The operands of an operator on optics as planes."""
    work, operator = placed.work, placed.operator
    if work is None:
        raise VitruviusError(f"operator {operator.name} is not on optics: {placed.reason}")
    if work.dynamic:
        queries, keys = (part.unflatten(-1, work.size) for part in operands)  # type: ignore[no-untyped-call]
        return Planes(queries, keys, work)
    weight = graph.tensors[operator.tensors["weight"]].detach()
    if operator.kind == "Linear":
        images = operands[0].reshape(-1, 1, *work.size)
        return Planes(images, weight.reshape(-1, 1, *work.kernel), work)
    rows, cols = wholes(operator.attributes, "dilation")
    written = weight.new_zeros((*weight.shape[:2], *work.kernel))
    written[..., ::rows, ::cols] = weight
    images = operands[0].reshape(-1, *operands[0].shape[-3:])
    height, width = (
        (side - given) // 2 for side, given in zip(work.size, images.shape[-2:], strict=True)
    )
    return Planes(functional.pad(images, (width, width, height, height)), written, work)


def finished(placed: Placed, read: Tensor, operands: Sequence[Tensor], graph: Graph) -> Tensor:
    """The operator's output from what was read of its planes: bias, scale and shape."""
    operator, work = placed.operator, placed.work
    assert work is not None
    if work.dynamic:
        lead = _lead(operands[0], operands[1], 2)
        queries, keys = operands[0].shape[-2], operands[1].shape[-2]
        if read.shape != (*lead, queries, keys):  # [queries, heads keys, 1, 1] of a convolution
            read = read.reshape(queries, -1, keys).movedim(0, 1).reshape(*lead, queries, keys)
        return read * number(operator.attributes, "scale")
    bias = graph.tensors[operator.tensors["bias"]] if "bias" in operator.tensors else None
    if operator.kind == "Linear":
        read = read.reshape(*operands[0].shape[:-1], -1)
        return read if bias is None else read + bias
    read = read.reshape(*operands[0].shape[:-3], *read.shape[-3:])
    return read if bias is None else read + bias[:, None, None]


def _check_ends(graph: Graph) -> None:
    for count, ends in ((len(graph.inputs), "input"), (len(graph.outputs), "output")):
        if count != 1:
            raise VitruviusError(f"graph {graph.name} has {count} {ends}s, expected exactly one")


def _walk(
    graph: Graph,
    placed: Sequence[Placed],
    given: Value,
    step: Callable[[Placed, Sequence[Value]], Value],
) -> Value:
    """What ``step`` makes of every operator, in order; no value is kept longer than it is read."""
    last = {name: item.operator.name for item in placed for name in item.operator.inputs}
    values = {graph.inputs[0]: given}
    for item in placed:
        operator = item.operator
        if operator.kind != "Input":
            values[operator.name] = step(item, [values[name] for name in operator.inputs])
        for name in set(operator.inputs):
            if last[name] == operator.name:
                del values[name]
    return values[graph.outputs[0]]


def _both(
    item: Placed,
    operands: Sequence[tuple[Tensor, Tensor]],
    graph: Graph,
    optics: Optics,
    observe: Observer | None,
) -> tuple[Tensor, Tensor]:
    """An operator's output through the optics, and exactly."""
    operator: Operator = item.operator
    seen, true = [both[0] for both in operands], [both[1] for both in operands]
    exact = evaluate(operator, true, graph)
    same = all(a is b for a, b in operands)
    if item.work is None:
        return (exact if same else evaluate(operator, seen, graph)), exact
    output = optics(item, seen, graph)
    if observe is not None:
        observe(item, output, exact if same else evaluate(operator, seen, graph), exact)
    return output, exact


def _joined(read: Tensor, work: OpticalWork) -> Tensor:
    """Dot products as a convolution gives them, channels summed by electronics."""
    if work.dynamic:
        return read
    return read.sum(dim=1).movedim(0, 1).flatten(1)[..., None, None]


def _lead(queries: Tensor, keys: Tensor, last: int) -> torch.Size:
    """The axes before the ``last`` ones, of batch and heads, that both share or broadcast."""
    lead: torch.Size = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        queries.shape[:-last], keys.shape[:-last]
    )
    return lead


def _per_head(largest: Tensor, planes: Planes) -> Tensor:
    """One setting of every head as [heads, 1, keys]."""
    lead = _lead(planes.images, planes.weight, 3)
    keys = planes.weight.shape[-3]
    return largest.expand(*lead, 1).reshape(-1, 1, 1).expand(-1, 1, keys)
