"""Exact integer matrix products: plain int64, and through BLAS where a bound makes floats exact.

PyTorch has no fast int64 product. A float product of integers is exact, whatever the order of its
sums and with or without fused multiply-add, if no sum of absolute products can exceed the largest
integer up to which every integer has a float: 2**24 in float32, 2**53 in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["accumulator_type", "matmul", "matmul_reference", "product_bound"]


def accumulator_type(bound: int) -> torch.dtype:
    """The fastest type in which sums of absolute products up to ``bound`` are exact.

    float32 counts only while PyTorch computes its products in full precision
    (``torch.set_float32_matmul_precision``).

    >>> [accumulator_type(bound) for bound in (1 << 24, (1 << 24) + 1, 1 << 54)]
    [torch.float32, torch.float64, torch.int64]
    """
    if bound <= 1 << 24 and torch.get_float32_matmul_precision() == "highest":
        return torch.float32
    if bound <= 1 << 53:
        return torch.float64
    return torch.int64


def product_bound(codes: Tensor, largest: int) -> int:
    """The largest sum of absolute products of a column of ``codes`` [..., K, N] (integers) with
    K integers of magnitude ``largest`` at most.
    """
    if codes.numel() == 0:
        return 0
    return int(codes.to(torch.int64).abs().sum(-2).max()) * largest


def matmul_reference(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of int64 tensors in int64: the definition, slow.

    >>> matmul_reference(torch.tensor([[3, -4]]), torch.tensor([[5], [6]])).tolist()
    [[-9]]
    """
    return torch.matmul(a, b)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of int64 tensors, equal to `matmul_reference`, through the fastest exact type.

    >>> matmul(torch.tensor([[3, -4]]), torch.tensor([[5], [6]])).tolist()
    [[-9]]
    """
    largest = max(abs(int(a.min())), abs(int(a.max()))) if a.numel() else 0
    kind = accumulator_type(product_bound(b, largest))
    return torch.matmul(a.to(kind), b.to(kind)).to(torch.int64)
