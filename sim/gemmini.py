"""Cycles of a matrix product on Gemmini, with the tiles that its own library chooses.

Gemmini (Genc et al., DAC 2021) is a weight stationary array behind a scratchpad and an accumulator.
Its library cuts a product [M, K] x [K, N] into tiles, loads one while it computes another, and
writes a tile of the output when its last part is accumulated. The model here has three parts, and
no constant that was fitted to a measurement:

1. *Tiles* (`tile`), by the library's rule: half of each memory holds the tile at work, the other
   half the next one.
2. *Array*: a block of ``dim`` x ``dim`` weights meets ``dim`` rows of inputs in ``dim`` cycles; the
   next block's weights load meanwhile, in the second register of every cell.
3. *Memory*: ``memory_bytes_per_cycle`` for reads and writes together.

``cycles = load(0) + weights + sum(max(array(t), load(t + 1) + store(t - 1))) + drain + store(-1)``

over tiles t in the library's order (M outermost, then N, then K); ``weights`` is the first block's
load, ``dim`` cycles; ``drain`` the skew of the array, ``2 (dim - 1)``; ``store(-1)`` the last
tile's. Left out: what slows long products (latency and refresh of the memory, misses when addresses
are translated, the instructions that steer the array) and what quickens short ones (a cache between
memory and scratchpad).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil, isqrt

from ..errors import VitruviusError

__all__ = ["Gemmini", "Tile", "gemmini_cycles", "tile"]


@dataclass(frozen=True)
class Gemmini:
    """Sizes of the accelerator; the defaults are those of Gemmini's default configuration.

    dim: rows and columns of the array. scratchpad_bytes: of 8-bit inputs and weights;
    accumulator_bytes: of 32-bit sums. memory_bytes_per_cycle: 8, the bandwidth of the DRAM in
    DOSA's description of Gemmini (``arch.yaml``, ``shared_bandwidth``), whose measurements this is
    compared with.
    """

    dim: int = 16
    scratchpad_bytes: int = 256 * 1024
    accumulator_bytes: int = 64 * 1024
    memory_bytes_per_cycle: int = 8

    def __post_init__(self) -> None:
        if self.output_blocks < 1 or self.input_blocks < 2 * isqrt(self.output_blocks):
            raise VitruviusError(
                f"Gemmini: half of the scratchpad ({self.scratchpad_bytes} bytes) does not hold "
                f"the inputs of half of the accumulator ({self.accumulator_bytes} bytes)"
            )

    @property
    def input_blocks(self) -> int:
        """Blocks of ``dim`` x ``dim`` inputs and weights in half of the scratchpad."""
        return self.scratchpad_bytes // 2 // self.dim**2

    @property
    def output_blocks(self) -> int:
        """Blocks of sums in half of the accumulator."""
        return self.accumulator_bytes // 2 // (4 * self.dim**2)


@dataclass(frozen=True)
class Tile:
    """Extents of a tile: rows of the input, columns of the weights, and what they share."""

    M: int
    N: int
    K: int


def tile(M: int, N: int, K: int, config: Gemmini | None = None) -> Tile:
    """The tile of Gemmini's library for [M, K] x [K, N], in multiples of ``dim``.

    In blocks of ``dim`` x ``dim``: a square of outputs as large as half the accumulator holds, and
    as much of K as a quarter of the scratchpad holds beside it; then N, M and K grow by a block in
    turns while inputs and weights fit half the scratchpad and outputs half the accumulator.
    (``tiled_matmul_auto`` in ucb-bar/gemmini-rocc-tests.)

    >>> tile(128, 768, 768)
    Tile(M=80, N=80, K=768)
    """
    config = config or Gemmini()
    need = [_blocks(extent, config) for extent in (M, N, K)]
    inputs, outputs = config.input_blocks, config.output_blocks
    side = isqrt(outputs)
    now = [min(need[0], side), min(need[1], side), min(need[2], inputs // 2 // side)]

    def fits(m: int, n: int, k: int) -> bool:
        inside = m <= need[0] and n <= need[1] and k <= need[2]
        return inside and (m + n) * k <= inputs and m * n <= outputs

    grown = True
    while grown:
        grown = False
        for axis in (1, 0, 2):
            larger = [*now[:axis], now[axis] + 1, *now[axis + 1 :]]
            if fits(*larger):
                now, grown = larger, True
    return Tile(*(blocks * config.dim for blocks in now))


def gemmini_cycles(M: int, N: int, K: int, config: Gemmini | None = None) -> int:
    """Predicted cycles of an int8 product [M, K] x [K, N] with int8 outputs and no bias.

    Raises VitruviusError for an extent below 1.

    >>> gemmini_cycles(16, 16, 16)
    158
    """
    if min(M, N, K) < 1:
        raise VitruviusError(
            f"Gemmini: expected a product of at least 1 x 1 x 1, got {M} x {N} x {K}"
        )
    config = config or Gemmini()
    cut = tile(M, N, K, config)
    pieces = [_cut(M, cut.M), _cut(N, cut.N), _cut(K, cut.K)]
    loads, arrays, stores = [], [], []
    for m, n, (place, k) in product(pieces[0], pieces[1], enumerate(pieces[2])):
        loads.append(_transfer((m + n) * k, config))
        blocks = _blocks(m, config) * _blocks(n, config) * _blocks(k, config)
        arrays.append(blocks * config.dim)
        complete = place == len(pieces[2]) - 1
        stores.append(_transfer(m * n, config) if complete else 0)
    hidden = zip(arrays, [*loads[1:], 0], [0, *stores[:-1]], strict=True)
    steady = sum(max(array, load + store) for array, load, store in hidden)
    weights, drain = config.dim, 2 * (config.dim - 1)
    return loads[0] + weights + steady + drain + stores[-1]


def _blocks(extent: int, config: Gemmini) -> int:
    return ceil(extent / config.dim)


def _cut(extent: int, piece: int) -> list[int]:
    return [min(piece, extent - start) for start in range(0, extent, piece)]


def _transfer(size: int, config: Gemmini) -> int:
    return ceil(size / config.memory_bytes_per_cycle)
