"""A whole model: nothing is free, parts make up their sums, and every field of a file tells."""

from __future__ import annotations

import json
from math import ceil, prod

import pytest
import torch
from torch import nn

from vitruvius.models.graph import Graph
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.sim.npu.gemm import GemmWork
from vitruvius.sim.npu.operators import jobs_of
from vitruvius.sim.npu.report import OperatorDetail, estimate_npu, gemm_report
from vitruvius.sim.npu.target import NpuTarget, load_npu, npu_names, with_array
from vitruvius.sim.npu.tiling import best_schedule

FREE = {"Input", "Output", "Constant", "View", "Select", "RepeatBatch"}


def changed(name: str = "edge16", **tables: dict[str, object]) -> NpuTarget:
    fields = load_npu(name).model_dump(exclude_none=True)
    for table, values in tables.items():
        fields[table] |= values
    return NpuTarget.model_validate(fields)


class Convolutions(nn.Module):
    """A depthwise and a grouped convolution, a 3 x 3 one, a pool and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.grouped = nn.Conv2d(24, 12, 1, groups=3)
        self.head = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.nn.functional.max_pool2d(self.depthwise(x), 2)
        return self.head(self.grouped(x).mean((2, 3)))


class Picked(nn.Module):
    """Reads rows that its data chooses."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = torch.topk(x, 2, dim=1).indices
        return torch.gather(x * 2.0, 1, chosen).sum(1)


@pytest.fixture(scope="module")
def convolutions() -> Graph:
    return trace(Convolutions(), (torch.zeros(1, 3, 32, 32),), name="convolutions")


@pytest.fixture(scope="module")
def deit() -> Graph:
    workload = resolve_model("deit_tiny_patch16_224")
    return trace(workload.module, workload.example_inputs, name="deit_tiny")


@pytest.mark.parametrize("name", npu_names())
def test_nothing_is_free_and_parts_make_up_the_sums(
    deit: Graph, convolutions: Graph, name: str
) -> None:
    for graph in (deit, convolutions):
        found = estimate_npu(graph, name)
        assert [row.name for row in found.operators] == [op.name for op in graph.operators()]
        for op, row, detail in zip(graph.operators(), found.operators, found.npu, strict=True):
            assert row.cycles == detail.product_cycles + sum(detail.stalls.values()), op.name
            assert min([0, *detail.stalls.values()]) == 0
            assert row.bottleneck
            assert row.source.startswith("formula: ")
            if op.kind in FREE:
                assert (row.cycles, row.energy_j) == (0, 0)
                assert row.bottleneck.startswith("none: ")
            elif detail.unit == "tiles":
                assert row.energy_j > 0
                assert row.bottleneck.startswith("none: in the vector unit")
            else:
                assert row.cycles > 0
                assert row.energy_j > 0
                assert 0 <= detail.utilisation <= detail.mapping_utilisation <= 1
        assert found.cycles == sum(row.cycles for row in found.operators)
        assert found.energy_j == pytest.approx(sum(row.energy_j for row in found.operators))
        assert found.macs == sum(op.macs for op in graph.operators())
        assert found.cycles > found.ideal_cycles
        assert found.utilisation == pytest.approx(
            found.macs / (found.cycles * load_npu(name).cells)
        )
        assert json.dumps(found.record(), allow_nan=False)
        assert set(found.busy) == {"array", "vector unit", "DRAM"}
        assert all(0 < share <= 1 for share in found.busy.values())


def test_each_weight_crosses_at_least_once(deit: Graph) -> None:
    """DeiT-Tiny's published 5.7 M parameters, constants of the embedding apart."""
    weights = sum(
        prod(deit.tensors[op.tensors["weight"]].shape)
        for op in deit.operators()
        if op.kind in ("Linear", "Conv2d")
    )
    for name in npu_names():
        assert estimate_npu(deit, name).traffic_bytes["weights"] >= weights


def test_residuals_read_by_fused_sums_are_traffic(deit: Graph) -> None:
    """Two sums a layer read 197 x 192 bytes each where nothing stays on the chip."""
    assert estimate_npu(deit, "gemmini16").traffic_bytes["fused operands"] == 24 * 197 * 192


def test_a_second_pass_costs_the_energy_of_the_first(deit: Graph) -> None:
    """16-bit softmax outputs in 8-bit cells."""
    details = {detail.name: detail for detail in estimate_npu(deit, "edge16").npu}
    for name, passes in (("scores", 1), ("apply", 2)):
        energy = details[f"blocks.0.attn.{name}"].energy_j["mac"]
        assert energy == pytest.approx(passes * 3 * 197 * 197 * 64 * 0.3e-12)


