"""Seeded tensors, ``conv2d`` with each readout, and the distance of two results."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["normal", "reference", "relative"]


def reference(
    images: Tensor,
    weight: Tensor,
    readout: str,
    stride: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """conv2d with explicit padding; "same" puts (k - 1) // 2 before and k // 2 after."""
    kh, kw = weight.shape[-2:]
    pad = {
        "valid": (0, 0, 0, 0),
        "same": ((kw - 1) // 2, kw // 2, (kh - 1) // 2, kh // 2),
        "full": (kw - 1, kw - 1, kh - 1, kh - 1),
    }[readout]
    return functional.conv2d(functional.pad(images, pad), weight, stride=stride, groups=groups)


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def relative(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape
    return float((got - wanted).detach().norm() / wanted.norm())
