"""A small Vision Transformer for scikit-learn's 8 x 8 digits."""

from __future__ import annotations

from . import ZOO
from .vit import VisionTransformer

__all__ = ["VIT_DIGITS", "vit_digits"]

VIT_DIGITS = ZOO["vit_digits"].config


def vit_digits() -> VisionTransformer:
    """The untrained model: 8 x 8 grey images, 17 tokens of 64, 4 heads, 4 blocks, 10 classes."""
    return VisionTransformer(VIT_DIGITS)
