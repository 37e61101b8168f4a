"""What a whole model costs: rows, sums, conversions, the fallback, batches."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from vitruvius.models.graph import Graph
from vitruvius.models.trace import trace
from vitruvius.optical.estimate import OpticalDetail, OpticalEstimate, estimate_optical
from vitruvius.optical.target import load_optical
from vitruvius.sim.npu.report import estimate_npu


def _estimate(graph: Graph, *choices: str, system: str = "4f-2mhz") -> OpticalEstimate:
    return estimate_optical(graph, load_optical(f"optical:{system}", choices))


@pytest.fixture(scope="module")
def digits(digits_graph: Graph) -> OpticalEstimate:
    return _estimate(digits_graph)


def _detail(estimate: OpticalEstimate, name: str) -> OpticalDetail:
    return next(detail for detail in estimate.optical if detail.name == name)


def test_every_operator_has_a_row(digits: OpticalEstimate, digits_graph: Graph) -> None:
    names = [op.name for op in digits_graph.operators()]
    assert [row.name for row in digits.operators] == names
    assert [detail.name for detail in digits.optical] == names
    assert all(row.source and row.bottleneck for row in digits.operators)
    assert digits.macs == sum(op.macs for op in digits_graph.operators())
    assert digits.unmapped == ()


def test_nothing_is_silently_free(digits: OpticalEstimate, digits_graph: Graph) -> None:
    """On the NPU alone GELU and residual sums work on the tiles of a product, which is not there
    any more.
    """
    alone = {row.name: row for row in estimate_npu(digits_graph, "npu:edge32").operators}
    rows = {row.name: row for row in digits.operators}
    addressing = {"View", "Select", "Input", "Constant", "Output"}
    for op in digits_graph.operators():
        assert (rows[op.name].latency_s > 0) == (op.kind not in addressing), op.name
        assert (rows[op.name].energy_j > 0) == (op.kind not in addressing), op.name
    assert alone["blocks.0.mlp.act"].latency_s == 0


def test_parts_add_up(digits: OpticalEstimate) -> None:
    assert digits.latency_s == pytest.approx(sum(row.latency_s for row in digits.operators))
    assert digits.latency_s == pytest.approx(
        digits.optics_s + digits.conversion_s + digits.electronics_s
    )
    assert digits.energy_j == pytest.approx(sum(digits.energy_by_part_j.values()))
    assert digits.per_image_s == pytest.approx(
        digits.per_image_optics_s + digits.per_image_electronics_s
    )
    for detail, row in zip(digits.optical, digits.operators, strict=True):
        parts = detail.optics_s + detail.conversion_s + detail.electronics_s
        assert row.latency_s == pytest.approx(parts)
        assert row.energy_j == pytest.approx(sum(detail.energy_j.values()))
    assert digits.energy_by_part_j["static"] == pytest.approx(29.6 * digits.latency_s)


def test_without_optics_it_is_the_npu(digits_graph: Graph) -> None:
    npu = estimate_npu(digits_graph, "npu:edge32")
    none = _estimate(digits_graph, "map=none")
    assert none.latency_s == pytest.approx(npu.latency_s)
    assert [row.latency_s for row in none.operators] == [row.latency_s for row in npu.operators]
    assert none.energy_j == pytest.approx(npu.energy_j + 29.6 * npu.latency_s)
    assert (none.frames, none.batch, none.brackets.ruling) == (0, 1, "")
    assert none.optical[1].reason == "conv is kept off the optics by choice"


def test_frames_of_one_image_by_hand(digits: OpticalEstimate) -> None:
    """17 tokens of 8 x 8: 17 x 192 pairs fit one plane of 270 x 270 slots; signs make it four
    frames. Four heads of 17 x 17 scores: 68 x 68 pairs in one.
    """
    assert _detail(digits, "blocks.0.attn.qkv").frames == 4
    scores = _detail(digits, "blocks.0.attn.scores")
    assert (scores.frames, scores.merged, scores.passes) == (4, 4, 4)
    assert digits.frames == 4 * (1 + 4 * 5 + 1)
    assert digits.optics_s == pytest.approx(digits.frames * 0.5e-6)
    assert digits.brackets.panels_s == pytest.approx(digits.optics_s)
    assert digits.brackets.ruling == "panels"


def test_conversions_of_one_layer_by_hand(digits_graph: Graph) -> None:
    """proj: 17 tokens x 64 outputs x 4 passes are read; each is looked up and added, each output
    rescaled once; 32 lanes at 800 MHz.
    """
    lean = _estimate(digits_graph, "map=linear")
    read = 17 * 64
    lanes = -(-read // 32) * (4 * 1 + 5 * 1 + 1)  # roots, sums with the bias, requantization
    parts = -(-17 * 64 // 32) * 2
    least = (lanes + parts) / 800e6
    found = _detail(lean, "blocks.0.attn.proj").conversion_s
    assert least < found < least + 2e-6  # and what they move from and to memory


def test_masks_of_scores_are_computed_or_given(
    digits: OpticalEstimate, digits_graph: Graph
) -> None:
    given = _estimate(digits_graph, "masks=given")
    for one, other in zip(digits.optical, given.optical, strict=True):
        if one.kind == "MatMul" and one.where == "optics":
            # two masks (k+ and k-) of 2160^2 samples, 2.5 N log2 N operations each
            operations = 2 * 2160**2 * 2 * 28
            assert one.conversion_s - other.conversion_s > operations / 32 / 800e6
        else:
            assert one.conversion_s == other.conversion_s
    assert any("Fourier transforms" in text for text in digits.warnings)
    assert not any("Fourier transforms" in text for text in given.warnings)


def test_a_batch_shares_weights_but_not_scores(digits_graph: Graph) -> None:
    few = _estimate(digits_graph, "batch=1,masks=given")
    many = _estimate(digits_graph, "batch=1000,masks=given")
    assert few.per_image_s == pytest.approx(few.latency_s)
    assert few.per_image_energy_j == pytest.approx(few.energy_j)
    assert many.latency_s == few.latency_s
    assert many.per_image_s < few.per_image_s
    assert many.per_image_energy_j < few.per_image_energy_j
    scores = _detail(many, "blocks.0.attn.scores")
    assert scores.batch_frames == 1000 * scores.frames
    linear = _detail(many, "blocks.0.attn.qkv")
    assert linear.batch_frames < 1000 * linear.frames
    assert many.per_image_electronics_s == pytest.approx(few.per_image_electronics_s, rel=0.05)


def test_the_default_batch_fills_the_emptiest_plane(digits: OpticalEstimate) -> None:
    """The head sees one token of 8 x 8 an image."""
    assert digits.batch == 270 * 270
    head = _detail(digits, "head")
    assert head.batch_use == pytest.approx(1.0)


def test_an_operator_too_large_for_the_planes_goes_to_electronics(digits_graph: Graph) -> None:
    small = _estimate(digits_graph, "rows=8,cols=8")
    fc2 = _detail(small, "blocks.0.mlp.fc2")
    assert fc2.where == "electronics"
    assert fc2.reason.startswith("a tile of 16 x 16 samples")
    assert fc2.reason.endswith("does not fit a plane of 8 x 8")
    assert fc2.electronics_s > 0
    assert _detail(small, "blocks.0.mlp.fc1").where == "optics"
    nothing = _estimate(digits_graph, "rows=2,cols=2")
    assert nothing.frames == 0
    assert nothing.latency_s == pytest.approx(estimate_npu(digits_graph, "npu:edge32").latency_s)


def test_a_real_link_rules(digits: OpticalEstimate, digits_graph: Graph) -> None:
    linked = _estimate(digits_graph, system="4f-readout")
    assert linked.brackets.ruling == linked.per_image_brackets.ruling == "read-out"
    frame_s = 2160 * 2160 * 8 / 50e9
    assert linked.optics_s == pytest.approx(linked.frames * frame_s)
    warned = [text for text in digits.warnings if "which no link does" in text]
    assert len(warned) == 1
    assert "9.33 TB/s" in warned[0]
    assert not any("which no link does" in text for text in linked.warnings)


def test_serial_is_slower_and_light_can_rule(digits: OpticalEstimate, digits_graph: Graph) -> None:
    serial = _estimate(digits_graph, "timing=serial")
    assert serial.optics_s > digits.optics_s
    dark = _estimate(digits_graph, "power_w=1e-4")
    assert dark.brackets.ruling == "light"
    assert dark.optics_s == pytest.approx(dark.brackets.light_s)


def test_the_kilohertz_bench_is_slow(digits_graph: Graph) -> None:
    bench = _estimate(digits_graph, system="4f-dmd")
    assert bench.frames >= 4 * 88  # four bit planes
    assert bench.optics_s > 0.1
    assert bench.energy_by_part_j["DAC"] == 0


def test_non_negative_inputs_halve_the_first_layer(
    digits: OpticalEstimate, digits_graph: Graph
) -> None:
    lit = _estimate(digits_graph, "inputs=non-negative")
    assert (digits.optical[1].passes, lit.optical[1].passes) == (4, 2)


def test_channels_summed_by_light_spare_conversions() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1)).eval()
    graph = trace(model, (torch.zeros(1, 16, 12, 12),), name="channels")
    apart, together = (_estimate(graph, f"tiling={how}") for how in ("input", "channel"))
    assert apart.frames == 16 * together.frames
    assert apart.conversion_s > 4 * together.conversion_s


def test_what_neither_side_does_is_unmapped() -> None:
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.map(torch.sort(self.map(x))[0])

    graph = trace(Sorted().eval(), (torch.zeros(1, 4, 16),), name="sorted", unmapped="host")
    found = _estimate(graph)
    assert len(found.unmapped) == 1
    ((name, reason),) = found.unmapped
    assert "sort" in name
    assert reason
    assert name in {row.name for row in found.operators}
    assert [detail.where for detail in found.optical if detail.kind == "Linear"] == ["optics"] * 2


def test_the_record_is_plain(digits: OpticalEstimate) -> None:
    record = json.loads(json.dumps(digits.record()))
    assert record["ruling"] == "panels"
    assert record["per_image_ruling"] == "panels"
    assert record["system"]["rows"] == 2160
    assert record["system"]["read_bits_per_s"] is None  # JSON has no infinity
    assert record["settings"]["map"] == ["conv", "linear", "scores"]
    assert record["optical"][1]["where"] == "optics"


def test_auto_is_as_quick_as_every_tiling() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8)).eval()
    graph = trace(model, (torch.zeros(1, 16, 12, 12),), name="tilings")
    auto = _estimate(graph)
    for tiling in ("none", "input", "kernel", "channel", "mixed"):
        fixed = _estimate(graph, f"tiling={tiling},batch={auto.batch}")
        assert auto.latency_s <= fixed.latency_s * (1 + 1e-9), tiling
        assert auto.per_image_s <= fixed.per_image_s * (1 + 1e-9), tiling
    assert auto.per_image_s <= auto.latency_s
