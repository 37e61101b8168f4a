"""Ranges: what is seen does not depend on batches, scales follow the method."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vitruvius.models import calibration
from vitruvius.models.calibration import few, observe, rows_of, scale_of
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.trace import trace


class Wide(nn.Module):
    """Image [1, 16, 16] to 16 tokens of 16, and a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 32)

    def forward(self, image: Tensor) -> Tensor:
        return self.fc(image.flatten(1, 2))


@pytest.fixture
def graph():
    torch.manual_seed(0)
    return trace(Wide().eval(), (torch.zeros(1, 1, 16, 16),), name="wide")


@pytest.mark.parametrize("elements", [1, 2000, 1 << 22])
def test_batches_do_not_change_what_is_seen(graph, monkeypatch, elements):
    images = torch.randn(37, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(calibration, "_SAMPLES", 700)
    monkeypatch.setattr(calibration, "_ROWS", 50)
    whole = observe(graph, images)
    rows = rows_of(graph, images, {"fc"})["fc"]
    monkeypatch.setattr(calibration, "batches", lambda graph, x: x.split(max(1, elements // 512)))
    parts = observe(graph, images)
    assert parts.largest == pytest.approx(whole.largest)
    for name, sample in whole.samples.items():
        assert torch.allclose(parts.samples[name], sample, atol=1e-5), name
    assert torch.allclose(rows_of(graph, images, {"fc"})["fc"], rows, atol=1e-5)
    assert 25 <= len(rows) <= 50


def test_a_sample_sees_every_feature(graph, monkeypatch):
    """A step that shares a factor with the width would see only some features."""
    monkeypatch.setattr(calibration, "_SAMPLES", 16 * 16)
    images = torch.arange(16.0).repeat(16, 1).expand(32, 1, 16, 16).contiguous()
    seen = observe(graph, images).samples[graph.inputs[0]]
    assert sorted(seen.unique().tolist()) == list(range(16))


def test_scales_of_the_three_methods():
    values = torch.cat([torch.linspace(-1, 1, 9999), torch.tensor([100.0])])
    options = QuantizationOptions
    minmax = scale_of(values, 100.0, 8, options(calibration="minmax"))
    assert minmax == pytest.approx(100 / 127)
    percentile = scale_of(values, 100.0, 8, options(calibration="percentile", percentile=99.9))
    assert percentile == pytest.approx(1 / 127, rel=2e-3)
    # One value of 10 000 is not worth the steps of all others: clipped, but not to 1.
    narrow = torch.cat([values[:-1], torch.tensor([3.0])])
    mse = scale_of(narrow, 3.0, 4, options())
    assert 0.9 / 7 <= mse < 1.1 / 7
    assert scale_of(torch.zeros(5), 0.0, 8, options()) > 0
    assert scale_of(values, 100.0, 8, options(), peak=True) == pytest.approx(100 / 127)


def test_few_images_are_spread_evenly(graph):
    images = torch.arange(20.0).reshape(20, 1, 1, 1)
    one = sum(operator.macs for operator in graph.operators())
    assert few(graph, images, macs=5 * one).flatten().tolist() == [0, 4, 8, 12, 16]
    assert len(few(graph, images, macs=0, least=3)) == 3
    assert len(few(graph, images, macs=1e12)) == 20
