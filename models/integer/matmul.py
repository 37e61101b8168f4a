"""Exact integer matrix product through float64 BLAS (PyTorch has no fast int64 one)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["matmul"]


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of int64 tensors whose sums of absolute products stay below 2**53: then float64
    is exact.

    Every accumulator here is proven to fit 32 bits when an IntegerModel is built, far inside that
    bound.

    >>> matmul(torch.tensor([[3, -4]]), torch.tensor([[5], [6]])).tolist()
    [[-9]]
    """
    return torch.matmul(a.to(torch.float64), b.to(torch.float64)).to(torch.int64)
