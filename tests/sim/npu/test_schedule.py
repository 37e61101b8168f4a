"""A schedule against a walk over its tiles, one by one, written from the docstring alone."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from math import ceil

import numpy as np
import pytest

from vitruvius.errors import VitruviusError
from vitruvius.sim.npu.gemm import GemmWork
from vitruvius.sim.npu.schedule import DIMS, ORDERS, Tiling, fits, kept, schedule_of
from vitruvius.sim.npu.target import NpuTarget, load_npu
from vitruvius.sim.systolic import Dataflow

SEED = 31


def changed(**tables):
    """edge16 with fields replaced."""
    fields = load_npu("edge16").model_dump(exclude_none=True)
    for table, values in tables.items():
        fields[table] |= values
    if "scratchpad_kib" in fields["buffers"]:
        del fields["buffers"]["input_kib"], fields["buffers"]["weight_kib"]
    return NpuTarget.model_validate(fields)


def pieces(extent, size):
    return [min(size, extent - start) for start in range(0, extent, size)]


def walk(work, target, tiling):
    """Cycles, bytes of DRAM and of the activation buffer: every tile in a list, one after another,
    what it holds compared with the tiles beside it.
    """
    rows, cols = target.array.rows, target.array.cols
    cut = {
        d: pieces(w, getattr(tiling, d))
        for d, w in zip(DIMS, (work.M, work.N, work.K), strict=True)
    }
    tiles = [
        (head, dict(zip(tiling.order, place, strict=True)))
        for head in range(work.count)
        for place in product(*(range(len(cut[d])) for d in tiling.order))
    ]
    moved = {"dram": 0, "chip": 0}

    def size(tile, dim):
        return cut[dim][tile[1][dim]]

    def operand(tile, dims):
        return (tile[0], *(tile[1][d] for d in dims)) if tile else None

    def transfer(parts):
        bytes_ = {"dram": 0, "chip": 0}
        for place, amount in parts:
            bytes_[place] += amount
            moved[place] += amount
        dram = ceil(bytes_["dram"] / target.dram_bytes_per_cycle)
        dram += target.dram.latency_cycles if bytes_["dram"] else 0
        return max(dram, ceil(bytes_["chip"] / target.buffers.activation_bytes_per_cycle))

    buffers, seen = target.buffers, set()
    first, second, both = buffers.operand_halves
    inputs = ceil(work.M * work.K * work.input_bits / 8)
    weights = ceil(work.K * work.N * work.weight_bits / 8)
    input_tile = ceil(tiling.m * tiling.k * work.input_bits / 8)
    weight_tile = ceil(tiling.k * tiling.n * work.weight_bits / 8)
    keep = weights <= second and weights + input_tile <= both
    stays = {
        "mk": inputs <= first and inputs + (weights if keep else weight_tile) <= both,
        "kn": keep,
        "mn": buffers.output_kib * 512 >= work.M * work.N * 4,
    }

    def fetch(tile, before):
        if tile is None:
            return []
        found = []
        for dims, place, bits, share in (
            ("mk", work.inputs, work.input_bits, work.input_share),
            ("kn", work.weights, work.weight_bits, work.weight_share),
        ):
            there = stays[dims] and (dims, operand(tile, dims)) in seen
            seen.add((dims, operand(tile, dims)))
            if operand(tile, dims) != operand(before, dims) and not there:
                elements = size(tile, dims[0]) * size(tile, dims[1])
                found.append((place, ceil(elements * bits * share[0] / (8 * share[1]))))
        returns = before and operand(tile, "mn") != operand(before, "mn") and tile[1]["k"] > 0
        if returns and not stays["mn"]:
            found.append(("dram", size(tile, "m") * size(tile, "n") * 4))
        return found

    def leave(tile, after):
        """What leaves the accumulators behind ``tile``, and the vector unit's cycles."""
        if tile is None or operand(tile, "mn") == operand(after, "mn"):
            return [], 0
        elements = size(tile, "m") * size(tile, "n")
        if tile[1]["k"] != len(cut["k"]) - 1:
            return [("dram", elements * 4)] * (not stays["mn"]), 0
        vector = ceil(elements / target.vector.lanes) * work.epilogue
        vector += work.epilogue_latency if vector else 0
        out = [(work.outputs, ceil(elements * work.output_bits / 8))]
        for place, bits in zip(("dram", "chip"), work.side_bits, strict=True):
            out.append((place, ceil(elements * bits / 8)))
        return out, vector

    def array(tile, after):
        m, n, k = (size(tile, dim) for dim in DIMS)
        down, across, stream = {"ws": (k, n, m), "os": (m, n, k), "is": (k, m, n)}[tiling.dataflow]
        passes = target.passes(work.input_bits, work.weight_bits)
        folds = ceil(down / rows) * ceil(across / cols)
        last = stream * passes if after is None else max(stream * passes, rows)
        return (folds - 1) * max(stream * passes, rows) + last

    cycles = transfer(fetch(tiles[0], None))
    cycles += 0 if tiling.dataflow == "os" else rows
    for place, tile in enumerate(tiles):
        before = tiles[place - 1] if place else None
        after = tiles[place + 1] if place + 1 < len(tiles) else None
        out, vector = leave(before, tile)
        cycles += max(array(tile, after), transfer(fetch(after, tile) + out), vector)
    out, vector = leave(tiles[-1], None)
    return cycles + rows - 1 + cols - 1 + max(transfer(out), vector), moved


