"""The search: SCALE-Sim's own counts without overlap, the bounds with it, and what it finds."""

from __future__ import annotations

import csv
import random
from itertools import pairwise, product
from pathlib import Path

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.sim.gemmini import Gemmini, tile
from vitruvius.sim.npu.gemm import Accesses, GemmWork, accesses
from vitruvius.sim.npu.schedule import ORDERS, Tiling, schedule_of
from vitruvius.sim.npu.target import NpuTarget, load_npu, with_array
from vitruvius.sim.npu.tiling import best_schedule
from vitruvius.sim.systolic import Dataflow, ideal_cycles, scalesim_cycles

DATA = Path(__file__).parents[1] / "data"
SEED = 32
ENDLESS = {"bytes_per_s": 1e14, "efficiency": 1.0, "latency_cycles": 0}


def table(name):
    lines = (DATA / name).read_text().splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return [
        {key: int(value) if value.isdigit() else value for key, value in row.items()}
        for row in rows
    ]


def changed(name="edge16", **tables):
    fields = load_npu(name).model_dump(exclude_none=True)
    for key, values in tables.items():
        fields[key] |= values
    return NpuTarget.model_validate(fields)


def gemm(M, N, K, **fields):
    return GemmWork(M, N, K, fields.pop("count", 1), M * N * K, **fields)


def extents(row):
    return row["M"], row["N"], row["K"]


# -- SCALE-Sim ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", ["ws", "os", "is"])
@pytest.mark.parametrize(
    "row", table("systolic_gemm.csv"), ids=lambda r: f"{r['array']}-{r['layer']}"
)
def test_without_overlap_the_cycles_are_scalesims(row, flow):
    """The tool reports the index of the last cycle, counted from 0."""
    target = with_array(load_npu("edge32"), row["array"], row["array"], flow)
    found = best_schedule(gemm(*extents(row)), target, overlap=False)
    assert found.cycles - 1 == row[f"scalesim_{flow}"]
    assert found.product_cycles + sum(found.lost.values()) == found.cycles


@pytest.mark.parametrize("flow", ["ws", "os", "is"])
def test_with_overlap_the_cycles_lie_between_ideal_and_scalesim(flow):
    """A memory without end, so that the array decides. Catches a fold counted twice, a load that
    is hidden although it is the first, and a fill that is free.
    """
    source = random.Random(SEED)
    for _ in range(60):
        M, N, K = (source.choice((1, 5, 16, 64, 197, 300, 512)) for _ in range(3))
        rows, cols = source.choice(((4, 4), (16, 16), (8, 32), (32, 8), (32, 32)))
        target = with_array(changed("edge32", dram=ENDLESS), rows, cols, flow)
        found = best_schedule(gemm(M, N, K), target)
        ideal = int(ideal_cycles(M, N, K, rows=rows, cols=cols))
        alone = int(scalesim_cycles(M, N, K, rows=rows, cols=cols, dataflow=flow))
        waits = found.lost["memory: DRAM"]
        assert ideal < found.cycles, f"seed {SEED}: {M} {N} {K} on {rows} x {cols}"
        assert found.cycles - waits <= alone, f"seed {SEED}: {M} {N} {K} on {rows} x {cols}"
        assert found.lost["fill"] == rows - 1
        assert found.lost["drain"] == cols - 1
        assert found.lost["read-out" if flow == "os" else "load"] >= (0 if flow == "os" else rows)


def test_accesses_are_scalesims():
    """The verified formulas for one tile: M K ceil(N / C) and so on; 130 x 70 x 50 on 16 x 8."""
    sizes, whole = (130, 70, 50), (130, 70, 50)
    M, N, K = sizes
    for flow, expected in (
        (Dataflow.OUTPUT, Accesses(M * K * 9, K * N * 9, M * N, M * N)),
        (Dataflow.WEIGHT, Accesses(M * K * 9, K * N, M * N * 4, M * N * 4)),
        (Dataflow.INPUT, Accesses(M * K, K * N * 17, M * N * 4, M * N * 4)),
    ):
        assert accesses(M, N, K, whole, rows=16, cols=8, flow=flow) == expected


def test_accesses_of_tiles_add_up() -> None:
    """Cut in 2 x 2 x 3 tiles of 64 x 40 x 20: a column of folds more where a tile is ragged."""
    M, N, K = 128, 80, 50
    tile = (64, 40, 20)
    for flow, expected in (
        (Dataflow.OUTPUT, Accesses(M * K * 10, K * N * 8, M * N * 3, M * N * 3)),
        (Dataflow.WEIGHT, Accesses(M * K * 10, K * N * 2, M * N * 5, M * N * 5)),
        (Dataflow.INPUT, Accesses(M * K * 2, K * N * 16, M * N * 5, M * N * 5)),
    ):
        assert accesses(M, N, K, tile, rows=16, cols=8, flow=flow) == expected


# -- Gemmini --------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", table("gemmini_tiles.csv"), ids=str)
def test_gemminis_rtl_is_within_thirty_percent(row):
    """With the tile that Gemmini's library chose; nothing is fitted, so the error is what it is.
    docs/npu.md states it.
    """
    assert row["tile_M"] == tile(*extents(row), Gemmini()).M
    tiling = Tiling(row["tile_M"], row["tile_N"], row["tile_K"], "mnk", Dataflow.WEIGHT)
    found = schedule_of(gemm(*extents(row)), load_npu("gemmini16"), tiling)
    for run in ("gemmini_auto_1", "gemmini_auto_2", "gemmini_auto_3"):
        assert abs(found.cycles / row[run] - 1) < 0.30


