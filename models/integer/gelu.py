"""GELU as ``relu(x) - delta(|x|)`` with a table of delta (the idea is Edge-MoE's, arXiv
2305.18691).

``delta(a) = a - gelu(a)`` is even and vanishes beyond 5.5. The table holds it at steps of 1/32
and is interpolated linearly, which is exact to 1e-4 (step**2 / 8 * max|delta''|).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "DELTA_FRACTION",
    "DELTA_LIMIT",
    "FRACTION",
    "STEP_FRACTION",
    "WIDTH",
    "delta_table",
    "gelu",
    "rectified",
]

WIDTH = 16
"""Bits of input and output codes."""
FRACTION = 10
"""Fraction bits of input and output: a code is ``x * 2**10``, range -32 to 32."""
STEP_FRACTION = 5
"""The table's step is ``2**-5``."""
DELTA_FRACTION = 14
"""Fraction bits of a table entry."""
DELTA_LIMIT = 176
"""Table index (in steps) from which delta is taken as zero: 5.5 * 32."""


def delta_table() -> list[int]:
    """The 177 entries ``round(delta(i / 32) * 2**14)``, i = 0 to 176; delta from the exact erf
    GELU.
    """
    entries = []
    for index in range(DELTA_LIMIT + 1):
        a = index / (1 << STEP_FRACTION)
        delta = a * 0.5 * math.erfc(a / math.sqrt(2))
        entries.append(round(delta * (1 << DELTA_FRACTION)))
    return entries


_TABLE = torch.tensor(delta_table(), dtype=torch.int64)


def rectified(x: Tensor, table: Tensor) -> Tensor:
    """``relu(x) - delta(|x|)`` of 16-bit codes with 10 fraction bits, same format out; int64.

    ``table``: int64, delta at steps of 1/32 in 14 fraction bits, interpolated linearly; zero from
    its last entry on.
    """
    interval = FRACTION - STEP_FRACTION
    limit = len(table) - 1
    magnitude = x.abs()
    index = magnitude >> interval
    inside = index < limit
    index = index.clamp(max=limit - 1)
    part = magnitude & ((1 << interval) - 1)
    mix = table[index] * ((1 << interval) - part) + table[index + 1] * part
    drop = interval + DELTA_FRACTION - FRACTION
    delta = (mix + (1 << (drop - 1))) >> drop
    return x.clamp(min=0) - torch.where(inside, delta, 0)


def gelu(x: Tensor) -> Tensor:
    """GELU of 16-bit codes with 10 fraction bits; same format out.

    >>> gelu(torch.tensor([-1024, 0, 1024, 32767])).tolist()
    [-162, 0, 862, 32767]
    """
    return rectified(x, _TABLE)
