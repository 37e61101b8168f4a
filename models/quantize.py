"""From a float Graph and calibration images to an IntegerModel in scheme `edge`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import VitruviusError
from .calibration import observe
from .graph import Graph, Operator, execute
from .integer_model import IntegerModel, IntegerOperator, LayerQuality
from .lowering import Lowering
from .quantization_options import QuantizationOptions
from .weight_codes import encode_weights

__all__ = ["quantize"]


def quantize(
    graph: Graph,
    calibration: Tensor,
    *,
    name: str | None = None,
    options: QuantizationOptions | None = None,
) -> IntegerModel:
    """The integer model of ``graph``, calibrated on ``calibration`` [n, C, H, W] float images, with
    the widths and methods of ``options`` (`QuantizationOptions()` if None).

    Raises VitruviusError listing every operator without an integer form (with module path and
    source line), or naming the first layer whose weights or activations are not finite.
    """
    for key, tensor in graph.tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise VitruviusError(f"weights of {graph.name}: {key} holds NaN or Inf")
    options = options or QuantizationOptions()
    seen = observe(graph, calibration)
    weights = encode_weights(graph, calibration, options.weight_bits)
    lowering = Lowering(graph, seen, options, weights)
    lowering.run()
    model = IntegerModel(name or graph.name, tuple(lowering.emitted), lowering.tensors)
    quality = _quality(model, graph, calibration)
    return IntegerModel(model.name, model.operators, model.tensors, quality)


def _quality(model: IntegerModel, graph: Graph, images: Tensor) -> tuple[LayerQuality, ...]:
    """SQNR of every operator that has a float counterpart, on at most 64 of the calibration
    images.
    """
    images = images[:64]
    wanted = {operator.origin for operator in model.operators if operator.origin}
    floats: dict[str, Tensor] = {}

    def look(operator: Operator, value: Tensor) -> None:
        if operator.name in wanted:
            floats[operator.name] = value.detach().to(torch.float64)

    execute(graph, images, observe=look)
    rows: list[LayerQuality] = []

    def compare(operator: IntegerOperator, codes: Tensor) -> None:
        if operator.origin not in floats:
            return
        value = floats[operator.origin]
        if operator.kind == "Attention":
            value = value.transpose(1, 2)
        value = value.reshape(codes.shape)
        noise = float(((codes * operator.scale - value) ** 2).sum())
        signal = float((value**2).sum())
        top = (1 << (operator.bits - 1)) - 1
        rows.append(
            LayerQuality(
                name=operator.name,
                kind=operator.kind,
                bits=operator.bits,
                scale=operator.scale,
                sqnr_db=round(10 * math.log10(signal / noise), 3) if noise and signal else math.inf,
                clipped=float(((codes >= top) | (codes <= -top - 1)).double().mean()),
            )
        )

    model.run(images, observe=compare)
    return tuple(rows)
