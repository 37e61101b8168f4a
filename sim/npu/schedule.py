"""What a matrix product costs with given tiles, loop order and dataflow.

A product is cut into tiles that fit half of each buffer. While the array works on tile t, the DMA
fetches what tile t + 1 needs and is not there yet, the vector unit finishes what left the
accumulators after tile t - 1, and the DMA stores that:

``cycles = first load + load of the cells + sum over t of max(array(t), memory(t), vector(t - 1))
+ fill + drain + last output``

``memory(t)`` is DRAM's latency plus bytes over its bandwidth, or the activation buffer's bytes over
its own, whichever is longer. An operand stays when the next tile uses it too, and all of it stays
if half of its buffer holds it whole; what a loop order else brings back is fetched again. Sums that
are not complete when their tile leaves stay likewise, or go to DRAM with the accumulators' width
and come back.

The loops (outermost: the products of an operator, such as heads) have at most four kinds of step
each: first, inner, last but one, last. `evaluate` therefore sums up to 4^4 steps with their
multiplicities, exactly, for many tilings at once; nothing is simulated or fitted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import VitruviusError
from ..systolic import Dataflow, scalesim_cycles
from .gemm import Accesses, Count, GemmWork, accesses, folds, laid, pieces, steady
from .target import NpuTarget

Flags: TypeAlias = NDArray[np.bool_]

__all__ = [
    "DIMS",
    "ORDERS",
    "Costs",
    "Flags",
    "Schedule",
    "Tiling",
    "evaluate",
    "fits",
    "kept",
    "laid_names",
    "schedule_of",
    "scheduled",
    "trips_of",
]

DIMS = "mnk"
ORDERS = tuple("".join(order) for order in permutations(DIMS))
"""Loops over tiles, outermost first."""
_STEPS = np.array(list(product(range(4), repeat=4)), np.int64)  # kind of step in each of 4 loops

_CAUSES = ("memory: DRAM", "memory: activation buffer", "vector unit")
_OPERANDS = ("inputs", "weights", "outputs", "sums", "side")


@dataclass(frozen=True)
class Tiling:
    """Extents of a full tile, the loops over tiles from outermost to innermost, and the dataflow.

    >>> Tiling(197, 64, 192, "nmk", Dataflow.WEIGHT).text
    '197 x 64 x 192, nmk, ws'
    """

    m: int
    n: int
    k: int
    order: str
    dataflow: Dataflow

    @property
    def text(self) -> str:
        """The tiling in a few characters: M x N x K of a tile, order, dataflow."""
        return f"{self.m} x {self.n} x {self.k}, {self.order}, {self.dataflow.value}"


@dataclass(frozen=True)
class Schedule:
    """What the products of one operator cost with one tiling.

    cycles: of all; product_cycles: those in which the array streams; lost: the others, by cause,
    which make up the rest. dram_bytes, chip_bytes: moved to or from DRAM and the activation
    buffer, by operand; ``sums`` are incomplete, out and back. tiles, folds: how many. accesses: of
    the array, all products. vector_cycles: in which the vector unit works, hidden or not.
    """

    work: GemmWork
    tiling: Tiling
    cycles: int
    product_cycles: int
    lost: dict[str, int]
    dram_bytes: dict[str, int]
    chip_bytes: dict[str, int]
    tiles: int
    folds: int
    accesses: Accesses
    vector_cycles: int
    passes: int = 1


def schedule_of(
    work: GemmWork, target: NpuTarget, tiling: Tiling, *, overlap: bool = True
) -> Schedule:
    """What ``work`` costs with a tiling that is given.

    Raises VitruviusError when a tile does not fit half of the buffers.
    """
    whole = {"m": work.M, "n": work.N, "k": work.K}
    tiling = replace(tiling, **{dim: min(getattr(tiling, dim), whole[dim]) for dim in DIMS})
    tiles = np.array([[tiling.m, tiling.n, tiling.k]], np.int64)
    if not bool(fits(work, target, tiles)[0]):
        raise VitruviusError(
            f"{target.target}: a tile of {tiling.m} x {tiling.n} x {tiling.k} does not fit half of "
            "the buffers"
        )
    orders = np.array([ORDERS.index(tiling.order)])
    costs = evaluate(work, target, tiles, orders, tiling.dataflow)
    return scheduled(work, target, tiling, costs, 0, overlap)


def laid_names(flow: Dataflow) -> tuple[str, str, str]:
    """The dimensions along rows, along columns, and streamed.

    >>> laid_names(Dataflow.WEIGHT)
    ('k', 'n', 'm')
    """
    along_rows, along_cols, streamed = laid(0, 1, 2, flow)
    return DIMS[int(along_rows)], DIMS[int(along_cols)], DIMS[int(streamed)]


def fits(work: GemmWork, target: NpuTarget, tiles: Count) -> Flags:
    """Whether each of the tiles [c, 3] fits half of the target's buffers."""
    m, n, k = tiles.T
    inputs = -(-m * k * work.input_bits // 8)
    weights = -(-k * n * work.weight_bits // 8)
    sums = -(-m * n * target.widths.accumulator // 8)
    first, second, both = target.buffers.operand_halves
    fit: Flags = (
        (inputs <= first)
        & (weights <= second)
        & (inputs + weights <= both)
        & (sums <= target.buffers.output_half)
    )
    return fit


def kept(work: GemmWork, target: NpuTarget, tiles: Count) -> tuple[Flags, Flags, Flags]:
    """Whether inputs, weights and sums of a product stay on the chip once they are there, beside
    each of the tiles [c, 3]: the whole operand fits half of its buffer, weights first where two
    share one.
    """
    m, n, k = tiles.T
    input_tile, weight_tile = (
        -(-size * bits // 8) for size, bits in ((m * k, work.input_bits), (k * n, work.weight_bits))
    )
    inputs = np.full(len(tiles), -(-work.M * work.K * work.input_bits // 8))
    weights = np.full(len(tiles), -(-work.K * work.N * work.weight_bits // 8))
    first, second, both = target.buffers.operand_halves
    keep_weights = (weights <= second) & (weights + input_tile <= both)
    beside = np.where(keep_weights, weights, weight_tile)
    keep_inputs = (inputs <= first) & (inputs + beside <= both)
    sums = -(-work.M * work.N * target.widths.accumulator // 8)
    return keep_inputs, keep_weights, np.full(len(tiles), sums <= target.buffers.output_half)


def trips_of(work: GemmWork, tiles: Count) -> Count:
    """How many of the tiles [c, 3] each extent is cut into."""
    whole = np.array([work.M, work.N, work.K], np.int64)
    trips: Count = -(-whole // tiles)
    return trips


@dataclass(frozen=True)
class Costs:
    """Of each of c tilings: cycles and its parts [c], waits by cause [c, 3], bytes by operand
    [c, 5].
    """

    cycles: Count
    stream: Count
    load: Count
    waits: Count
    dram: Count
    chip: Count
    vector: Count


def evaluate(
    work: GemmWork, target: NpuTarget, tiles: Count, orders: Count, flow: Dataflow
) -> Costs:
    """Exact cost of every tiling: see the module's docstring."""
    rows, cols = target.array.rows, target.array.cols
    order = np.array([[DIMS.index(dim) + 1 for dim in text] for text in ORDERS])[orders]
    order = np.concatenate([np.zeros((len(tiles), 1), np.int64), order], 1)
    place = np.argsort(order, axis=1)  # loop of h, m, n, k
    full = np.concatenate([np.ones((len(tiles), 1), np.int64), tiles], 1)
    whole = np.array([work.count, work.M, work.N, work.K], np.int64)
    trips = -(-whole // full)  # by dimension
    last = whole - (trips - 1) * full
    loops = np.take_along_axis(trips, order, axis=1)

    zero = np.zeros_like(loops)
    kinds = np.stack([zero, np.minimum(1, loops - 1), np.maximum(loops - 2, 0), loops - 1], -1)
    often = np.stack(
        [zero + 1, np.maximum(loops - 3, 0), (loops >= 3).astype(int), (loops >= 2).astype(int)], -1
    )
    times = np.prod([often[:, loop, _STEPS[:, loop]] for loop in range(4)], axis=0)
    steps = _STEPS[times.any(0)]
    times = times[:, times.any(0)]
    here = np.stack([kinds[:, loop, steps[:, loop]] for loop in range(4)], -1)

    def neighbour(forward: bool) -> tuple[Count, Flags]:
        moved, carry = here.copy(), np.ones(here.shape[:2], np.int64)
        for loop in (3, 2, 1, 0):
            end = loops[:, loop, None]
            moved[..., loop] += carry if forward else -carry
            beyond = moved[..., loop] == (end if forward else -1)
            moved[..., loop] = np.where(beyond, 0 if forward else end - 1, moved[..., loop])
            carry = beyond.astype(np.int64)
        return moved, carry == 0

    def by_dimension(steps: Count) -> Count:
        return np.take_along_axis(steps, place[:, None, :], axis=2)

    def extents(steps: Count) -> list[Count]:
        sizes = np.where(steps == trips[:, None] - 1, last[:, None], full[:, None])
        return [sizes[..., 1], sizes[..., 2], sizes[..., 3]]

    moved, exists = neighbour(True)
    now, after = by_dimension(here), by_dimension(moved)
    moved, existed = neighbour(False)
    before = by_dimension(moved)

    def differs(one: Count, other: Count, *dims: int) -> Flags:
        found: Flags = np.any(np.stack([one[..., d] != other[..., d] for d in (0, *dims)]), axis=0)
        return found

    def fetched(m: Count, n: Count, k: Count) -> tuple[Count, Count]:
        return (
            _bytes(m * k, work.input_bits, work.input_share),
            _bytes(k * n, work.weight_bits, work.weight_share),
        )

    # What the next tile needs and is not there.
    m, n, k = extents(after)
    inputs, weights = fetched(m, n, k)
    keeps = [keep[:, None] for keep in kept(work, target, tiles)]
    inputs = np.where(
        exists & differs(now, after, 1, 3) & (~keeps[0] | (after[..., 2] == 0)), inputs, 0
    )
    weights = np.where(
        exists & differs(now, after, 3, 2) & (~keeps[1] | (after[..., 1] == 0)), weights, 0
    )
    accumulator = target.widths.accumulator
    returns = exists & differs(now, after, 1, 2) & (after[..., 3] > 0) & ~keeps[2]
    sums_in = np.where(returns, _bytes(m * n, accumulator), 0)

    # What left the accumulators after the tile before.
    m, n, _ = extents(before)
    left = existed & differs(before, now, 1, 2)
    complete = left & (before[..., 3] == trips[:, None, 3] - 1)
    left &= ~keeps[2]
    elements = np.where(complete, m * n, 0)
    sums_out = np.where(left & ~complete, _bytes(m * n, accumulator), 0)

    def output(done: Count) -> tuple[Count, Count, Count, Count]:
        """Bytes stored, side bytes from DRAM and from the chip, cycles of the vector unit."""
        vector = -(-done // target.vector.lanes) * work.epilogue
        return (
            _bytes(done, work.output_bits),
            _bytes(done, work.side_bits[0]),
            _bytes(done, work.side_bits[1]),
            vector + np.where(vector > 0, work.epilogue_latency, 0),
        )

    outputs, side_dram, side_chip, vector = output(elements)

    def memory(dram: Count, chip: Count) -> tuple[Count, Count]:
        cycles = np.ceil(dram / target.dram_bytes_per_cycle).astype(np.int64)
        return (
            cycles + np.where(dram > 0, target.dram.latency_cycles, 0),
            -(-chip // target.buffers.activation_bytes_per_cycle),
        )

    def split(place: str, bytes_: Count) -> tuple[Count, Count]:
        return (bytes_, bytes_ * 0) if place == "dram" else (bytes_ * 0, bytes_)

    def traffic(
        inputs: Count, weights: Count, outputs: Count, sums: Count, dram: Count, chip: Count
    ) -> tuple[Count, Count]:
        """Bytes in DRAM and in the activation buffer, by operand on the last axis."""
        pairs = [
            split(work.inputs, inputs),
            split(work.weights, weights),
            split(work.outputs, outputs),
            split("dram", sums),
            (dram, chip),
        ]
        return np.stack([pair[0] for pair in pairs], -1), np.stack([pair[1] for pair in pairs], -1)

    dram, chip = traffic(inputs, weights, outputs, sums_in + sums_out, side_dram, side_chip)
    m, n, k = extents(now)
    passes = target.passes(work.input_bits, work.weight_bits)
    stream, load = steady(m, n, k, rows=rows, cols=cols, flow=flow, passes=passes)
    # Nothing is loaded behind the last fold of all.
    behind = np.maximum(rows - np.asarray(laid(m, n, k, flow)[2]) * passes, 0)
    load = np.where(exists, load, load - behind)
    array = stream + load
    dram_time, chip_time = memory(dram.sum(-1), chip.sum(-1))
    waits = [_excess(array, dram_time, chip_time, vector)]

    # Before the first tile, and behind the last one.
    m, n, k = (np.where(trips[:, d] == 1, last[:, d], full[:, d]) for d in (1, 2, 3))
    none = np.zeros_like(m)
    first = traffic(*fetched(m, n, k), none, none, none, none)
    ends = output(last[:, 1] * last[:, 2])
    final = traffic(none, none, ends[0], none, ends[1], ends[2])
    edges = []
    for bytes_, late in ((first, none), (final, ends[3])):
        edges.append(_excess(none, *memory(bytes_[0].sum(-1), bytes_[1].sum(-1)), late))

    def total(values: Count) -> Count:
        summed: Count = (times.reshape(times.shape + (1,) * (values.ndim - 2)) * values).sum(1)
        return summed

    every = total(waits[0]) + edges[0] + edges[1]
    once = (0 if flow is Dataflow.OUTPUT else rows) + rows - 1 + cols - 1
    return Costs(
        cycles=total(array) + every.sum(-1) + once,
        stream=total(stream),
        load=total(load),
        waits=every,
        dram=total(dram) + first[0] + final[0],
        chip=total(chip) + first[1] + final[1],
        vector=total(vector) + ends[3],
    )


def _excess(array: Count, dram: Count, chip: Count, vector: Count) -> Count:
    """Cycles beyond the array's in a step, put down to the slowest: the columns are DRAM, the
    activation buffer, the vector unit.
    """
    parts = np.stack([dram, chip, vector], -1)
    over = np.maximum(parts.max(-1) - array, 0)
    slowest = parts.argmax(-1)
    return np.where(np.arange(3) == slowest[..., None], over[..., None], 0)


def _bytes(elements: Count, bits: int, share: tuple[int, int] = (1, 1)) -> Count:
    found: Count = -(-elements * bits * share[0] // (8 * share[1]))
    return found


def scheduled(
    work: GemmWork, target: NpuTarget, tiling: Tiling, costs: Costs, row: int, overlap: bool
) -> Schedule:
    """The schedule with ``tiling``, whose costs are those in ``row``."""
    rows, cols, flow = target.array.rows, target.array.cols, tiling.dataflow
    passes = target.passes(work.input_bits, work.weight_bits)
    tiles = (tiling.m, tiling.n, tiling.k)
    trips = [-(-w // t) for w, t in zip((work.M, work.N, work.K), tiles, strict=True)]
    extents = dict(zip(DIMS, zip((work.M, work.N, work.K), tiles, strict=True), strict=True))
    along_rows, along_cols, streamed = laid_names(flow)
    stationary = "read-out" if flow is Dataflow.OUTPUT else "load"
    if overlap:
        cycles, stream = int(costs.cycles[row]), int(costs.stream[row])
        lost = {
            stationary: int(costs.load[row]) + (0 if flow is Dataflow.OUTPUT else rows),
            "fill": rows - 1,
            "drain": cols - 1,
            **{cause: int(costs.waits[row, i]) for i, cause in enumerate(_CAUSES)},
        }
        # A fold of a tile that is cut along the streamed extent is a fold of its own.
        number = pieces(*extents[along_rows], rows) * pieces(*extents[along_cols], cols)
        number *= trips[DIMS.index(streamed)]
    else:
        one = scalesim_cycles(work.M, work.N, work.K, rows=rows, cols=cols, dataflow=flow)
        cycles = work.count * passes * int(one)
        number = int(folds(work.M, work.N, work.K, rows=rows, cols=cols, flow=flow))
        each = work.count * passes * number
        stream = each * int(laid(work.M, work.N, work.K, flow)[2])
        loads = 0 if flow is Dataflow.OUTPUT else each * rows
        lost = {stationary: loads, "fill": each * (rows - 1), "drain": each * (cols - 1)}
    once = accesses(work.M, work.N, work.K, tiles, rows=rows, cols=cols, flow=flow)
    return Schedule(
        work=work,
        tiling=tiling,
        cycles=cycles,
        product_cycles=stream,
        lost=lost,
        dram_bytes=dict(zip(_OPERANDS, (int(b) for b in costs.dram[row]), strict=True)),
        chip_bytes=dict(zip(_OPERANDS, (int(b) for b in costs.chip[row]), strict=True)),
        tiles=work.count * trips[0] * trips[1] * trips[2],
        folds=work.count * number,
        accesses=Accesses(
            once.input_reads * work.count,
            once.weight_reads * work.count,
            once.output_reads * work.count,
            once.output_writes * work.count,
        ),
        vector_cycles=int(costs.vector[row]),
        passes=passes,
    )
