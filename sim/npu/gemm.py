"""A matrix product on the systolic array: folds, what a fold takes, and what it reads and writes.

A product [M, K] x [K, N] is cut into folds as in `sim.systolic`; ``ws``, ``os`` and ``is`` lay
K x N, M x N and K x M over rows x cols of the array and stream M, K and N. There, and here without
overlap, every fold pays for its own load, fill and drain. With overlap:

- *load* (``ws``, ``is``): every cell has a second register, into which the next fold's operand is
  pushed, a row a cycle, while this fold streams. A fold of T streamed rows takes ``max(T, rows)``,
  the last one T; only the first load of a product is not hidden.
- *read-out* (``os``): a column's sums complete one a cycle, thanks to the skew, and leave by the
  column's bus while the next fold streams: again ``max(T, rows)``.
- *fill* and *drain*, ``rows - 1`` and ``cols - 1``: folds follow each other without a gap, so they
  are paid once.
- Ragged folds take as long as full ones along rows and columns, and stream only what there is.

So ``ideal <= overlapped <= SCALE-Sim`` for one tile. All functions take whole numbers or arrays of
them, as numpy broadcasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..systolic import Dataflow

__all__ = [
    "Accesses",
    "Count",
    "GemmWork",
    "Place",
    "accesses",
    "folds",
    "laid",
    "pieces",
    "steady",
]

Count: TypeAlias = NDArray[np.int64]
Place = Literal["dram", "chip"]
"""Where an operand comes from or goes to: external memory, or the activation buffer."""


@dataclass(frozen=True)
class GemmWork:
    """``count`` products [M, K] x [K, N] that one operator asks of the array, one after another.

    macs: useful multiply-accumulates of all of them. bits and places: of the streamed input, the
    weights (any right operand) and the output. input_share, weight_share: bytes fetched for each
    byte of the operand in the buffer, as a fraction (a convolution's windows overlap; zeros of a
    block-diagonal operand are not stored). epilogue: cycles of a vector lane for each output;
    epilogue_latency: until the first is done. side_bits: bits fetched for each output by fused
    operators, from DRAM and from the activation buffer.
    """

    M: int
    N: int
    K: int
    count: int
    macs: int
    input_bits: int = 8
    weight_bits: int = 8
    output_bits: int = 8
    inputs: Place = "dram"
    weights: Place = "dram"
    outputs: Place = "dram"
    input_share: tuple[int, int] = (1, 1)
    weight_share: tuple[int, int] = (1, 1)
    epilogue: int = 0
    epilogue_latency: int = 0
    side_bits: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Accesses:
    """Elements that the array reads from and writes to its buffers in one product."""

    input_reads: int
    weight_reads: int
    output_reads: int
    output_writes: int


def laid(
    m: Count | int, n: Count | int, k: Count | int, flow: Dataflow
) -> tuple[Count | int, Count | int, Count | int]:
    """The extents along rows, along columns, and streamed."""
    if flow is Dataflow.OUTPUT:
        return m, n, k
    return (k, n, m) if flow is Dataflow.WEIGHT else (k, m, n)


def folds(
    m: Count | int, n: Count | int, k: Count | int, *, rows: int, cols: int, flow: Dataflow
) -> Count:
    """Array-fulls of the operand that lies in the cells.

    >>> int(folds(197, 576, 192, rows=16, cols=16, flow=Dataflow.WEIGHT))
    432
    """
    along_rows, along_cols, _ = laid(m, n, k, flow)
    return np.asarray(-(-along_rows // rows) * -(-along_cols // cols), np.int64)


def steady(
    m: Count | int,
    n: Count | int,
    k: Count | int,
    *,
    rows: int,
    cols: int,
    flow: Dataflow,
    passes: int = 1,
) -> tuple[Count, Count]:
    """Cycles in which the folds of a tile stream, and those in which the array waits for the next
    load (``ws``, ``is``) or for the read-out (``os``).
    """
    number = folds(m, n, k, rows=rows, cols=cols, flow=flow)
    streamed = np.asarray(laid(m, n, k, flow)[2], np.int64) * passes
    return number * streamed, number * np.maximum(rows - streamed, 0)


def accesses(
    M: int, N: int, K: int, tile: tuple[int, int, int], *, rows: int, cols: int, flow: Dataflow
) -> Accesses:
    """Elements read and written in the buffers, as SCALE-Sim counts them (its ``os`` output count,
    which grows by an array edge a fold, excepted), summed over tiles; reads of partial sums that
    are added to are counted too, and one read of every output that leaves.

    >>> accesses(197, 576, 192, (197, 576, 192), rows=16, cols=16, flow=Dataflow.WEIGHT)
    Accesses(input_reads=1361664, weight_reads=110592, output_reads=1361664, output_writes=1361664)
    """
    m, n, k = tile
    cut_m, cut_n, cut_k = (-(-whole // part) for whole, part in zip((M, N, K), tile, strict=True))
    if flow is Dataflow.OUTPUT:
        reads = M * K * pieces(N, n, cols), K * N * pieces(M, m, rows)
        partial = cut_k
    elif flow is Dataflow.WEIGHT:
        reads = M * K * pieces(N, n, cols), K * N * cut_m
        partial = pieces(K, k, rows)
    else:
        reads = M * K * cut_n, K * N * pieces(M, m, cols)
        partial = pieces(K, k, rows)
    return Accesses(*reads, output_reads=M * N * partial, output_writes=M * N * partial)


def pieces(whole: int, tile: int, edge: int) -> int:
    """Pieces of ``edge`` in the tiles of ``tile`` that make up ``whole``.

    >>> pieces(197, 64, 16)  # 4 + 4 + 4 + 1
    13
    """
    full, rest = divmod(whole, tile)
    return full * -(-tile // edge) + -(-rest // edge)
