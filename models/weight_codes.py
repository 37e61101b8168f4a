"""Integer codes of weight matrices: a scale for each row, and rounding that compensates errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .calibration import batches
from .graph import Graph, Operator, execute

__all__ = ["WeightCodes", "compensated", "encode_gates", "encode_weights", "nearest", "row_scales"]

_CLIPS = tuple(percent / 100 for percent in range(100, 39, -4))
_DAMPING = 0.01
_BLOCK = 64
_MOMENT_ELEMENTS = 1 << 24
"""Elements of the largest tensor when second moments are taken: 27 images of DeiT-Base."""


@dataclass(frozen=True)
class WeightCodes:
    """codes: int8 [rows, columns]; scale: float64 [rows]. A code times its row's scale is the
    weight.
    """

    codes: Tensor
    scale: Tensor


def row_scales(weight: Tensor, bits: int, importance: Tensor | None = None) -> Tensor:
    """The scale of each row of ``weight`` [rows, columns] for symmetric ``bits`` wide codes.

    At 8 bits and above the largest weight fits; below, the clipping with the least square error
    is searched, each column's error weighted by ``importance`` [columns] if given. Float64 [rows],
    never 0.
    """
    top = (1 << (bits - 1)) - 1
    largest = weight.abs().amax(1).to(torch.float64)
    if bits >= 8:
        return (largest / top).clamp(min=1e-12)
    best = torch.full_like(largest, float("inf"))
    scale = largest / top
    for clip in _CLIPS:
        tried = (largest * clip / top).clamp(min=1e-12)
        step = tried.to(weight.dtype).unsqueeze(1)
        error = (torch.round(weight / step).clamp(-top, top) * step - weight).square()
        if importance is not None:
            error = error * importance.to(weight.dtype)
        total = error.sum(1, dtype=torch.float64)
        better = total < best
        best, scale = torch.where(better, total, best), torch.where(better, tried, scale)
    return scale.clamp(min=1e-12)


def nearest(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """int8 codes [rows, columns] of ``weight`` at ``scale`` [rows], ties to even."""
    top = (1 << (bits - 1)) - 1
    codes = torch.round(weight.to(torch.float64) / scale.unsqueeze(1))
    return codes.clamp_(-top, top).to(torch.int8)


def compensated(weight: Tensor, scale: Tensor, bits: int, hessian: Tensor) -> Tensor:
    """int8 codes [rows, columns] whose rounding errors cancel in the layer's outputs.

    Columns are rounded one after the other; the error of each is spread over those not rounded
    yet, by the inverse of ``hessian`` [columns, columns], the inputs' second moments (GPTQ:
    Frantar et al., arXiv 2210.17323; the order is by falling second moment).
    """
    top = (1 << (bits - 1)) - 1
    moments = hessian.to(torch.float64)
    diagonal = moments.diagonal().clone()
    dead = diagonal <= 0
    mean = float(diagonal.mean()) or 1.0
    order = torch.argsort(diagonal, descending=True, stable=True)
    moments = moments[order][:, order]
    moments.diagonal().add_(_DAMPING * mean)
    moments.diagonal()[dead[order]] = mean
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    upper = torch.linalg.cholesky(inverse, upper=True).to(torch.float32)
    rest = weight.to(torch.float32)[:, order].clone()
    step = scale.to(torch.float32)
    codes = torch.empty_like(rest)
    columns = rest.shape[1]
    for start in range(0, columns, _BLOCK):
        stop = min(columns, start + _BLOCK)
        errors = torch.empty_like(rest[:, start:stop])
        for column in range(start, stop):
            value = rest[:, column]
            codes[:, column] = torch.round(value / step).clamp(-top, top)
            error = (value - codes[:, column] * step) / upper[column, column]
            rest[:, column:stop] -= error.unsqueeze(1) * upper[column, column:stop]
            errors[:, column - start] = error
        rest[:, stop:] -= errors @ upper[start:stop, stop:]
    return codes[:, torch.argsort(order)].to(torch.int8)


def encode_weights(graph: Graph, images: Tensor, bits: int) -> Mapping[str, WeightCodes]:
    """Codes by name of every Linear and every Conv2d with one group whose stride is its kernel.

    At 8 bits and above they are the nearest; below, `compensated` with the second moments of one
    batch of ``images`` [n, C, H, W]. Gates of mixtures keep 8 bits: they are a thousandth of the
    weights, and an error there chooses another expert.
    """
    gates = {mixture.gate for mixture in graph.mixtures}
    products = {item.name: item for item in graph.operators() if _is_product(item)}
    if bits >= 8:
        return {name: _encode(graph, item, bits, moments=None) for name, item in products.items()}
    readers: dict[str, list[Operator]] = {}
    for item in products.values():
        readers.setdefault(item.inputs[0], []).append(item)
    found: dict[str, WeightCodes] = {}

    def look(operator: Operator, value: Tensor) -> None:
        # One matrix of second moments serves all that read the same tensor in the same way.
        moments: dict[int, Tensor] = {}
        for reader in readers.get(operator.name, ()):
            if reader.name in gates:
                found[reader.name] = _encode(graph, reader, 8, moments=None)
                continue
            kernel = _kernel(graph, reader)
            if kernel not in moments:
                table = _rows(value, kernel)
                moments[kernel] = table.t() @ table / len(table)
            found[reader.name] = _encode(graph, reader, bits, moments[kernel])

    execute(graph, next(batches(graph, images, _MOMENT_ELEMENTS)), observe=look)
    return found


def encode_gates(graph: Graph, bits: int) -> Mapping[str, WeightCodes]:
    """Codes by name of the gates of mixtures alone, as `encode_weights` gives them."""
    width = max(bits, 8)
    return {
        mixture.gate: _encode(graph, graph.operator(mixture.gate), width, moments=None)
        for mixture in graph.mixtures
    }


def _is_product(operator: Operator) -> bool:
    if operator.kind == "Linear":
        return True
    return operator.kind == "Conv2d" and operator.attributes["groups"] == 1


def _kernel(graph: Graph, reader: Operator) -> int:
    """The side of a convolution's kernel, 0 for a Linear."""
    if reader.kind == "Linear":
        return 0
    return int(graph.tensors[reader.tensors["weight"]].shape[-1])


def _rows(value: Tensor, kernel: int) -> Tensor:
    """float32 [rows, columns]: what a product's weight rows are multiplied with."""
    if not kernel:
        return value.reshape(-1, value.shape[-1]).float()
    patches = torch.nn.functional.unfold(value.float(), kernel, stride=kernel)
    return patches.transpose(1, 2).reshape(-1, patches.shape[1])


def _encode(graph: Graph, product: Operator, bits: int, moments: Tensor | None) -> WeightCodes:
    weight = graph.tensors[product.tensors["weight"]].flatten(1)
    if moments is None or moments.shape[0] != weight.shape[1]:
        scale = row_scales(weight, bits)
        return WeightCodes(nearest(weight, scale, bits), scale)
    scale = row_scales(weight, bits, moments.diagonal())
    return WeightCodes(compensated(weight, scale, bits, moments), scale)
