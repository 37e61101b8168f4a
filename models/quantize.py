"""From a float Graph and calibration images to an IntegerModel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import VitruviusError
from .bias_correction import correct_biases
from .calibration import few, masks_of, observe, together
from .comparison import measure
from .equalisation import Equalised, equalise
from .graph import Graph
from .integer_model import IntegerModel
from .lowering import Lowering
from .lowering_ivit import IvitLowering
from .quantization_options import QuantizationOptions
from .tasks import graphs_of
from .weight_codes import encode_gates, encode_weights

__all__ = ["Quantization", "quantization", "quantize"]

_SIDE_BY_SIDE_MACS = 2e10
_SIDE_BY_SIDE_IMAGES = 8
"""Work spent on comparing both models and correcting biases, but at least 8 images."""


@dataclass(frozen=True)
class Quantization:
    """An integer model, and which tensors were equalised on the way to it."""

    model: IntegerModel
    equalised: tuple[Equalised, ...]


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
    return quantization(graph, calibration, name=name, options=options).model


def quantization(
    graph: Graph,
    calibration: Tensor,
    *,
    name: str | None = None,
    options: QuantizationOptions | None = None,
) -> Quantization:
    """Like `quantize`, with what was done to the float graph first."""
    masks = {key for name in masks_of(graph) for key in graph.operator(name).tensors.values()}
    for key, tensor in graph.tensors.items():
        if key in masks:
            tensor = tensor.clamp(min=0)  # minus infinity is a value there
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise VitruviusError(f"weights of {graph.name}: {key} holds NaN or Inf")
    options = options or QuantizationOptions()
    equalised: tuple[Equalised, ...] = ()
    if options.equalise:
        graph, equalised = equalise(graph, calibration, options)
    first, *others = graphs_of(graph)
    seen = together([observe(item, calibration) for item in (first, *others)])
    weights = encode_weights(first, calibration, options.weight_bits)
    gates = [encode_gates(item, options.weight_bits) for item in others]
    walk = IvitLowering if options.scheme == "ivit" else Lowering
    lowering = walk(first, seen, options, weights, gates)
    lowering.run()
    model = IntegerModel(name or graph.name, tuple(lowering.emitted), lowering.tensors)
    sample = few(first, calibration, macs=_SIDE_BY_SIDE_MACS, least=_SIDE_BY_SIDE_IMAGES)
    if not options.bias_correction:
        return Quantization(measure(model, first, sample, lowering.products), equalised)
    model = correct_biases(model, first, sample, lowering.products)
    for task, item in enumerate(others, 1):
        # The layers that all tasks share are corrected already.
        own = {operator.name for operator in model.operators if operator.tasks > 1}
        view = correct_biases(model.for_task(task), item, sample, lowering.products, own)
        model = IntegerModel(
            model.name, model.operators, {**model.tensors, **view.tensors}, model.quality
        )
    return Quantization(model, equalised)
