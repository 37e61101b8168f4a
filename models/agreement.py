"""Whether the integer model decides as the float graph does, on images it was not calibrated on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .calibration import batches, few
from .graph import Graph, execute
from .integer_model import IntegerModel

__all__ = ["Agreement", "agreement", "hold_out"]

_MACS = 6e11
_LEAST_FOR_HOLDING_OUT = 5


@dataclass(frozen=True)
class Agreement:
    """images: how many were compared. top1: share of them whose largest output is the same, 0 to
    1. sqnr_db: the outputs' signal to quantization noise.
    """

    images: int
    top1: float
    sqnr_db: float


def agreement(model: IntegerModel, graph: Graph, images: Tensor) -> Agreement | None:
    """Compares both on as many of ``images`` [n, C, H, W] as 6e11 multiply-accumulates allow.

    None if the output is not one row of at least two logits.
    """
    output = graph.operator(graph.outputs[0]).output.shape
    if len(output) != 2 or output[-1] < 2:
        return None
    sample = few(graph, images, macs=_MACS)
    same, signal, noise = 0, 0.0, 0.0
    for part in batches(graph, sample):
        exact = execute(graph, part).to(torch.float64)
        logits = model.logits(part)
        same += int((exact.argmax(-1) == logits.argmax(-1)).sum())
        signal += float(exact.square().sum())
        noise += float((logits - exact).square().sum())
    sqnr = 10 * math.log10(signal / noise) if signal and noise else math.inf
    return Agreement(len(sample), same / len(sample), sqnr)


def hold_out(images: Tensor) -> tuple[Tensor, Tensor]:
    """(to calibrate on, to compare on): the last fifth is held out, nothing of fewer than 5."""
    if len(images) < _LEAST_FOR_HOLDING_OUT:
        return images, images[:0]
    held = len(images) // 5
    return images[:-held], images[-held:]
