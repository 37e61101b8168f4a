"""Rewrite rules from ATen operators to the words of the graph, one function each, registered on
import.
"""

from __future__ import annotations

from . import (
    activations,
    attention,
    convolution,
    einsum,
    linear,
    normalisation,
    pointwise,
    pooling,
    reductions,
    routing,
    shape,
    window,
)

__all__ = [
    "activations",
    "attention",
    "convolution",
    "einsum",
    "linear",
    "normalisation",
    "pointwise",
    "pooling",
    "reductions",
    "routing",
    "shape",
    "window",
]
