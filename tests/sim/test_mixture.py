"""Mixtures of experts: queues with none, one and all of the tokens, in Verilog and in cycles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vitruvius.benchmarks.random_pairs import pair
from vitruvius.errors import VitruviusError
from vitruvius.hwgen.axi.register_map import ErrorCode, register, register_map
from vitruvius.hwgen.core.accelerator import COUNTERS
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.image import ParameterImage
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.models.datasets import photographs
from vitruvius.models.integer_model import IntegerModel
from vitruvius.models.quantize import quantize
from vitruvius.models.resolve import resolve_model
from vitruvius.models.tasks import trace_tasks
from vitruvius.models.trace import trace
from vitruvius.sim.cosim import cosimulate, prepare
from vitruvius.sim.cycle import simulate
from vitruvius.sim.estimate import estimate_fpga
from vitruvius.sim.lost_cycles import lost_cycles
from vitruvius.sim.native.script import Script
from vitruvius.sim.routing import even_routing, routing_of

CYCLES = 1_050_000
SIZE = (128, 256)
ACCURACY = 0.97
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
        winners = sorted(range(count), key=lambda expert: (-bias[expert], expert))[: mixture.top]
        everyone = [mixture.tokens * (expert in winners) for expert in range(count)]
        for routing in routing_of(program, mixed.images):
            assert list(routing.values()) == [everyone] * len(program.mixtures)
        report = cosimulate(program, mixed.images, memory=mixed.memory, prepared=compiled)
        assert report.bit_exact_images == len(mixed.images)
        assert report.cycle_exact
        assert report.queues_compared == len(mixed.images) * len(program.mixtures) * count


def test_experts_of_unequal_widths_are_exact(mixed, unequal_experts) -> None:
    """Catches places, waits and transfers of one expert that are taken from another."""
    model, images = unequal_experts
    program = compile_model(model, mixed.program.machine)
    for routing in routing_of(program, images[:3]):
        assert min(map(min, routing.values())) > 0
    words = {fetch.words for fetch in program.fetches if fetch.expert}
    assert len(words) > 4
    report = cosimulate(program, images[:3], memory=mixed.memory, tensors="all")
    assert report.bit_exact_images == 3
    assert not report.mismatches
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


def test_a_task_is_one_register(mixed) -> None:
    """The task changes between images of one start to the next, with nothing loaded again; each
    image's results, and the cycles of the second start, are those of the task's own model. A task
    that the model does not have ends the run.
    """
    program, images = mixed.program, mixed.images
    tasks = program.model.tasks
    assert tasks > 1
    layout = ParameterImage(program, images=len(images))
    contents = [(layout.parameters, layout.to_bytes())]
    contents += [
        (layout.images + index * layout.image_pitch, layout.image_bytes(image))
        for index, image in enumerate(images)
    ]
    script = Script()
    for name, value in (
        ("PARAMETERS", layout.parameters),
        ("IMAGES", layout.images),
        ("RESULTS", layout.results),
        ("COUNT", len(images)),
        ("IMAGE_PITCH", layout.image_pitch),
        ("RESULT_PITCH", layout.result_pitch),
    ):
        script.write(register(name), value)
    order = [*range(tasks), 0]
    for number, task in enumerate(order):
        script.write(register("TASK"), task).write(register("CONTROL"), 1)
        script.wait_done(10_000_000, name=f"done{number}")
        script.read(register("CYCLES", register_map(COUNTERS)), f"cycles{number}")
        script.dump(layout.results, layout.result_pitch * len(images), f"results{number}")
    script.write(register("TASK"), tasks).write(register("CONTROL"), 1)
    script.wait_done(10_000_000, name="without")
    outcome = prepare(program.machine).run(script, memory=contents, model=mixed.memory)
    seen = []
    for number, task in enumerate(order):
        data = outcome.data[f"results{number}"]
        got = [layout.results_of(data[at * layout.result_pitch :]) for at in range(len(images))]
        assert got == program.model.for_task(task).run(images).flatten(1).tolist()
        seen.append(got)
        predicted = simulate(
            program,
            images=len(images),
            memory=mixed.memory,
            booted=number > 0,
            routing=routing_of(program, images, task),
            task=task,
        )
        assert outcome.values[f"cycles{number}"] == predicted.cycles
    assert seen[0] == seen[-1] != seen[1]
    assert outcome.values["without"] >> 4 & 0xF == ErrorCode.TASK


def test_queues_are_compared_entry_by_entry(mixed) -> None:
    """Catches a comparison that looks at nothing: the golden has other weights in its queues."""
    other = gated(mixed.program.model, list(range(0, 900, 100)))
    program = replace(mixed.program, model=other)
    report = cosimulate(program, mixed.images, task=mixed.task, memory=mixed.memory)
    queues = [item for item in report.mismatches if "queue of expert" in item.tensor]
    assert queues
    right = cosimulate(mixed.program, mixed.images, task=mixed.task, memory=mixed.memory)
    count = sum(mixture.experts for mixture in program.mixtures)
    assert right.queues_compared == count * len(mixed.images)
    assert not right.mismatches


@pytest.fixture(scope="module")
def m3vit():
    workload = resolve_model("m3vit_tiny")
    graph = trace_tasks(workload.module, workload.example_inputs, name=workload.name)
    return compile_model(quantize(graph, photographs(4, SIZE)), load_machine("experts"))


@pytest.mark.slow
def test_m3vit_whole(m3vit) -> None:
    assert simulate(m3vit, booted=True).cycles <= CYCLES
    assert m3vit.model.tasks == 2
    images = photographs(2, SIZE, seed=3)
    for task in range(2):
        report = cosimulate(m3vit, images, task=task, tensors="blocks")
        assert report.bit_exact_images == 2
        assert report.cycle_exact
        assert report.tensors_compared == 2 * 24
        assert report.queues_compared == 2 * 6 * 16


@pytest.mark.slow
def test_m3vit_with_all_experts_in_use(m3vit) -> None:
    """Noise stronger than any photograph: each of the 16 experts has tokens in each of the 6
    mixtures, one of them 1, another 64. From nothing loaded, in a row, and alone with everything
    loaded (1,061,754, 1,035,063 and 1,040,404 cycles) each counter of the Verilog is the
    simulator's. Catches a transfer that is predicted for the even routing only, and a bar that
    holds only there.
    """
    noise = 5 * torch.randn(32, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    routing = routing_of(m3vit, noise)
    full = [
        index for index, queues in enumerate(routing) if min(min(q) for q in queues.values()) > 0
    ]
    images, routing = noise[full[:2]], [routing[index] for index in full[:2]]
    assert len(images) == 2
    prepared = prepare(m3vit.machine)
    report = cosimulate(m3vit, images, tensors="none", prepared=prepared)
    assert report.bit_exact_images == 2
    assert report.cycle_exact
    assert report.rtl_cycles[1] <= CYCLES
    layout = ParameterImage(m3vit)
    script = Script()
    for name, value in (
        ("PARAMETERS", layout.parameters),
        ("IMAGES", layout.images),
        ("RESULTS", layout.results),
        ("COUNT", 1),
    ):
        script.write(register(name), value)
    for start in ("loading", "alone"):
        script.write(register("CONTROL"), 1).wait_done(20 * CYCLES, name=start)
    for name in COUNTERS:
        script.read(register(name, register_map(COUNTERS)), name)
    contents = [
        (layout.parameters, layout.to_bytes()),
        (layout.images, layout.image_bytes(images[0])),
    ]
    outcome = prepared.run(script, memory=contents, model=report.memory)
    alone = simulate(m3vit, booted=True, routing=routing[:1])
    assert {name: outcome.values[name] for name in COUNTERS} == alone.counters
    assert alone.cycles <= CYCLES


@pytest.mark.slow
def test_a_trained_mixture_keeps_its_answers() -> None:
    workload = resolve_model("vit_mnistm_moe")
    data = workload.dataset
    graph = trace(workload.module, workload.example_inputs, name=workload.name)
    model = quantize(graph, data.calibration_images)
    assert model.accuracy(data.test_images, data.test_labels) >= ACCURACY
    images, labels = data.test_images[:20], data.test_labels[:20]
    report = cosimulate(compile_model(model, load_machine("experts")), images, tensors="none")
    assert report.bit_exact_images == 20
    assert report.cycle_exact
    answers = torch.tensor(report.logits).argmax(-1)
    assert torch.equal(answers, model.run(images).argmax(-1))
    assert int((answers == labels).sum()) >= 19