@pytest.mark.parametrize("row", table("gemmini_tiles.csv"), ids=str)
def test_the_search_is_not_slower_than_gemminis_own_tile(row):
    tiling = Tiling(row["tile_M"], row["tile_N"], row["tile_K"], "mnk", Dataflow.WEIGHT)
    target = load_npu("gemmini16")
    own = schedule_of(gemm(*extents(row)), target, tiling)
    assert best_schedule(gemm(*extents(row)), target).cycles <= own.cycles


# -- what the search finds ------------------------------------------------------------------------


@pytest.mark.parametrize("flow", list(Dataflow))
def test_no_tile_on_paper_is_much_faster(flow):
    """Every tile of 13 x 16 x 16 on 4 x 4 with small buffers, tried one by one."""
    target = changed(
        array={"rows": 4, "cols": 4, "dataflow": flow.value},
        buffers={"input_kib": 1, "weight_kib": 1, "output_kib": 1, "activation_kib": 0},
        dram={"bytes_per_s": 1e9, "latency_cycles": 20},
    )
    work = gemm(13, 16, 16, count=2)
    cycles = []
    for sizes in product((1, 2, 3, 4, 5, 7, 13), (4, 8, 12, 16), (4, 8, 12, 16)):
        for order in ORDERS:
            try:
                cycles.append(schedule_of(work, target, Tiling(*sizes, order, flow)).cycles)
            except VitruviusError:
                continue
    assert len(cycles) > 200
    assert best_schedule(work, target).cycles <= 1.01 * min(cycles) + 1


def test_a_prime_extent_uses_the_array_like_its_neighbours():
    """197 tokens along an edge of 16: 13 folds, as for 208. A mapper that only splits into factors
    has 1 and 197 and leaves the edge empty.
    """
    target = load_npu("edge16")
    prime = best_schedule(gemm(197, 197, 64), target)
    even = best_schedule(gemm(208, 208, 64), target)
    assert prime.cycles <= even.cycles
    assert prime.product_cycles <= 208 * 208 * 64 // 256
    flat = best_schedule(gemm(197, 197, 64), with_array(target, 16, 16, "os"))
    assert flat.product_cycles == 13 * 13 * 64


def test_tiles_share_an_extent_evenly():
    """Accumulators for 104 x 16: 197 rows are 99 and 98, not 98, 98 and 1."""
    target = changed(array={"dataflow": "ws"}, buffers={"output_kib": 13})
    found = best_schedule(gemm(197, 16, 16), target)
    assert (found.tiling.m, found.tiles) == (99, 2)


def test_the_same_question_has_the_same_answer():
    target = load_npu("edge32")
    work = gemm(197, 768, 3072, inputs="chip")
    assert best_schedule(work, target) == best_schedule(work, target)


@pytest.mark.parametrize("shape", [(197, 768, 3072), (512, 512, 512), (1024, 64, 1024)])
def test_traffic_falls_as_buffers_grow(shape):
    """SCALE-Sim users found that it does not (issue 27). Every operand crosses at least once."""
    traffic = []
    for scale in (1, 4, 16, 64):
        buffers = {"input_kib": 16 * scale, "weight_kib": 16 * scale, "output_kib": 16 * scale}
        found = best_schedule(gemm(*shape), changed(buffers=buffers))
        traffic.append(sum(found.dram_bytes.values()))
    M, N, K = shape
    assert traffic == sorted(traffic, reverse=True)
    assert traffic[0] > 2 * traffic[-1]
    least = M * K + K * N + M * N
    assert least <= traffic[-1] <= 1.25 * least


def test_a_faster_memory_is_never_much_slower():
    work = gemm(197, 768, 768)
    rates = (0.5e9, 1e9, 4e9, 16e9, 64e9)
    cycles = [best_schedule(work, changed(dram={"bytes_per_s": rate})).cycles for rate in rates]
    assert all(later <= 1.01 * sooner for sooner, later in pairwise(cycles))
    assert cycles[0] > 2 * cycles[-1]


def test_the_best_dataflow_is_the_best_of_three():
    """One token: weights would be loaded for a single row."""
    for shape in ((1, 1000, 192), (197, 64, 197), (2048, 16, 16)):
        each = [
            best_schedule(gemm(*shape), with_array(load_npu("edge16"), 16, 16, flow.value))
            for flow in Dataflow
        ]
        best = best_schedule(gemm(*shape), load_npu("edge16"))
        assert best.cycles == min(one.cycles for one in each)


def test_wide_operands_take_two_passes():
    """16-bit softmax weights in 8-bit cells: the array streams twice as long."""
    narrow = best_schedule(gemm(197, 64, 197), load_npu("edge16"))
    wide = best_schedule(gemm(197, 64, 197, input_bits=16), load_npu("edge16"))
    assert (narrow.passes, wide.passes) == (1, 2)
    assert wide.product_cycles >= 1.9 * narrow.product_cycles


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1000, 1), (3, 5, 7), (100_000, 7, 100_000)])
def test_awkward_extents_have_a_schedule(shape):
    found = best_schedule(gemm(*shape), load_npu("edge16"))
    assert found.cycles >= int(ideal_cycles(*shape, rows=16, cols=16))


def test_an_empty_product_is_refused():
    with pytest.raises(VitruviusError, match="at least 1 x 1 x 1, got 4 x 0 x 2"):
        best_schedule(gemm(4, 0, 2), load_npu("edge16"))


def test_operands_too_wide_for_the_buffers_are_refused():
    """A target is checked with its own widths; a graph may hold wider values."""
    target = changed(buffers={"input_kib": 1, "weight_kib": 1, "output_kib": 2})
    with pytest.raises(VitruviusError, match="no tile of 64 x 64 x 64 with operands of 64 and 8"):
        best_schedule(gemm(64, 64, 64, input_bits=64), target)
