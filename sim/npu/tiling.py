"""The best tiles, loop order and dataflow of a matrix product on an NPU."""

from __future__ import annotations

from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import VitruviusError
from ..systolic import Dataflow
from .gemm import Count, GemmWork, folds
from .schedule import (
    DIMS,
    ORDERS,
    Schedule,
    Tiling,
    evaluate,
    fits,
    kept,
    laid_names,
    scheduled,
    trips_of,
)
from .target import NpuTarget

Reals: TypeAlias = NDArray[np.float64]

__all__ = ["best_schedule", "check_extents"]

_LONGEST = 1 << 24
_MOST = 10**18
_SIZES = 24  # candidate tile sizes of an extent
_BATCH = 48  # tilings evaluated at once
_BATCHES = 8
_WORTH = 100  # one part in so many of the cycles is given up for less traffic


def best_schedule(work: GemmWork, target: NpuTarget, *, overlap: bool = True) -> Schedule:
    """The schedule with the least DRAM traffic among those that take at most 1 % longer than the
    fastest, with the target's dataflow or, where it says ``best``, the fastest of the three.

    The fastest is looked for in the order of a lower bound of the cycles, until the bound says that
    no other is faster or a fixed number is evaluated; nothing is random. Tiles are whole multiples
    of the array along its rows and columns and need not divide the product, so that a prime extent
    uses the array like its neighbours.

    Without overlap the cycles are SCALE-Sim's: every fold alone, memory never waits; the tiles are
    those that move the fewest bytes.

    Raises VitruviusError for an extent below 1, or a product too large to count.
    """
    check_extents(work)
    flow = target.array.dataflow
    flows = list(Dataflow) if flow == "best" else [Dataflow(flow)]
    found = [_best_of(work, target, flow, overlap) for flow in flows]
    return min(found, key=lambda s: (s.cycles, sum(s.dram_bytes.values())))


def check_extents(work: GemmWork) -> None:
    """Raises VitruviusError for an extent below 1, or a product too large to count in 64 bits."""
    extents = work.M, work.N, work.K, work.count
    text = f"{work.M} x {work.N} x {work.K}"
    if min(extents) < 1:
        raise VitruviusError(f"NPU: expected a product of at least 1 x 1 x 1, got {text}")
    if max(extents) > _LONGEST or prod(extents) > _MOST:
        raise VitruviusError(
            f"NPU: expected extents up to {_LONGEST:,} and at most {_MOST:.0e} "
            f"multiply-accumulates, got {text}"
        )


def _best_of(work: GemmWork, target: NpuTarget, flow: Dataflow, overlap: bool) -> Schedule:
    tiles, orders = _candidates(work, target, flow)
    bound, traffic = _bounds(work, target, tiles, orders, flow)
    frugal = np.lexsort((orders, -tiles.prod(1), bound, traffic))
    if overlap:
        fastest = _fastest(work, target, tiles, orders, flow, bound, traffic)
        within = fastest + fastest // _WORTH
    for start in range(0, len(frugal), _BATCH):
        chosen = frugal[start : start + _BATCH]
        if overlap:
            chosen = chosen[bound[chosen] <= within]
        if not len(chosen):
            continue
        costs = evaluate(work, target, tiles[chosen], orders[chosen], flow)
        fast = np.flatnonzero(costs.cycles <= within) if overlap else np.arange(1)
        if len(fast):
            row = int(fast[0])
            m, n, k = (int(size) for size in tiles[chosen[row]])
            tiling = Tiling(m, n, k, ORDERS[orders[chosen[row]]], flow)
            return scheduled(work, target, tiling, costs, row, overlap)
    raise AssertionError("the fastest candidate is one of them")


def _fastest(
    work: GemmWork,
    target: NpuTarget,
    tiles: Count,
    orders: Count,
    flow: Dataflow,
    bound: Reals,
    traffic: Reals,
) -> int:
    """Cycles of the fastest candidate: those with the lowest bound are evaluated until no other can
    be faster, or enough are.
    """
    ranked = np.lexsort((orders, -tiles.prod(1), traffic, bound))
    fastest = 0
    for start in range(0, min(len(ranked), _BATCH * _BATCHES), _BATCH):
        chosen = ranked[start : start + _BATCH]
        if fastest and bound[chosen[0]] >= fastest:
            break
        costs = evaluate(work, target, tiles[chosen], orders[chosen], flow)
        fastest = min(fastest or int(costs.cycles.max()), int(costs.cycles.min()))
    return fastest


