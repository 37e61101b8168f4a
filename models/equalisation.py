"""A pass that evens out the channels of a tensor before it gets one scale for all of them.

A factor for each channel divides what writes the tensor (a LayerNorm's gain and bias, a value
projection's rows) and multiplies the columns of the products that read it, so the float graph
computes the same and the integer hardware does not change. The idea is SmoothQuant's (Xiao et al.,
arXiv 2211.10438) and RepQ-ViT's (Li et al., arXiv 2212.08254); here the exponents are searched for
each tensor, and a tensor that gains nothing is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .calibration import few, rows_of, scale_of
from .channels import Place, parts, places
from .graph import Graph
from .quantization_options import QuantizationOptions
from .weight_codes import row_scales

__all__ = ["Equalised", "Reader", "equalise", "output_error", "search"]

_MACS = 1e11
_EXPONENTS = tuple(
    (activation, weight)
    for activation in (0.0, 0.25, 0.5, 0.75, 1.0)
    for weight in (0.0, 0.25, 0.5)
    if activation or weight
)
_LEAST_GAIN_DB = 0.5
_LEAST_ROWS = 8
_PRODUCT_ROWS = 256
_VALUES = 1 << 16
_LARGEST_FACTOR = 1024.0


@dataclass(frozen=True)
class Equalised:
    """What was done to one tensor: the operator that writes it, the exponents of activation and
    weight range in its factors, largest over smallest factor, and the gain in dB of the signal to
    noise of what reads it, on the calibration sample.
    """

    name: str
    exponents: tuple[float, float]
    spread: float
    gain_db: float


@dataclass(frozen=True)
class Reader:
    """A product that reads the tensor: a sample of its inputs [n, channels] and its weight
    [features, channels], channels in the order of the factors.

    parts: sets of features that are tensors of their own later (queries, keys, values), so that
    each counts for itself however small it is; none means that all are one.
    """

    rows: Tensor
    weight: Tensor
    parts: tuple[Tensor, ...] = ()


def equalise(
    graph: Graph, images: Tensor, options: QuantizationOptions
) -> tuple[Graph, tuple[Equalised, ...]]:
    """``graph`` with its channels evened out where that lowers the error, and what was done.

    ``images`` [n, C, H, W]: the search runs on as many as 1e11 multiply-accumulates allow. Only
    tensors whose parameters no other operator shares are touched.
    """
    found = list(places(graph))
    if not found:
        return graph, ()
    sources = {source for place in found for _, source, _ in place.readers}
    seen = rows_of(graph, few(graph, images, macs=_MACS), sources)
    split = parts(graph)
    tensors = dict(graph.tensors)
    done: list[Equalised] = []
    for place in found:
        readers = [
            Reader(
                seen[source][:, columns],
                _matrix(tensors, weight)[:, columns].float(),
                tuple(split.get(weight, ())),
            )
            for weight, source, columns in place.readers
        ]
        factors, result = search(place.name, readers, options)
        if result is None:
            continue
        done.append(result)
        _fold(tensors, place, factors)
    if not done:
        return graph, ()
    changed = copy(graph)
    changed.tensors = tensors
    return changed, tuple(done)


def search(
    name: str, readers: Iterable[Reader], options: QuantizationOptions
) -> tuple[Tensor, Equalised | None]:
    """Factors [channels] that divide the tensor ``name``, and what they give; ones and None where
    no candidate gains 0.5 dB.

    A factor is the channel's largest activation to one exponent over its largest weight to
    another, relative to their geometric means; exponents 0 to 1 and 0 to 0.5 are tried. Factors
    from every other row are judged on the rows between, so that chance maxima gain nothing.
    """
    readers = list(readers)
    seen = [replace(reader, rows=reader.rows[::2]) for reader in readers]
    unseen = [replace(reader, rows=reader.rows[1::2]) for reader in readers]
    if any(len(reader.rows) < _LEAST_ROWS for reader in unseen):
        seen = unseen = readers
    ones = torch.ones(readers[0].weight.shape[1])
    plain = best = output_error(unseen, ones, options)
    exponents = (0.0, 0.0)
    for tried in _EXPONENTS:
        error = output_error(unseen, _factors(seen, tried), options)
        if error < best:
            best, exponents = error, tried
    gain = 10 * math.log10(plain / best) if best > 0 else 0.0
    if gain < _LEAST_GAIN_DB:
        return ones, None
    factors = _factors(readers, exponents)
    spread = float(factors.max() / factors.min())
    return factors, Equalised(name, exponents, spread, gain)


def _factors(readers: Sequence[Reader], exponents: tuple[float, float]) -> Tensor:
    activation = torch.stack([reader.rows.abs().amax(0) for reader in readers]).amax(0)
    weight = torch.stack([reader.weight.abs().amax(0) for reader in readers]).amax(0)
    factors = _relative(activation).pow(exponents[0]) / _relative(weight).pow(exponents[1])
    return factors.clamp(1 / _LARGEST_FACTOR, _LARGEST_FACTOR)


def output_error(readers: Iterable[Reader], factors: Tensor, options: QuantizationOptions) -> float:
    """The square error of the readers' outputs, relative to the outputs' variance and summed over
    their parts, when inputs divided and weights multiplied by ``factors`` [channels] are quantized.

    A feature's mean carries no signal, and its mean error goes into the bias. The scale follows
    from up to 65 536 values of all rows, as in calibration; 256 rows are multiplied.
    """
    bits, top = options.activation_bits, (1 << (options.activation_bits - 1)) - 1
    total = 0.0
    for reader in readers:
        rows, weight = reader.rows / factors, reader.weight * factors
        values = rows.flatten()
        stride = max(1, len(values) // _VALUES)
        while math.gcd(stride, rows.shape[1]) != 1:
            stride += 1
        scale = scale_of(values[::stride], float(values.abs().max()), bits, options)
        chosen = slice(None, None, max(1, len(rows) // _PRODUCT_ROWS))
        rows, given = rows[chosen], reader.rows[chosen]
        rows = torch.round(rows / scale).clamp_(-top - 1, top).mul_(scale)
        limit = (1 << (options.weight_bits - 1)) - 1
        # The largest weight fits, also below 8 bits: cheap, and the same for every candidate.
        step = row_scales(weight, 8).float().mul_(127 / limit).unsqueeze(1)
        weight = torch.round(weight / step).clamp_(-limit, limit).mul_(step)
        exact = given @ reader.weight.t()
        error = (rows @ weight.t() - exact).var(0, unbiased=False)
        signal = exact.var(0, unbiased=False)
        for part in reader.parts or (slice(None),):
            total += float(error[part].sum()) / (float(signal[part].sum()) or 1.0)
    return total


def _relative(largest: Tensor) -> Tensor:
    """``largest`` over its geometric mean; channels that are always zero count as the mean."""
    alive = largest > 0
    if not bool(alive.any()):
        return torch.ones_like(largest)
    mean = largest[alive].double().log().mean().exp().float()
    return torch.where(alive, largest / mean, torch.ones_like(largest))


def _matrix(tensors: Mapping[str, Tensor], key: str) -> Tensor:
    return tensors[key].flatten(1)


def _fold(tensors: dict[str, Tensor], place: Place, factors: Tensor) -> None:
    """Divides what writes the tensor by ``factors``, multiplies what reads it."""
    for key, channels in place.writers:
        tensor = tensors[key].clone()
        shape = (-1,) + (1,) * (tensor.dim() - 1)
        tensor[channels] = (tensor[channels].double() / factors.double().reshape(shape)).to(
            tensor.dtype
        )
        tensors[key] = tensor
    for key, _, columns in place.readers:
        tensor = tensors[key].clone()
        tensor[:, columns] = (tensor[:, columns].double() * factors.double()).to(tensor.dtype)
        tensors[key] = tensor
