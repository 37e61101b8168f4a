"""Arithmetic modulo 2^64 on torch's int64, which wraps around: fixed-point numbers, and products of
matrices and convolutions.

Torch's own product of int64 matrices runs at the speed of float64 BLAS where the processor
multiplies 64-bit integers in vectors (AVX-512), and needs no limbs; see
``benchmarks/mpc_compute.py``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["RING_BITS", "convolve", "decode", "encode", "sign_bit", "truncate"]

RING_BITS = 64


def encode(values: Tensor, fraction_bits: int) -> Tensor:
    """Floats as fixed-point numbers, rounded to the nearest: int64."""
    return (values.double() * 2.0**fraction_bits).round().to(torch.int64)


def decode(words: Tensor, fraction_bits: int) -> Tensor:
    """Fixed-point numbers as float64."""
    return words.double() / 2.0**fraction_bits


def truncate(words: Tensor, bits: int) -> Tensor:
    """Words over 2^bits, rounded towards zero: what each party does to its own share.

    The sum of two truncated shares is the truncated value or one off, unless the shares wrapped,
    which happens with probability |value| / 2^64 for uniform shares (spec of CrypTen).
    """
    if bits == 0:
        return words
    return (words + ((words >> (RING_BITS - 1)) & ((1 << bits) - 1))) >> bits


def sign_bit(words: Tensor) -> Tensor:
    """The highest bit as 0 or 1."""
    return (words >> (RING_BITS - 1)) & 1


def convolve(
    x: Tensor,
    weight: Tensor,
    *,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """[B, C, H, W] by [O, C / groups, kh, kw] to [B, O, H', W'] modulo 2^64, zeros around."""
    x = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    kernel = (weight.shape[2], weight.shape[3])
    height, width = (
        (size - apart * (length - 1) - 1) // step + 1
        for size, length, step, apart in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    )
    windows = _windows(x, kernel, stride, dilation)
    batch, _, places = windows.shape
    windows = windows.reshape(batch, groups, -1, places)
    rows = weight.reshape(groups, weight.shape[0] // groups, -1)
    return torch.matmul(rows, windows).reshape(batch, weight.shape[0], height, width)


def _windows(
    x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> Tensor:
    """Windows of [B, C, H, W], which is padded already: [B, C * kh * kw, H' * W']."""
    for axis, (size, step, apart) in enumerate(zip(kernel, stride, dilation, strict=True), 2):
        spread = apart * (size - 1) + 1
        x = x.unfold(axis, spread, step)
        x = x[..., ::apart]
    batch, channels, height, width = x.shape[:4]
    order = x.permute(0, 1, 4, 5, 2, 3)
    return order.reshape(batch, channels * math.prod(kernel), height * width)
