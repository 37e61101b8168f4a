"""A language model on an NPU: caches, grouped queries, memory, and its limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vitruvius.errors import VitruviusError
from vitruvius.models.phases import phase_graph
from vitruvius.models.trace import trace
from vitruvius.models.zoo.language_config import LanguageConfig
from vitruvius.models.zoo.network_file import NETWORKS
from vitruvius.sim.npu.language import language_report
from vitruvius.sim.npu.operators import jobs_of
from vitruvius.sim.npu.report import estimate_npu
from vitruvius.sim.npu.target import NpuTarget, load_npu, with_precision

TINY = NETWORKS["lfm2_tiny"].config
LARGE = NETWORKS["lfm2_1.2b"].config
assert isinstance(TINY, LanguageConfig) and isinstance(LARGE, LanguageConfig)
A16 = with_precision(load_npu("sa8295p"), "w4a16")


def test_a_cache_is_read_once_and_not_copied() -> None:
    """A copy of the cache would move it three times; copies for every head twice as often."""
    found = estimate_npu(phase_graph(TINY, "decode", 100, "tiny"), A16)
    assert found.traffic_bytes["keys and values"] == 2 * TINY.kv_values_per_token * 101
    rows = [row for row in found.operators if row.kind == "Append"]
    assert len(rows) == 2 * 2 + 2  # keys and values of two attentions, two convolutions
    assert all(row.off_chip_bytes <= 2 * 2 * 64 for row in rows)  # one vector, in and out


def test_grouped_queries_are_rows_of_one_product() -> None:
    graph = phase_graph(TINY, "prefill", 24, "tiny")
    jobs = {job.op.name: job for job in jobs_of(graph, A16)[0]}
    region = graph.regions[0]
    for name in (region.scores, region.apply):
        gemm = jobs[name].gemm
        assert gemm is not None
        assert (gemm.M, gemm.count) == (24 * TINY.heads // TINY.kv_heads, TINY.kv_heads)
        assert gemm.M * gemm.N * gemm.K * gemm.count == jobs[name].op.macs
        assert gemm.weight_bits == 16


def test_every_weight_and_every_scale_crosses_the_port_once_a_token() -> None:
    for precision, scales in (("w4a16", 0), ("w4a16g32", 2 / 16), ("w8a16", 0)):
        target = with_precision(load_npu("sa8295p"), precision)
        found = estimate_npu(phase_graph(TINY, "decode", 4, "tiny"), target)
        bits = target.widths.weight
        per_weight = bits / 8 * (1 + scales * 4 / bits)
        assert found.traffic_bytes["weights"] == pytest.approx(
            TINY.parameters * per_weight, rel=0.03
        )


def test_what_is_kept_is_the_published_size() -> None:
    """12,288 bytes a token, 48 MiB at 4096, 81,920 bytes of convolutions (see docs)."""
    report = language_report("lfm2", LARGE, A16, [4096], ["decode"])
    (point,) = report.points
    assert point.cache_bytes == 48 << 20
    assert point.state_bytes == 81_920
    assert point.bottleneck == "DRAM: weights"
    assert point.fits and point.peak_bytes < 768 << 20
    assert point.dram_bytes_per_s <= A16.dram.bytes_per_s * A16.dram.efficiency


def test_decode_takes_longer_with_more_context_and_prefill_does_not_fit() -> None:
    report = language_report("lfm2", LARGE, A16, [1, 4096])
    times = {(point.phase, point.context): point.latency_s for point in report.points}
    assert times["decode", 4096] > times["decode", 1]
    extra = (times["decode", 4096] - times["decode", 1]) * A16.dram.bytes_per_s * 0.7
    assert extra == pytest.approx(50_331_648, rel=0.1)
    fits = {(point.phase, point.context): point.fits for point in report.points}
    assert fits == {
        ("prefill", 1): True,
        ("prefill", 4096): False,
        ("decode", 1): True,
        ("decode", 4096): True,
    }
    texts = next(p for p in report.points if not p.fits).estimate.warnings
    assert texts[0].startswith("does not fit: ") and "mixer.softmax 1,024 MiB" in texts[0]


@pytest.mark.parametrize("context", [0, -1, LARGE.max_context + 1])
def test_a_context_that_the_model_does_not_take_is_refused(context: int) -> None:
    with pytest.raises(VitruviusError, match=f"a context of 1 to 32,768 tokens, got {context:,}"):
        language_report("lfm2", LARGE, A16, [8, context])
    with pytest.raises(VitruviusError, match="at least one context length"):
        language_report("lfm2", LARGE, A16, [])


def test_prefill_in_pieces_reads_the_weights_for_each_and_needs_less_memory() -> None:
    whole, pieces = (
        language_report("tiny", TINY, A16, [100], ["prefill"], piece=piece).points[0]
        for piece in (None, 32)
    )
    assert (whole.pieces, pieces.pieces) == (1, 4)
    assert pieces.weight_bytes == pytest.approx(4 * whole.weight_bytes, rel=0.05)
    assert pieces.peak_bytes < whole.peak_bytes
    assert pieces.cache_bytes == whole.cache_bytes == 2 * TINY.kv_values_per_token * 100
    assert pieces.macs < whole.macs  # a piece does not see what comes after it
    alone = language_report("tiny", TINY, A16, [100], ["prefill"], piece=100).points[0]
    assert alone.cycles == whole.cycles
    with pytest.raises(VitruviusError, match="pieces of at least 1 token, got 0"):
        language_report("tiny", TINY, A16, [100], ["prefill"], piece=0)


class _Attends(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-1, -2) / 4).softmax(-1) @ v


def test_scores_of_all_heads_or_of_one_are_in_memory() -> None:
    graph = trace(_Attends(), tuple(torch.rand(1, 8, 64, 16) for _ in range(3)), name="attends")

    def peak(scores: str) -> int:
        fields = load_npu("sa8295p").model_dump(exclude_none=True)
        fields["memory"]["scores"] = scores
        found = estimate_npu(graph, NpuTarget.model_validate(fields)).memory_use
        assert found is not None
        return found.activation_bytes

    # scores and softmax outputs together, and the values, 2 bytes each
    assert peak("all heads") == 2 * 8 * 64 * 64 * 2 + 8 * 64 * 16 * 2
    assert peak("one head") < peak("all heads") / 2


def test_a_target_without_a_limit_holds_everything() -> None:
    found = estimate_npu(phase_graph(TINY, "prefill", 8, "tiny"), "edge32").memory_use
    assert found is not None and found.limit_bytes is None and found.fits
