"""Execution on integer codes, and the ratios of signal to noise that come of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from vitruvius.errors import VitruviusError
from vitruvius.models.code_execution import Codes, coded, encoded_weight, execute_codes
from vitruvius.models.code_widths import CodeWidths
from vitruvius.models.graph import Graph, Operator, execute_all
from vitruvius.models.sqnr import rms_percent, sqnr_report
from vitruvius.models.trace import trace

W8A16, W4A16, W8A8 = (CodeWidths.parsed(text) for text in ("w8a16", "w4a16", "w8a8"))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6, bias=False)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.silu(self.depthwise(self.conv(x)))
        return self.head(x.flatten(2).transpose(1, 2)).softmax(-1)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return trace(Small().eval(), (torch.zeros(1, 3, 8, 8),), name="small")


def largest(graph: Graph, image: Tensor) -> Mapping[str, float]:
    found: dict[str, float] = {}
    execute_all(graph, image, observe=lambda op, v: found.update({op.name: float(v.abs().max())}))
    return found


def seen(graph: Graph, image: Tensor, widths: CodeWidths) -> dict[str, Codes]:
    found: dict[str, Codes] = {}

    def keep(op: Operator, codes: Codes) -> None:
        found[op.name] = codes

    execute_codes(graph, [image], largest(graph, image), widths, keep)
    return found


def test_every_tensor_is_whole_codes_within_its_width(graph: Graph) -> None:
    for widths in (W8A16, W8A8):
        limit = 1 << (widths.activation - 1)
        for name, codes in seen(graph, torch.rand(1, 3, 8, 8), widths).items():
            if codes.scale:
                assert torch.equal(codes.codes, codes.codes.round()), name
                assert codes.codes.min() >= -limit and codes.codes.max() < limit, name


def test_a_product_is_the_one_of_whole_numbers(graph: Graph) -> None:
    """int64 sums of products, brought to the output's scale: floats with noise would differ."""
    found = seen(graph, torch.rand(1, 3, 8, 8), W4A16)
    head = next(op for op in graph.operators() if op.kind == "Linear")
    source, out = found[head.inputs[0]], found[head.name]
    codes, scales = encoded_weight(graph.tensors[head.tensors["weight"]], W4A16)
    assert codes.abs().max() <= 7
    exact = source.codes.long() @ codes[:, 0].long().T
    bias = graph.tensors[head.tensors["bias"]].double()
    values = exact.double() * (source.scale * scales[:, 0]) + bias
    assert torch.equal(out.codes, torch.round(values / out.scale))


def test_a_group_has_a_scale_of_its_own() -> None:
    weight = torch.cat([torch.full((1, 16), 0.01), torch.full((1, 16), 1.0)], 1)
    one = encoded_weight(weight, W4A16)
    assert one[0][0, 0, 0] == 0  # lost under the scale of the large ones
    codes, scales = encoded_weight(weight, CodeWidths(4, 16, 16))
    assert codes.shape == (1, 2, 16)
    assert torch.allclose(codes * scales[..., None], weight.double().reshape(1, 2, 16))


def test_groups_in_products_are_those_of_the_inputs() -> None:
    """Groups taken of the outputs, or a last one that is not filled up, would differ."""
    torch.manual_seed(1)
    module = nn.Linear(40, 3)
    graph = trace(module, (torch.rand(1, 40),), name="groups")
    widths, image = CodeWidths(8, 16, 16), torch.rand(1, 40)
    head = next(op for op in graph.operators() if op.kind == "Linear")
    found = seen(graph, image, widths)
    codes, scales = encoded_weight(module.weight, widths)
    held = (codes * scales[..., None]).flatten(1)[:, :40]
    values = found[head.inputs[0]].values @ held.T + module.bias.double()
    out = found[head.name]
    values = values.clamp(-32768 * out.scale, 32767 * out.scale)  # codes saturate
    assert torch.allclose(out.values, values, atol=out.scale)


def test_codes_saturate_and_masks_stay_infinite() -> None:
    held = coded(torch.tensor([0.5, 2.5, 300.0, -300.0, -math.inf]), 1.0, 8)
    assert held.codes.tolist() == [0.0, 2.0, 127.0, -128.0, -math.inf]


def test_ratios_are_those_of_the_definition() -> None:
    """A tensor rounded alone has the noise of rounding, 6 dB a bit."""
    torch.manual_seed(0)
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    graph = trace(Small().eval(), (torch.zeros(1, 3, 8, 8),), name="small")
    report = sqnr_report(graph, images, images, [W8A16, W4A16, W8A8])
    row = next(row for row in report.rows if row.kind == "Input")
    by_width = {item.widths: item for item in row.by_width}
    step = float(images.abs().max()) / 127
    expected = 10 * math.log10(float(images.square().mean()) / (step**2 / 12))
    assert by_width["w8a8"].own_db == pytest.approx(expected, abs=0.6)
    assert by_width["w8a16"].own_db == pytest.approx(expected + 48.2, abs=0.6)
    outputs = {item.widths: item.sqnr_db for item in report.outputs}
    assert None not in outputs.values()
    assert outputs["w8a16"] > outputs["w8a8"] and outputs["w8a16"] > outputs["w4a16"]
    assert row.outlier == pytest.approx(
        float(images.abs().max()) / float(images.square().mean().sqrt())
    )


def test_published_ratios_are_the_published_errors() -> None:
    assert rms_percent(28) == pytest.approx(3.98, abs=0.005)
    assert rms_percent(45) == pytest.approx(0.562, abs=0.0005)


def test_a_scan_rounds_every_state() -> None:
    class Decays(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            h, found = x[:, 0], []
            found.append(h)
            for place in range(1, 4):
                h = h * x[:, place] + x[:, place]
                found.append(h)
            return torch.stack(found, 1)

    graph = trace(Decays(), (torch.rand(1, 4, 5),), name="decays")
    scan = next(op for op in graph.operators() if op.kind == "Scan")
    found = seen(graph, torch.rand(1, 4, 5), W8A8)
    decay, states = found[scan.inputs[0]].values, found[scan.name]
    before, now = states.codes[:, 1] * states.scale, decay[:, 2]
    driven = found[scan.inputs[1]].values[:, 2]
    assert torch.equal(states.codes[:, 2], torch.round((now * before + driven) / states.scale))


def test_nothing_to_measure_is_refused(graph: Graph) -> None:
    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(VitruviusError, match="at least one pair of widths"):
        sqnr_report(graph, image, image, [])
    two = trace(
        nn.Bilinear(2, 2, 2), (torch.rand(1, 2), torch.rand(1, 2)), name="two", unmapped="host"
    )
    with pytest.raises(VitruviusError, match="expected one input and no operator on the host"):
        sqnr_report(two, image, image, [W8A8])
