"""Ranges of float tensors on calibration images, and the scales that follow from them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import VitruviusError
from .graph import Graph, Operator, execute

__all__ = ["Observations", "mean_square_scale", "observe"]

_SAMPLES = 1 << 16


class Observations:
    """What calibration saw of every operator's float output: the largest magnitude and a fixed
    sample of values.
    """

    def __init__(self, largest: dict[str, float], samples: dict[str, Tensor]) -> None:
        self.largest = largest
        self.samples = samples


def observe(graph: Graph, images: Tensor) -> Observations:
    """Runs ``graph`` in float on calibration ``images`` [n, C, H, W].

    Raises VitruviusError if an image or an activation is not finite (the first layer where that
    happens).
    """
    if not bool(torch.isfinite(images).all()):
        raise VitruviusError("calibration images: expected finite values, found NaN or Inf")
    largest: dict[str, float] = {}
    samples: dict[str, Tensor] = {}

    def look(operator: Operator, value: Tensor) -> None:
        if not value.is_floating_point():
            return
        flat = value.detach().flatten()
        if not bool(torch.isfinite(flat).all()):
            raise VitruviusError(
                f"calibration: {operator.kind} '{operator.name}' ({operator.path or 'root'}) "
                "produced NaN or Inf"
            )
        largest[operator.name] = float(flat.abs().max()) if flat.numel() else 0.0
        step = max(1, flat.numel() // _SAMPLES)
        samples[operator.name] = flat[::step].to(torch.float64)

    with torch.no_grad():
        execute(graph, images, observe=look)
    return Observations(largest, samples)


def mean_square_scale(values: Tensor, bits: int) -> float:
    """The scale of symmetric ``bits`` wide codes with the least mean square error on ``values``
    (1-D float64).

    Clipping thresholds from 30 % to 100 % of the largest magnitude are tried (MSE calibration, as
    in Banner et al., arXiv 1810.05723, by search instead of by formula).
    """
    largest = float(values.abs().max()) if values.numel() else 0.0
    if largest == 0.0:
        return 1.0
    top = (1 << (bits - 1)) - 1
    best_scale, best_error = largest / top, float("inf")
    for percent in range(100, 29, -2):
        scale = largest * percent / 100 / top
        codes = torch.round(values / scale).clamp(-top - 1, top)
        error = float(((codes * scale - values) ** 2).sum())
        if error < best_error:
            best_scale, best_error = scale, error
    return best_scale
