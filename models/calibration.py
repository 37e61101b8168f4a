"""Ranges of float tensors on calibration images, and the scales that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import VitruviusError
from .graph import Graph, Operator, execute
from .quantization_options import QuantizationOptions

__all__ = [
    "Observations",
    "batches",
    "few",
    "masks_of",
    "mean_square_scale",
    "observe",
    "rows_of",
    "scale_of",
    "together",
]

_Look: TypeAlias = Callable[[Operator, Tensor, int, int], None]

_SAMPLES = 1 << 16
_ROWS = 256
_BATCH_ELEMENTS = 1 << 22
"""Elements of the largest tensor of one batch: 16 MiB in float32."""


@dataclass(frozen=True)
class Observations:
    """What calibration saw of operators' float outputs.

    largest: the largest magnitude by operator name. samples: up to 65 536 values each, evenly
    spread, float32 [n].
    """

    largest: Mapping[str, float]
    samples: Mapping[str, Tensor]


def batches(graph: Graph, images: Tensor, elements: int = _BATCH_ELEMENTS) -> Iterator[Tensor]:
    """``images`` in parts of a size that keeps every tensor of ``graph`` within ``elements``, or
    single images where one tensor of one image is larger than that.
    """
    largest = max(prod(operator.output.shape) for operator in graph.operators())
    size = max(1, elements // largest)
    for start in range(0, len(images), size):
        yield images[start : start + size]


def few(graph: Graph, images: Tensor, *, macs: float, least: int = 4) -> Tensor:
    """As many of ``images``, evenly spread, as ``graph`` runs with ``macs`` multiply-accumulates,
    but ``least`` of them if there are so many.
    """
    one = sum(operator.macs for operator in graph.operators()) or 1
    count = min(len(images), max(least, int(macs // one)))
    return images[torch.arange(count) * len(images) // count]


def observe(graph: Graph, images: Tensor) -> Observations:
    """Runs ``graph`` in float on calibration ``images`` [n, C, H, W] and keeps samples.

    The result does not depend on the size of the batches up to rounding. Raises VitruviusError if
    there is no image, or if an image or an activation is not finite (the first layer where that
    happens).
    """
    operators = graph.operators()
    largest: dict[str, float] = {}
    masks = masks_of(graph)
    # One block for all samples, taken first: small ones between the large tensors that come and go
    # would keep the memory of these from being returned.
    block = torch.empty(len(operators), _SAMPLES)
    row = {operator.name: index for index, operator in enumerate(operators)}
    filled = [0] * len(operators)

    def look(operator: Operator, value: Tensor, done: int, batch: int) -> None:
        if not value.is_floating_point():
            return
        flat = value.detach().flatten()
        if operator.name in masks and not bool(flat.isnan().any()):
            return
        top = float(flat.abs().max()) if flat.numel() else 0.0
        if not top < float("inf"):
            raise VitruviusError(
                f"calibration: {operator.kind} '{operator.name}' ({operator.path or 'root'}) "
                "produced NaN or Inf"
            )
        largest[operator.name] = max(top, largest.get(operator.name, 0.0))
        each, width = flat.numel() // batch, value.shape[-1] if value.dim() else 1
        if value.dim() == 0 or value.shape[0] != batch:
            # Without a batch axis (a constant) it is the same in every batch.
            done, each = 0, -(-flat.numel() // len(images))
            filled[row[operator.name]] = 0
        step = _step(len(images) * each, _SAMPLES, width)
        values = flat[-done * each % step :: step]
        index, start = row[operator.name], filled[row[operator.name]]
        values = values[: _SAMPLES - start]
        block[index, start : start + len(values)] = values
        filled[index] = start + len(values)

    _run(graph, images, look)
    samples = {name: block[index, : filled[index]] for name, index in row.items() if filled[index]}
    return Observations(largest, samples)


def together(seen: Sequence[Observations]) -> Observations:
    """What was seen of several graphs with operators of the same names on the same images, as of
    one: the largest magnitudes of all, and of the samples an equal share from each.
    """
    if len(seen) == 1:
        return seen[0]
    samples = {}
    for name, given in seen[0].samples.items():
        parts = [item.samples[name] for item in seen]
        cuts = [len(given) * place // len(seen) for place in range(len(seen) + 1)]
        samples[name] = torch.cat(
            [part[low:high] for part, low, high in zip(parts, cuts, cuts[1:], strict=False)]
        )
    largest = {name: max(item.largest[name] for item in seen) for name in seen[0].largest}
    return Observations(largest, samples)


def masks_of(graph: Graph) -> frozenset[str]:
    """The operators that give or add the constant mask of an attention, where minus infinity is a
    value.
    """
    found: set[str] = set()
    for region in graph.regions:
        mask: set[str] = set()
        waiting = [region.bias] if region.bias else []
        while waiting:
            name = waiting.pop()
            if name not in mask and name != region.scores:
                mask.add(name)
                waiting += graph.operator(name).inputs
        found |= {region.bias} if mask.intersection(graph.inputs) else mask
    return frozenset(found)


def rows_of(graph: Graph, images: Tensor, names: Collection[str]) -> dict[str, Tensor]:
    """Up to 256 rows along the last axis of what the operators ``names`` yield on ``images``,
    evenly spread, float32 [n, features]. Raises VitruviusError as `observe` does for images.
    """
    found = {
        name: torch.empty(_ROWS, graph.operator(name).output.shape[-1]) for name in sorted(names)
    }
    filled = dict.fromkeys(found, 0)

    def look(operator: Operator, value: Tensor, done: int, batch: int) -> None:
        if operator.name not in found:
            return
        table = value.detach().reshape(-1, value.shape[-1])
        each = len(table) // batch
        step = _step(len(images) * each, _ROWS, 1)
        start = filled[operator.name]
        rows = table[-done * each % step :: step][: _ROWS - start]
        found[operator.name][start : start + len(rows)] = rows
        filled[operator.name] = start + len(rows)

    _run(graph, images, look)
    return {name: table[: filled[name]] for name, table in found.items()}


def _run(graph: Graph, images: Tensor, look: _Look) -> None:
    """Runs the graph in batches; ``look`` also gets the images before the batch and in it."""
    if not len(images):
        raise VitruviusError("calibration images: expected at least one, got none")
    if not bool(torch.isfinite(images).all()):
        raise VitruviusError("calibration images: expected finite values, found NaN or Inf")
    done = 0
    for part in batches(graph, images):
        before, batch = done, len(part)
        execute(graph, part, observe=lambda item, value: look(item, value, before, batch))  # noqa: B023
        done += batch


def _step(total: int, wanted: int, width: int) -> int:
    """The distance of at most ``wanted`` of ``total`` values; it shares no factor with ``width``,
    so that every feature is seen.
    """
    step = max(1, -(-total // wanted))
    while gcd(step, width) != 1:
        step += 1
    return step


def scale_of(
    values: Tensor, largest: float, bits: int, options: QuantizationOptions, *, peak: bool = False
) -> float:
    """The scale of symmetric ``bits`` wide codes by the method of ``options``.

    values: a sample, float [n]; largest: the largest magnitude seen anywhere. ``peak`` asks for
    codes that clip nothing seen, whatever the method.
    """
    top = (1 << (bits - 1)) - 1
    if peak or options.calibration == "minmax":
        return largest / top or 1.0
    if options.calibration == "percentile":
        magnitude = values.abs().sort().values
        place = min(len(magnitude) - 1, int(len(magnitude) * options.percentile / 100))
        return (float(magnitude[place]) if len(magnitude) else 0.0) / top or largest / top or 1.0
    return mean_square_scale(values, bits)


def mean_square_scale(values: Tensor, bits: int) -> float:
    """The scale of symmetric ``bits`` wide codes with the least mean square error on ``values``
    (1-D).

    Clipping thresholds from 100 % down to 30 % of the largest magnitude (10 % below 8 bits) are
    tried (MSE calibration, as in Banner et al., arXiv 1810.05723, by search instead of by formula).
    """
    largest = float(values.abs().max()) if values.numel() else 0.0
    if largest == 0.0:
        return 1.0
    top = (1 << (bits - 1)) - 1
    best_scale, best_error = largest / top, float("inf")
    for percent in range(100, 29 if bits >= 8 else 9, -2):
        scale = largest * percent / 100 / top
        codes = torch.round(values / scale).clamp_(-top - 1, top)
        error = float(codes.mul_(scale).sub_(values).square_().sum(dtype=torch.float64))
        if error < best_error:
            best_scale, best_error = scale, error
    return best_scale
