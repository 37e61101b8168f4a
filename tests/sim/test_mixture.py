"""Mixtures of experts: queues with none, one and all of the tokens, in Verilog and in cycles."""

from __future__ import annotations

import pytest
import torch

from vitruvius.benchmarks.random_pairs import pair
from vitruvius.errors import VitruviusError
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.models.datasets import photographs
from vitruvius.models.integer_model import IntegerModel
from vitruvius.models.quantize import quantize
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.sim.cosim import cosimulate, prepare
from vitruvius.sim.cycle import simulate
from vitruvius.sim.estimate import estimate_fpga
from vitruvius.sim.lost_cycles import lost_cycles
from vitruvius.sim.routing import even_routing, routing_of

CYCLES = 1_050_000
NUMBER = 55


@pytest.fixture(scope="module")
def mixed():
    return pair(NUMBER)


def gated(model: IntegerModel, bias: list[int]) -> IntegerModel:
    """``model`` with gates that see nothing but their bias: every token gets the same scores."""
    tensors = dict(model.tensors)
    for operator in model.operators:
        if operator.kind == "Gate":
            gate = model.operator(operator.inputs[0])
            tensors[gate.tensors["weight"]] = torch.zeros_like(tensors[gate.tensors["weight"]])
            kept = tensors[gate.tensors["bias"]]
            tensors[gate.tensors["bias"]] = torch.tensor(bias, dtype=kept.dtype)[: len(kept)]
    return IntegerModel(model.name, model.operators, tensors)


def test_corner_cases_of_routing_cannot_hang(mixed) -> None:
    """All tokens on the same experts, the last one without any, all scores equal (ties go to the
    lower index), scores at both ends of their range.
    """
    compiled = prepare(mixed.program.machine)
    count = mixed.program.mixtures[0].experts
    high = 1 << 29
    for bias in (
        [0] * count,
        [high] * count,
        [-high] * count,
        [0] * (count - 1) + [high],
        [high] + [-high] * (count - 1),
    ):
        program = compile_model(gated(mixed.program.model, bias), mixed.program.machine)
        mixture = program.mixtures[0]
        for lengths in routing_of(program, mixed.images)[0].values():
            assert sorted(lengths)[-mixture.top :] == [mixture.tokens] * mixture.top
        report = cosimulate(
            program, mixed.images, memory=mixed.memory, tensors="none", prepared=compiled
        )
        assert report.bit_exact_images == len(mixed.images)
        assert report.cycle_exact


def test_parts_sum_to_the_total_whatever_the_routing(mixed) -> None:
    routing = routing_of(mixed.program, mixed.images)
    assert any(0 in lengths for queues in routing for lengths in queues.values())
    report = simulate(mixed.program, images=len(mixed.images), routing=routing)
    lost = lost_cycles(report)
    assert sum(lost.parts.values()) == report.cycles
    assert min(lost.parts.values()) >= 0


def test_an_expert_without_tokens_costs_no_transfer(mixed) -> None:
    """Catches weights that are fetched for nobody, and ones that are fetched twice."""
    program = mixed.program
    even = even_routing(program)
    gate, lengths = next(iter(even.items()))
    assert 0 not in lengths
    mixture = program.mixtures[0]
    few = [mixture.tokens * (index < mixture.top) for index in range(mixture.experts)]
    one = {**even, gate: few}
    beats = [
        simulate(program, booted=True, routing=[routing]).counters["READ_BEATS"]
        for routing in (even, one)
    ]
    matrices = [
        fetch.words
        for fetch in program.fetches
        if fetch.expert > mixture.top and fetch.routed == program.mixtures[0].tokens
    ]
    word_beats = -(-8 * program.machine.cols * program.machine.depth // program.machine.port_bits)
    assert beats[0] - beats[1] == sum(matrices) * word_beats > 0


def test_the_estimate_accounts_for_every_operator(mixed) -> None:
    estimate = estimate_fpga("mixed", mixed.program, "fpga:zcu102")
    assert {row.kind for row in estimate.operators} >= {"Gate", "Mixture"}
    assert sum(row.cycles for row in estimate.operators) == estimate.cycles
    assert any("routing" in item.text for item in estimate.assumptions)


def test_an_impossible_routing_is_refused(mixed) -> None:
    """A queue longer than the image has tokens, tokens that are lost, too few queues or images."""
    mixture = mixed.program.mixtures[0]
    even = even_routing(mixed.program)
    for lengths in (
        [mixture.rows, *[0] * (mixture.experts - 1)],
        [1] * mixture.experts,
        [mixture.tokens] * mixture.top,
    ):
        with pytest.raises(VitruviusError, match=f"routing of '{mixture.gate}': expected"):
            simulate(mixed.program, routing=[{**even, mixture.gate: lengths}])
    with pytest.raises(VitruviusError, match="routing: expected that of 2 images, got 1"):
        simulate(mixed.program, images=2, routing=[even])


@pytest.mark.slow
def test_m3vit_whole() -> None:
    workload = resolve_model("m3vit_tiny")
    graph = trace(workload.module, workload.example_inputs, name=workload.name)
    size = (128, 256)
    program = compile_model(quantize(graph, photographs(4, size)), load_machine("experts"))
    assert simulate(program, booted=True).cycles <= CYCLES
    report = cosimulate(program, photographs(2, size, seed=3), tensors="blocks")
    assert report.bit_exact_images == 2
    assert report.cycle_exact
    assert report.tensors_compared == 2 * 24


@pytest.mark.slow
def test_a_trained_mixture_keeps_its_answers() -> None:
    workload = resolve_model("vit_mnistm_moe")
    data = workload.dataset
    graph = trace(workload.module, workload.example_inputs, name=workload.name)
    program = compile_model(quantize(graph, data.calibration_images), load_machine("experts"))
    report = cosimulate(program, data.test_images[:20], tensors="none")
    assert report.bit_exact_images == 20
    assert report.cycle_exact