def test_a_vector_operator_on_paper() -> None:
    """2048 bytes through 512 bytes of buffer are four chunks: fetch one; fetch the next beside
    it, twice store the one before too, store; store the last. DRAM: 5000 cycles and 12.75 bytes a
    cycle. The unit: 128 turns and one cycle of latency, 33 cycles a chunk.
    """
    graph = trace(nn.ReLU(), (torch.zeros(1, 2048),), name="relu")
    target = changed(buffers={"input_kib": 1, "activation_kib": 0}, dram={"latency_cycles": 5000})
    one, both = 5000 + ceil(512 / 12.75), 5000 + ceil(1024 / 12.75)
    found = estimate_npu(graph, target)
    assert found.cycles == one + 129 + (one - 33) + 2 * (both - 33) + (one - 33) + one
    assert found.traffic_bytes == {"inputs": 2048, "outputs": 2048}


def test_keys_and_values_are_traffic_where_nothing_stays(deit: Graph) -> None:
    """Both, at least once a layer: 2 x 12 x 197 x 192 bytes."""
    traffic = estimate_npu(deit, "gemmini16").traffic_bytes
    assert traffic["keys and values"] >= 2 * 12 * 197 * 192
    assert "keys and values" not in estimate_npu(deit, "array128").traffic_bytes


def test_traffic_and_time_react_to_the_activation_buffer(deit: Graph) -> None:
    sizes = (0, 128, 512, 4096)
    found = [estimate_npu(deit, changed(buffers={"activation_kib": kib})) for kib in sizes]
    traffic = [sum(one.traffic_bytes.values()) for one in found]
    assert traffic == sorted(traffic, reverse=True)
    assert traffic[0] > 1.5 * traffic[-1]
    assert found[0].cycles > found[-1].cycles
    assert [one.activation_peak_bytes <= 1024 * kib for one, kib in zip(found, sizes, strict=True)]


def test_each_part_of_a_target_tells(deit: Graph) -> None:
    """Catches a field that is read from the file and forgotten."""
    base = estimate_npu(deit, "edge16")
    slower = {
        "dram": ({"bytes_per_s": 1e9}, {"efficiency": 0.1}, {"latency_cycles": 5000}),
        "buffers": (
            {"activation_bytes_per_cycle": 1},
            {"output_kib": 2, "activation_kib": 0},
            {"input_kib": 1, "weight_kib": 1, "activation_kib": 0},
        ),
        "vector": ({"lanes": 2}, {"fused": False}, {"gelu": "shift"}, {"overlap_heads": False}),
        "widths": ({"probability": 32}, {"activation": 16}),
        "array": ({"cell_bits": 4}, {"dataflow": "ws"}),
    }
    for table, changes in slower.items():
        for change in changes:
            cycles = estimate_npu(deit, changed(**{table: change})).cycles
            assert cycles > base.cycles, (table, change)
    costlier = {"dram": {"kind": "ddr3"}, "static_w": 5.0}
    for table, change in costlier.items():
        fields = load_npu("edge16").model_dump(exclude_none=True)
        fields[table] = fields[table] | change if isinstance(change, dict) else change
        found = estimate_npu(deit, NpuTarget.model_validate(fields))
        assert found.cycles == base.cycles
        assert found.energy_j > base.energy_j


def test_softmax_hides_behind_the_products_of_other_heads(deit: Graph) -> None:
    """Three heads: of three softmaxes, the first, and what the others take longer than a head's two
    products. Catches a softmax that is hidden whole, or that costs less energy for being hidden.
    """
    roomy = {"activation_kib": 4096}  # the same tensors stay, whether one head's scores or two

    def attention(**vector: object) -> dict[str, OperatorDetail]:
        found = estimate_npu(deit, changed(vector=vector, buffers=roomy))
        return {detail.name.removeprefix("blocks.0.attn."): detail for detail in found.npu}

    apart, beside = attention(overlap_heads=False), attention()
    head = ceil(apart["softmax"].cycles / 3)
    products = (apart["scores"].cycles + apart["apply"].cycles) // 3
    assert head < products
    assert beside["softmax"].cycles == head
    moving = [
        {name: joules for name, joules in found["softmax"].energy_j.items() if name != "static"}
        for found in (apart, beside)
    ]
    assert moving[0] == moving[1]
    apart, beside = attention(lanes=4, overlap_heads=False), attention(lanes=4)
    head = ceil(apart["softmax"].cycles / 3)
    products = (apart["scores"].cycles + apart["apply"].cycles) // 3
    assert head > products
    assert beside["softmax"].cycles == head + 2 * (head - products)