def cases(number):
    source = random.Random(SEED)
    while number:
        sizes = [source.choice((1, 3, 7, 16, 40, 61, 97)) for _ in range(3)]
        tile = [source.randint(max(1, extent // 6), extent) for extent in sizes]
        work = GemmWork(
            *sizes,
            count=source.choice((1, 1, 2, 3, 6)),
            macs=1,
            input_bits=source.choice((4, 8, 16)),
            weight_bits=source.choice((4, 8)),
            output_bits=source.choice((8, 16)),
            inputs=source.choice(("dram", "chip")),
            weights=source.choice(("dram", "chip")),
            outputs=source.choice(("dram", "chip")),
            input_share=source.choice(((1, 1), (1, 9), (49, 81))),
            weight_share=source.choice(((1, 1), (1, 3))),
            epilogue=source.choice((0, 1, 9)),
            epilogue_latency=source.choice((0, 5)),
            side_bits=source.choice(((0, 0), (16, 0), (0, 16))),
        )
        size = source.choice((5, 20, 80))
        target = changed(
            array={
                "rows": source.choice((2, 4, 8, 16)),
                "cols": source.choice((2, 4, 8, 16)),
                "dataflow": "ws",
            },
            dram={
                "bytes_per_s": source.choice((0.3e9, 8.5e9, 1e12)),
                "latency_cycles": source.choice((0, 60)),
            },
            vector={"lanes": source.choice((2, 16))},
            buffers=source.choice(
                (
                    dict.fromkeys(("input_kib", "weight_kib", "output_kib"), size),
                    {"scratchpad_kib": 2 * size, "output_kib": size},
                )
            ),
        )
        tiling = Tiling(*tile, source.choice(ORDERS), source.choice(list(Dataflow)))
        if fits(work, target, np.array([tile]))[0]:
            number -= 1
            yield work, target, tiling


@pytest.mark.parametrize("case", list(cases(200)), ids=lambda case: case[2].text)
def test_the_sum_over_kinds_of_steps_is_the_walk_over_all_tiles(case):
    """Catches a kind of step counted too often, a neighbour taken from the wrong side, an operand
    kept or fetched again at the wrong loop, and sums that are not brought back.
    """
    work, target, tiling = case
    cycles, moved = walk(work, target, tiling)
    found = schedule_of(work, target, tiling)
    assert found.cycles == cycles
    assert sum(found.dram_bytes.values()) == moved["dram"]
    assert sum(found.chip_bytes.values()) == moved["chip"]
    assert found.product_cycles + sum(found.lost.values()) == found.cycles


def test_one_tile_on_paper():
    """16 x 16 x 16 with weights in the cells: 512 bytes at 12.75 a cycle and 60 cycles of latency,
    16 to load, 16 to stream, 15 + 15 of skew, 256 bytes back.
    """
    target = load_npu("edge16")
    work = GemmWork(16, 16, 16, 1, 4096)
    found = schedule_of(work, target, Tiling(16, 16, 16, "mnk", Dataflow.WEIGHT))
    first, last = 60 + ceil(512 / 12.75), 60 + ceil(256 / 12.75)
    assert found.cycles == first + 16 + 16 + 15 + 15 + last
    assert found.dram_bytes == {"inputs": 256, "weights": 256, "outputs": 256, "sums": 0, "side": 0}


def test_sums_that_leave_too_early_cost_four_bytes_each_way():
    """K outermost over two tiles of N: each tile of sums goes out once and comes back once, unless
    half of the accumulators holds all of them.
    """
    target = changed(buffers={"output_kib": 2})
    work = GemmWork(16, 32, 32, 1, 16 * 32 * 32)
    large = schedule_of(work, load_npu("edge16"), Tiling(16, 16, 16, "knm", Dataflow.WEIGHT))
    assert large.dram_bytes["sums"] == 0
    early = schedule_of(work, target, Tiling(16, 16, 16, "knm", Dataflow.WEIGHT))
    late = schedule_of(work, target, Tiling(16, 16, 16, "nkm", Dataflow.WEIGHT))
    assert early.dram_bytes["sums"] == 2 * 4 * 16 * 32
    assert late.dram_bytes["sums"] == 0
    assert early.cycles > late.cycles


def test_a_shared_buffer_does_not_keep_both_operands_where_they_do_not_fit_together():
    """Half of 10 KiB: 2304 bytes of weights stay beside a tile of inputs; 3072 bytes of inputs then
    do not, although they would beside a tile of weights.
    """
    target = changed(buffers={"scratchpad_kib": 10})
    work = GemmWork(64, 48, 48, 1, 64 * 48 * 48)
    tile = np.array([[16, 16, 48]])
    assert [bool(keep[0]) for keep in kept(work, target, tile)] == [False, True, True]
    roomy = changed(buffers={"scratchpad_kib": 11})
    assert [bool(keep[0]) for keep in kept(work, roomy, tile)] == [True, True, True]


def test_a_slow_vector_unit_is_waited_for_and_named():
    """Catches an epilogue that costs nothing: 64 x 64 outputs at 9 cycles on 16 lanes."""
    target = load_npu("edge16")
    work = GemmWork(64, 64, 16, 1, 64 * 64 * 16, inputs="chip", weights="chip", outputs="chip")
    tiling = Tiling(64, 16, 16, "nmk", Dataflow.WEIGHT)
    free = schedule_of(work, target, tiling)
    slow = schedule_of(replace(work, epilogue=9), target, tiling)
    assert slow.lost["vector unit"] >= 4 * 64 * 9 - 3 * 64
    assert slow.cycles - slow.lost["vector unit"] <= free.cycles


def test_a_tile_that_does_not_fit_is_refused():
    work = GemmWork(400, 400, 400, 1, 400**3)
    with pytest.raises(VitruviusError, match=r"a tile of 400 x 400 x 400 does not fit half"):
        schedule_of(work, load_npu("edge16"), Tiling(400, 400, 400, "mnk", Dataflow.WEIGHT))
