"""Sweeps over devices: what is counted, and what comes back from JSON."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from vitruvius.models.graph import Graph
from vitruvius.models.trace import trace
from vitruvius.optical.mapping import mapped
from vitruvius.optical.options import DeviceOptions
from vitruvius.optical.run import CellRun, cells, digest, exposures_of, run_cell, run_layers


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(1, 8, 2, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4))
    return trace(module, (torch.zeros(1, 1, 4, 4),), name="tiny")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(2))


def test_exposures_are_those_counted_by_hand(digits_graph: Graph) -> None:
    """64 to 192 features: 192 kernels, four passes for two signs, 17 tokens, each with a plane of
    its own or 64 tokens of 8 x 8 to a plane of 64; scores: 4 heads of 17 queries and keys.
    """
    work = {item.operator.name: item.work for item in mapped(digits_graph)}
    single, shared = DeviceOptions(), DeviceOptions(plane=64)
    qkv, scores = work["blocks.0.attn.qkv"], work["blocks.0.attn.scores"]
    assert qkv is not None
    assert scores is not None
    assert exposures_of(qkv, single) == (4, 4 * 192 * 17)
    assert exposures_of(qkv, shared) == (4, 4 * 192)
    assert exposures_of(qkv, DeviceOptions(scheme="reference")) == (2, 2 * 192 * 17)
    assert exposures_of(scores, single) == (4, 4 * 4 * 17 * 17)
    assert exposures_of(scores, shared) == (4, 4 * 4 * 17)


def test_channels_that_add_up_as_light_share_their_exposures() -> None:
    """Three channels by eight kernels: a pair each, or all channels at once."""
    module = nn.Conv2d(3, 8, 3)
    work = mapped(trace(module, (torch.zeros(1, 3, 8, 8),), name="conv"))[1].work
    assert work is not None
    assert exposures_of(work, DeviceOptions()) == (4, 4 * 24)
    assert exposures_of(work, DeviceOptions(tiling="channel")) == (4, 4 * 8)


def test_cells_are_every_combination_noisiest_last() -> None:
    found = cells(DeviceOptions(), photons=[1e3, 1e5], adc_bits=[], panel_bits=[4, 8])
    told = [(cell.panel_bits, cell.photons, cell.adc_bits) for cell in found]
    assert told == [(8, 1e5, None), (8, 1e3, None), (4, 1e5, None), (4, 1e3, None)]


def test_a_cell_counts_labels_and_errors(graph: Graph, images: torch.Tensor) -> None:
    placed = mapped(graph, non_negative_inputs=True)
    ideal = run_cell(graph, placed, DeviceOptions(), images, images)
    assert (ideal.agree, ideal.correct) == (40, None)
    assert ideal.logit_error < 1e-5
    seen = []
    options = DeviceOptions(photons=50.0, read_noise_e=3.0)
    with torch.no_grad():
        labels = torch.zeros(40, dtype=torch.int64)
    noisy = run_cell(
        graph, placed, options, images, images[:8], labels=labels, seed=3, progress=seen.append
    )
    assert seen == [32, 40]
    assert noisy.agree < 40
    assert 0.05 < noisy.logit_error < 1
    assert [row.passes for row in noisy.operators] == [2, 2]  # pixels and ReLU have no sign
    first, last = noisy.operators
    assert first.own_error == first.carried_error
    assert last.own_error < last.carried_error
    again = run_cell(graph, placed, options, images, images[:8], labels=labels, seed=3)
    assert again == noisy
    assert CellRun.restored(json.loads(json.dumps(noisy.record()))) == noisy


def test_layers_agree_where_devices_are_ideal(graph: Graph, images: torch.Tensor) -> None:
    placed = mapped(graph, non_negative_inputs=True)
    options = DeviceOptions(panel_bits=3)
    layers = list(run_layers(graph, placed, options, images[:2], images[:8]))
    assert [layer.layer for layer in layers] == ["math", "propagation", "propagation with devices"]
    assert max(layers[0].logit_error, layers[1].logit_error) < 1e-5
    assert layers[2].logit_error > 1e-2


def test_a_digest_names_values_and_images(graph: Graph, images: torch.Tensor) -> None:
    changed = {key: value.clone() for key, value in graph.tensors.items()}
    next(iter(changed.values())).flatten()[0] += 1
    other = Graph(graph.name, graph.operators(), changed)
    found = {digest(graph, images), digest(other, images), digest(graph, images[1:])}
    assert len(found) == 3
    assert digest(graph, images.clone()) in found