def test_the_vector_unit_cannot_be_left_out(deit: Graph) -> None:
    """The dossier's count: DeiT-Tiny has 1,397,124 softmax, 945,600 LayerNorm and 1,815,552 GELU
    elements; on 32 lanes they take 8 % and more of a 32 x 32 array's time.
    """
    found = estimate_npu(deit, changed("edge32", vector={"overlap_heads": False}))
    vector = sum(detail.cycles for detail in found.npu if detail.unit == "vector unit")
    assert vector > 0.08 * sum(d.product_cycles for d in found.npu if d.unit == "array")
    elements = {"Softmax": 0, "LayerNorm": 0, "Gelu": 0}
    for job in jobs_of(deit, load_npu("edge32"))[0]:
        if job.op.kind in elements and job.vector is not None:
            elements[job.op.kind] += job.vector.rows * job.vector.length
        elif job.op.kind == "Gelu":
            elements["Gelu"] += (job.actions or {})["lookup"]
    assert elements == {"Softmax": 1_397_124, "LayerNorm": 945_600, "Gelu": 1_815_552}


def test_one_channel_a_fold_uses_less_than_a_percent() -> None:
    """The dossier's figure for a 3 x 3 depthwise convolution with 256 pixels on 32 x 32, weights in
    the cells: 0.64 %.
    """
    target = with_array(load_npu("edge32"), 32, 32, "ws")
    found = best_schedule(GemmWork(256, 1, 9, 24, 256 * 9 * 24), target, overlap=False)
    assert 256 * 9 * 24 / (found.cycles * 1024) == pytest.approx(0.0064, abs=0.00005)


def test_depthwise_runs_on_lanes_or_channels_side_by_side(convolutions: Graph) -> None:
    """9 weights a channel: three channels of 32 rows side by side, a block-diagonal operand."""
    jobs = {}
    for place in ("vector", "channel-parallel"):
        target = changed("edge32", vector={"depthwise": place})
        jobs[place] = {job.op.name: job for job in jobs_of(convolutions, target)[0]}
    lanes = jobs["vector"]["depthwise"]
    assert lanes.unit == "vector unit"
    assert lanes.vector is not None
    assert lanes.vector.element["multiply"] == 9
    packed = jobs["channel-parallel"]["depthwise"].gemm
    assert packed is not None
    assert (packed.N, packed.K, packed.count) == (3, 27, 8)
    assert packed.macs == 16 * 16 * 24 * 9
    grouped = jobs["vector"]["grouped"].gemm
    assert grouped is not None
    assert (grouped.N, grouped.K, grouped.count) == (12, 24, 1)
    details = estimate_npu(convolutions, changed("edge32", vector={"depthwise": place})).npu
    stored = next(d for d in details if d.name == "depthwise").dram_bytes["weights"]
    assert stored == 24 * 9  # the zeros of the diagonal's surroundings are not
    flat = with_array(load_npu("edge32"), 32, 8)
    few = {job.op.name: job for job in jobs_of(convolutions, flat)[0]}["grouped"].gemm
    assert few is not None
    assert (few.N, few.K, few.count) == (8, 16, 2)
    narrow = changed("edge16", vector={"depthwise": "channel-parallel"})
    alone = {job.op.name: job for job in jobs_of(convolutions, narrow)[0]}["depthwise"].gemm
    assert alone is not None
    assert (alone.N, alone.K, alone.count) == (1, 9, 24)


def test_a_convolution_fetches_its_input_not_its_windows(convolutions: Graph) -> None:
    """3 x 3 windows at stride 2 repeat pixels 2.25 times; DRAM sends each once a pass."""
    found = estimate_npu(convolutions, changed(buffers={"activation_kib": 0}))
    detail = next(detail for detail in found.npu if detail.name == "first")
    image = 3 * 32 * 32
    assert detail.dram_bytes["inputs"] == pytest.approx(image, rel=0.01)
    assert detail.sram_bytes["input"][1] == pytest.approx(16 * 16 * 27, rel=0.01)


def test_what_cannot_be_mapped_is_listed_with_its_reason() -> None:
    graph = trace(Picked(), (torch.zeros(1, 8),), name="picked")
    found = estimate_npu(graph, "edge16")
    names = {op.name: op.kind for op in graph.operators()}
    assert [names[name] for name, _ in found.unmapped] == ["Gather"]
    assert found.unmapped[0][1] == "Gather: its addresses are data, which the DMA cannot follow"
    row = next(row for row in found.operators if row.kind == "Gather")
    assert (row.cycles, row.macs) == (0, 0)
    assert row.bottleneck == found.unmapped[0][1]


def test_the_same_model_has_the_same_record(digits_graph: Graph) -> None:
    one, other = (estimate_npu(digits_graph, "npu:edge32").record() for _ in range(2))
    assert json.dumps(one) == json.dumps(other)


def test_one_product_is_the_same_in_both_reports() -> None:
    """`npu gemm` and the estimate of a model take the same road."""
    module = nn.Linear(192, 576, bias=False)
    graph = trace(module, (torch.zeros(1, 197, 192),), name="linear")
    target = load_npu("edge16")
    assert gemm_report(197, 576, 192, target).detail.cycles == estimate_npu(graph, target).cycles
