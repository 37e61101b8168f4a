"""Mixtures of experts: the chosen tokens only, spread evenly."""

from __future__ import annotations

from math import prod

import pytest

from vitruvius.models.graph import Graph
from vitruvius.models.mixture import routed_macs
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.sim.npu import routing
from vitruvius.sim.npu.report import estimate_npu
from vitruvius.sim.npu.routing import even_queues, routed


@pytest.fixture(scope="module")
def mixture() -> Graph:
    workload = resolve_model("vit_mnistm_moe")
    return trace(workload.module, workload.example_inputs, name="moe")


def test_only_the_chosen_experts_products_are_done(mixture: Graph) -> None:
    """Catches experts on every token, four times the work for two of eight."""
    found = estimate_npu(mixture, "edge16")
    assert found.macs == routed_macs(mixture)
    assert found.macs < sum(op.macs for op in mixture.operators())
    assert any(item.text.startswith("routing: ") for item in found.assumptions)


def test_every_operator_of_an_expert_has_its_queues_rows(mixture: Graph) -> None:
    region = mixture.mixtures[0]
    queues = even_queues(region)
    assert sum(queues) == region.tokens * region.k
    assert max(queues) - min(queues) <= 1
    graph = routed(mixture)
    for expert, names in enumerate(region.experts):
        for name in names:
            assert prod(graph.operator(name).output.shape[:-1]) == queues[expert]
        (product,) = graph.consumers(names[-1])
        assert prod(product.output.shape[:-1]) == queues[expert]
    assert graph.operator(region.combine).output == mixture.operator(region.combine).output
    assert graph.operator(region.route).output == mixture.operator(region.route).output


def test_the_experts_weights_still_cross(mixture: Graph) -> None:
    region = mixture.mixtures[0]
    names = [name for expert in region.experts for name in (expert[0], expert[2])]
    bytes_ = sum(prod(mixture.tensors[f"{name}.weight"].shape) for name in names)
    details = {detail.name: detail for detail in estimate_npu(mixture, "edge16").npu}
    assert sum(details[name].dram_bytes["weights"] for name in names) >= bytes_


def test_an_expert_without_tokens_does_nothing(
    mixture: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tokens to two of eight experts."""
    monkeypatch.setattr(
        routing, "even_queues", lambda region: [region.tokens] * 2 + [0] * (len(region.experts) - 2)
    )
    found = estimate_npu(mixture, "edge16")
    assert found.macs == routed_macs(mixture)
    rows = {row.name: row for row in found.operators}
    for region in mixture.mixtures:
        for name in (name for expert in region.experts[2:] for name in expert):
            assert (rows[name].cycles, rows[name].energy_j) == (0, 0)
            assert rows[name].bottleneck == "none: an expert without tokens"


def test_a_graph_without_a_mixture_is_itself(digits_graph: Graph) -> None:
    assert routed(digits_graph) is digits_graph
