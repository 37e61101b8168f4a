"""A small Vision Transformer for scikit-learn's 8 x 8 digits."""

from __future__ import annotations

from .vit import VisionTransformer, VisionTransformerConfig

__all__ = ["VIT_DIGITS", "vit_digits"]

VIT_DIGITS = VisionTransformerConfig(
    image_size=8,
    patch_size=2,
    channels=1,
    classes=10,
    dim=64,
    depth=4,
    heads=4,
    norm_eps=1e-5,
)


def vit_digits() -> VisionTransformer:
    """The untrained model: 8 x 8 grey images, 17 tokens of 64, 4 heads, 4 blocks, 10 classes."""
    return VisionTransformer(VIT_DIGITS)