def _candidates(work: GemmWork, target: NpuTarget, flow: Dataflow) -> tuple[Count, Count]:
    """Tiles [c, 3] that fit and the number of the loop order of each, without loop orders that
    differ only in loops of one step.
    """
    rows, cols = target.array.rows, target.array.cols
    units = dict(zip(laid_names(flow), (rows, cols, 0), strict=True))
    sizes = [
        _sizes(extent, units[dim], min(rows, cols))
        for dim, extent in zip(DIMS, (work.M, work.N, work.K), strict=True)
    ]
    grid = np.stack(np.meshgrid(*sizes, indexing="ij"), -1).reshape(-1, 3)
    grid = grid[fits(work, target, grid)]
    if not len(grid):
        raise VitruviusError(
            f"{target.target}: no tile of {work.M} x {work.N} x {work.K} with operands of "
            f"{work.input_bits} and {work.weight_bits} bits fits half of the buffers"
        )
    trips = trips_of(work, grid)
    tiles, orders = [], []
    for number, order in enumerate(ORDERS):
        steps = trips[:, [DIMS.index(dim) for dim in order]]
        one = steps == 1
        keep = np.ones(len(grid), bool)
        for outer in range(3):
            for inner in range(outer + 1, 3):
                keep &= ~(one[:, inner] & ~one[:, outer])
                if order[outer] > order[inner]:
                    keep &= ~(one[:, inner] & one[:, outer])
        tiles.append(grid[keep])
        orders.append(np.full(int(keep.sum()), number, np.int64))
    return np.concatenate(tiles), np.concatenate(orders)


def _sizes(extent: int, unit: int, shortest: int) -> Count:
    """Sizes of a tile along one extent, the whole extent first: multiples of ``unit`` that share
    the units evenly, or, streamed (unit 0), what shares the extent evenly down to ``shortest``.
    """
    units = -(-extent // unit) if unit else extent
    last = units if unit else -(-extent // shortest)
    found: list[int] = []
    number = 1
    while number <= last:
        size = min(extent, -(-units // number) * (unit or 1))
        if not found or size < found[-1]:
            found.append(size)
        number = max(number + 1, number + number // 12)
    smallest = min(extent, unit or shortest)
    if found[-1] > smallest:
        found.append(smallest)
    while len(found) > _SIZES:
        found = [*found[: _SIZES // 2], *found[_SIZES // 2 : -1 : 2], found[-1]]
    return np.array(found, np.int64)


def _bounds(
    work: GemmWork, target: NpuTarget, tiles: Count, orders: Count, flow: Dataflow
) -> tuple[Reals, Reals]:
    """A lower bound of the cycles of every candidate, and its bytes in DRAM."""
    rows, cols = target.array.rows, target.array.cols
    passes = target.passes(work.input_bits, work.weight_bits)
    trips = trips_of(work, tiles)
    m, n, k = tiles.T
    order = np.array([[DIMS.index(dim) for dim in text] for text in ORDERS])[orders]
    place = np.argsort(order, axis=1)  # of m, n, k among the loops
    nested = np.take_along_axis(trips, order, axis=1)
    visits = {}
    keeps = kept(work, target, tiles)
    for operand, other, keep in zip(
        ("inputs", "weights", "outputs"), (1, 0, 2), keeps, strict=True
    ):
        # Loops over what the operand does not depend on repeat it if one of its own is inside.
        inside = np.zeros(len(tiles), bool)
        for loop in range(3):
            mine = order[:, loop] != other
            inside |= mine & (nested[:, loop] > 1) & (loop > place[:, other])
        visits[operand] = np.where(inside & ~keep, trips[:, other], 1).astype(float)
    size = {
        "inputs": work.M * work.K * work.input_bits / 8 * _ratio(work.input_share),
        "weights": work.K * work.N * work.weight_bits / 8 * _ratio(work.weight_share),
        "outputs": work.M * work.N * work.output_bits / 8,
    }
    spilt = work.M * work.N * target.widths.accumulator / 8 * 2 * (visits["outputs"] - 1)
    moved = {"dram": np.zeros(len(tiles)), "chip": np.zeros(len(tiles))}
    moved[work.inputs] += size["inputs"] * visits["inputs"]
    moved[work.weights] += size["weights"] * visits["weights"]
    moved[work.outputs] += size["outputs"]
    moved["dram"] += spilt + work.M * work.N * work.side_bits[0] / 8
    moved["chip"] += work.M * work.N * work.side_bits[1] / 8
    last = tiles - (trips * tiles - np.array([work.M, work.N, work.K]))
    streamed = DIMS.index(laid_names(flow)[2])
    # The last fold of all waits for no load behind it.
    per_fold = (trips[:, streamed] - 1) * np.maximum(tiles[:, streamed] * passes, rows) + (
        np.maximum(last[:, streamed] * passes, rows)
    )
    number = folds(work.M, work.N, work.K, rows=rows, cols=cols, flow=flow)
    array = work.count * number * per_fold - rows
    vector = work.count * work.M * work.N / target.vector.lanes * work.epilogue
    first = {
        "dram": (
            (work.inputs == "dram") * m * k * work.input_bits / 8 * _ratio(work.input_share)
            + (work.weights == "dram") * k * n * work.weight_bits / 8 * _ratio(work.weight_share)
        )
    }
    rate = target.dram_bytes_per_cycle
    start = first["dram"] / rate
    dram = work.count * moved["dram"] / rate
    chip = work.count * moved["chip"] / target.buffers.activation_bytes_per_cycle
    bound = np.maximum.reduce([start + array, dram, chip, np.full(len(tiles), vector)])
    return np.floor(bound), work.count * moved["dram"]


def _ratio(share: tuple[int, int]) -> float:
    return share[0] / share[1]
