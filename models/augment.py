"""Random changes to training images that leave their labels true; all draw from torch's global
generator, so that a seeded run repeats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .datasets import BlendParts, blend, cut

__all__ = ["Warp", "blended", "mixed", "warped"]

_MIXUP = 0.2
_LATTICE = 5
_GAIN = 0.3


@dataclass(frozen=True)
class Warp:
    """Bounds of the random maps of ``warped``: an angle in radians, shares of the image's size, and
    pixels; ``bend_pixels`` is the standard deviation of a smooth displacement, 0 for none.
    """

    rotation: float = math.radians(15)
    scaling: float = 0.15
    shear: float = 0.2
    shift_pixels: float = 1.0
    bend_pixels: float = 0.0


def warped(images: Tensor, warp: Warp) -> Tensor:
    """Each image [n, C, H, W] turned, scaled, sheared, shifted and bent a little, zeros coming in
    at the borders.
    """
    count, _, height, width = images.shape

    def spread(bound: float) -> Tensor:
        return (2 * torch.rand(count) - 1) * bound

    angle, scale, shear = spread(warp.rotation), 1 + spread(warp.scaling), spread(warp.shear)
    shift = 2 * warp.shift_pixels / width
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = torch.stack([cosine, shear - sine, spread(shift), sine, cosine, spread(shift)], dim=1)
    grid = functional.affine_grid(
        rows.reshape(count, 2, 3), list(images.shape), align_corners=False
    )
    if warp.bend_pixels:
        # elastic distortion (Simard et al. 2003), smoothed by interpolating a coarse lattice
        lattice = torch.randn(count, 2, _LATTICE, _LATTICE) * (2 * warp.bend_pixels / width)
        bend = functional.interpolate(
            lattice, size=(height, width), mode="bicubic", align_corners=True
        )
        grid = grid + bend.permute(0, 2, 3, 1)
    return functional.grid_sample(images, grid, align_corners=False)


def mixed(images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al. 2018): each image blended with another; targets float32 [n, classes]."""
    share = torch.distributions.Beta(_MIXUP, _MIXUP).sample((len(labels), 1))
    share = torch.maximum(share, 1 - share)
    other = torch.randperm(len(labels))
    targets = functional.one_hot(labels, classes).to(images.dtype)
    weight = share[:, :, None, None]
    return weight * images + (1 - weight) * images[other], share * targets + (1 - share) * targets[
        other
    ]


def blended(parts: BlendParts, index: Tensor, warp: Warp, contrast: float = 1.0) -> Tensor:
    """The digits at ``index`` [n], warped, each on a square cut anew from the photographs:
    [n, 3, 28, 28], pixels 0 to 1.

    Squares are mirrored, their channels permuted and scaled by up to 30 %, for two photographs hold
    few colours. ``contrast`` from 0 to 1 darkens them: at 0 the digits are white on black.
    """
    count, size = len(index), parts.digits.shape[-1]
    backgrounds = cut(parts.photographs, count, size, None)
    for axis in (2, 3):
        mirror = torch.rand(count) < 0.5
        backgrounds[mirror] = backgrounds[mirror].flip(axis)
    order = torch.rand(count, backgrounds.shape[1]).argsort(dim=1)
    backgrounds = backgrounds[torch.arange(count)[:, None], order]
    gain = 1 + (2 * torch.rand(count, backgrounds.shape[1], 1, 1) - 1) * _GAIN
    backgrounds = (backgrounds * gain).clamp(0, 1) * contrast
    return blend(warped(parts.digits[index], warp).clamp(0, 1), backgrounds)
