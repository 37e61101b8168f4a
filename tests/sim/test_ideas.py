"""Edge-MoE's ideas with and without each: designs in their place, and what the RTL can switch."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from vitruvius.benchmarks.random_pairs import random_machine
from vitruvius.errors import VitruviusError
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.core import Target
from vitruvius.hwgen.core.instruction import Destination, Product, Source
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.models.integer_model import IntegerModel
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.zoo.config import Experts, VisionTransformerConfig
from vitruvius.models.zoo.vit import VisionTransformer
from vitruvius.sim.cosim import cosimulate
from vitruvius.sim.cycle import simulate
from vitruvius.sim.ideas import IDEAS, compare, product_kinds
from vitruvius.sim.ideas_cells import load_cells
from vitruvius.sim.ideas_design import Design, OtherHardware
from vitruvius.sim.ideas_storage import storage_bits
from vitruvius.sim.routing import even_routing, routing_of
from vitruvius.sim.token_order import token_by_token

TOKENS, DIM, EXPERTS, TOP, PORT_BYTES = 17, 16, 4, 2, 8
CONFIG = VisionTransformerConfig(
    image_size=(8, 8), patch_size=2, channels=1, classes=10, dim=DIM, depth=2, heads=2,
    mlp_ratio=2.0, experts=Experts(count=EXPERTS, top_k=TOP, hidden_ratio=1.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def mixed(images) -> IntegerModel:
    """17 tokens, a layer with an MLP and one with four experts of 16 x 16 twice."""
    torch.manual_seed(0)
    module = VisionTransformer(CONFIG).eval()
    return quantize(trace(module, (torch.zeros(1, 1, 8, 8),), name="mixed"), images)


@pytest.fixture(scope="module")
def machine():
    small = load_machine("small")
    buffers = small.buffers.model_copy(update={"experts": EXPERTS, "results": 512})
    return small.model_copy(update={"name": "small-experts", "buffers": buffers})


@pytest.fixture(scope="module")
def found(mixed, machine):
    return compare(mixed, machine)


def alone(found, idea: str) -> list:
    return [row for row in found.alone if row.idea == idea]


def test_all_six_is_what_simulate_says(found, mixed, machine) -> None:
    report = simulate(compile_model(mixed, machine))
    full = found.full
    assert full.design == Design()
    assert (full.cycles, full.port_words) == (report.cycles, report.counters["READ_BEATS"])
    assert full.query_words == report.counters["QUERY_WORDS"]


def test_each_step_of_the_ladder_adds_one_idea(found) -> None:
    """Catches an idea that is left out, added twice, or taken away again."""
    assert [row.idea for row in found.ladder] == ["", *(idea.name for idea in IDEAS)]
    assert all(row.design != Design() for row in found.ladder[:-1])
    for before, after in pairwise(found.ladder):
        changed = [
            name for name, value in vars(before.design).items() if vars(after.design)[name] != value
        ]
        assert len(changed) == 1
        assert vars(after.design)[changed[0]] == vars(Design())[changed[0]]


def test_words_of_weights_token_by_token(found) -> None:
    """By hand: two matrices of 16 x 16 bytes for every token and expert of it, in words of 8
    bytes; expert by expert once for each of the four. Catches weights that are kept or skipped.
    """
    row = alone(found, "expert-by-expert order")[0]
    matrices = 2 * DIM * DIM // PORT_BYTES
    assert row.port_words - found.full.port_words == (TOKENS * TOP - EXPERTS) * matrices
    assert row.cycles > found.full.cycles


def test_the_order_of_tokens_changes_nothing_without_experts(digits_model) -> None:
    """The conditions of transfers are the compiler's own. Catches one that is renumbered wrong."""
    for prefetch in (True, False):
        program = compile_model(digits_model, load_machine("small"), prefetch=prefetch)
        made = token_by_token(program, {}, prefetch=prefetch)
        assert made.fetches == program.fetches
        assert made.norms == program.norms
        assert [step.instruction for step in made.steps] == [
            step.instruction for step in program.steps
        ]


def test_tokens_in_turn_do_the_same_work(mixed, machine) -> None:
    """As many rows through each expert, and of each token its own experts once."""
    program = compile_model(mixed, machine)
    made = token_by_token(program, even_routing(program))
    report = simulate(made)
    before = simulate(program)
    assert sum(item.macs for item in report.products) == sum(i.macs for i in before.products)
    rows = [step.name for step in made.steps if step.gate]
    assert len(rows) == TOKENS * TOP * 2
    assert rows.count("blocks.1.mlp.experts.0.fc1") == 9  # the first of 34 entries in 4 queues
    assert made.steps[-1].instruction.final == 1
    assert sum(step.instruction.final for step in made.steps) == 1


def test_a_normalisation_waits_for_the_readers_of_the_one_before(mixed, machine) -> None:
    """Those in the order of tokens too. Catches rows that are overwritten while experts read."""
    program = compile_model(mixed, machine)
    for one in (program, token_by_token(program, even_routing(program))):
        last: dict[int, int] = {}  # products when all readers of a normalisation are issued
        for index, step in enumerate(one.steps):
            if step.instruction.a_source is Source.NORMAL:
                last[step.instruction.row_threshold] = index + 1
        waits = [norm.instruction.start_threshold for norm in one.norms]
        assert waits[1:] == list(last.values())[: len(waits) - 1]


@pytest.mark.parametrize("prefetch", [True, False])
def test_no_weight_is_overwritten_before_it_is_read(mixed, machine, prefetch: bool) -> None:
    """In the order of tokens, two images; without prefetch nothing begins before its turn."""
    program = compile_model(mixed, machine, prefetch=prefetch)
    made = token_by_token(program, even_routing(program), prefetch=prefetch)
    report = simulate(made, images=2)
    readers = {
        step.instruction.start_threshold - 1: index
        for index, step in enumerate(made.steps)
        if step.instruction.start_wait.name == "FETCHED"
    }
    spans = []
    for number, (begun, _) in enumerate(report.fetches):
        image, index = divmod(number, len(made.fetches))
        fetch = made.fetches[index]
        if fetch.target is not Target.WEIGHT or index not in readers:
            continue
        product = image * len(made.steps) + readers[index]
        here = range(fetch.destination, fetch.destination + fetch.words)
        for other, reader in spans:
            if here.start < other.stop and other.start < here.stop:
                assert begun >= report.products[reader].end
        if not prefetch and product:
            assert begun >= report.products[product - 1].end
        spans.append((here, product))


@pytest.mark.parametrize("kind", ["digits", "mixed"])
def test_without_prefetch_never_faster(kind: str, mixed, machine, digits_model) -> None:
    model = {"digits": digits_model, "mixed": mixed}[kind]
    for one in (machine, load_machine("medium" if kind == "digits" else "experts")):
        runs = [
            simulate(compile_model(model, one, prefetch=prefetch), images=2).counters
            for prefetch in (True, False)
        ]
        assert runs[0]["CYCLES"] < runs[1]["CYCLES"]
        assert runs[0]["READ_BEATS"] == runs[1]["READ_BEATS"]


def test_the_verilog_without_prefetch(digits_model, mixed, images, digit_images) -> None:
    """The switch that the comparison calls RTL: bits, and every counter as simulated, of a model
    without experts and of one with them. Their accelerators are those of other tests.
    """
    for model, one, given in (
        (digits_model, load_machine("small"), digit_images.test_images[:2]),
        (mixed, random_machine(13), images),
    ):
        program = compile_model(model, one, prefetch=False)
        report = cosimulate(program, given, tensors="none")
        assert report.bit_exact_images == len(given)
        assert report.cycle_exact
        routing = routing_of(program, given)
        ahead = simulate(compile_model(model, one), images=len(given), routing=routing)
        assert report.cycles > ahead.cycles


def test_the_accelerator_is_one_of_the_designs(mixed, machine) -> None:
    """Catches contracts that differ from the hardware's where nothing is taken away."""
    program = compile_model(mixed, machine)
    assert (
        simulate(program, contracts=OtherHardware(Design(), 12)).counters
        == simulate(program).counters
    )


@pytest.mark.parametrize(
    ("design", "steps", "step_cycles", "reads"),
    [
        # 129 queries, 9 tiles of keys, words of a head: 33 batches of 4, the last of one
        (Design(), 33 * 9, 4, 33 * 9),
        (Design(attention="query"), 129 * 9, 4, 129 * 9),
        (Design(attention="turns"), 32 * (9 + 3) + 9, 4, 33 * 9),
        (Design(attention="copies"), 33 * 9, 4, 33 * 9),
        (Design(unit="shares"), 33 * 9, 48, 33 * 9),
        (Design(unit="shares", attention="query"), 129 * 9, 48, 129 * 9),
        (Design(gelu="evaluators"), 33 * 9, 4, 33 * 9),
    ],
)
def test_steps_of_scores_by_hand(design, steps: int, step_cycles: int, reads: int) -> None:
    one = load_machine("experts")
    item = Product(tokens=129, tiles=9, words=4, destination=Destination.SCORE)
    hardware = OtherHardware(design, 12)
    plan = hardware.schedule(item, one)
    assert (plan.steps, plan.step_cycles) == (steps, step_cycles)
    assert plan.padding == 0
    assert hardware.read_steps(item, plan, one) == reads
    slot, load, finish = hardware.rows(item, plan, one)
    assert int(finish[-1]) == steps - 1
    assert (finish >= load + item.tiles - 1).all()
    assert hardware.loads(item, one) == (4 if design.attention == "copies" else 1)
    assert int(slot.max()) == (0 if design.attention == "query" else 3)


def test_rows_of_a_gelu_without_a_table_wait_for_its_evaluators() -> None:
    """19 + 50 cycles, of the architecture that docs/edge-moe.md describes, for each of four rows;
    scores do not wait. And three readings of a row of scores, two of them that long.
    """
    hardware = OtherHardware(Design(gelu="evaluators", softmax="passes"), 12)
    item = Product(tokens=129, tiles=24, words=12, destination=Destination.GELU)
    plan = hardware.schedule(item, load_machine("experts"))
    assert (plan.step_cycles, plan.padding) == (4 * 69, 4 * 69 - 12)
    assert hardware.softmax_cycles(9) == 27
    assert OtherHardware(Design(softmax="evaluators"), 12).softmax_cycles(9) == 9 * (1 + 19 + 50)


def test_only_what_the_hardware_can_switch_is_called_rtl(found, digits_model) -> None:
    """Catches a figure without RTL behind it that claims it, and the other way round."""

    def rtl(rows) -> list[Design]:
        return [row.design for row in rows if row.source == "RTL"]

    assert rtl(found.ladder) == [Design(prefetch=False), Design()]
    assert rtl(found.alone) == [Design(prefetch=False)]
    dense = compare(digits_model, load_machine("small"))
    assert rtl(dense.alone) == [Design(attention="copies"), Design(prefetch=False)]
    naive = load_machine("small").model_copy(update={"order": "naive"})
    report = simulate(compile_model(digits_model, naive))
    (row,) = (row for row in dense.alone if row.design == Design(attention="copies"))
    assert row.cycles == report.cycles
    assert row.peak_query_words == report.counters["PEAK_QUERY_WORDS"] == 4
    assert dense.without == (("expert-by-expert order", "the model has no experts"),)
    assert [row.idea for row in dense.ladder] == ["", *(idea.name for idea in IDEAS[1:])]


def test_words_on_the_chip(found) -> None:
    """One query at a time reads all keys for each: 17 x 5 tiles of 2 words, 2 heads, 2 layers; the
    same for values: 17 x 2 tiles of 5 words. Four slots together need 5 batches.
    """
    query, turns, copies = alone(found, "attention order")
    assert query.key_value_words == 2 * 2 * TOKENS * (5 * 2 + 2 * 5)
    assert copies.key_value_words == turns.key_value_words == 2 * 2 * 5 * (5 * 2 + 2 * 5)
    assert {row.query_words for row in found.alone} == {2 * 2 * TOKENS * 2}
    assert (query.peak_query_words, turns.peak_query_words, copies.peak_query_words) == (1, 1, 4)


def test_a_kind_of_product_for_each_unit(found, mixed, digits_model) -> None:
    kinds = [
        "patch embedding", "query", "key", "value", "scores", "weighted values", "projection",
        "MLP's first", "MLP's second",
    ]  # fmt: skip
    assert list(product_kinds(digits_model)) == [*kinds, "head"]
    with_experts = [*kinds, "gate", "expert's first", "expert's second", "head"]
    assert list(product_kinds(mixed)) == with_experts == list(found.kinds)
    shares, copies = alone(found, "shared unit")
    assert (shares.multipliers, copies.multipliers) == (64, 13 * 64)
    assert copies.cycles == found.full.cycles < shares.cycles


def test_bits_on_the_chip(machine) -> None:
    """By hand, for 4 slots, 4 lanes and up to 64 tokens."""
    full = sum(storage_bits(machine, Design()).values())

    def more(**changes: str) -> int:
        return sum(storage_bits(machine, replace(Design(), **changes)).values()) - full

    assert more(gelu="table") == 2 * 65_536 * 16
    assert more(softmax="passes") == (2 * 64 - 2 * 4) * 64 * 16
    assert more(attention="copies") == 3 * (24 + 8) * 1024 * 8
    assert more(unit="shares") == more(attention="query") == more(experts="token") == 0


def test_bad_requests_are_refused(mixed, machine, digits_model) -> None:
    naive = load_machine("small").model_copy(update={"order": "naive"})
    with pytest.raises(VitruviusError, match="expected order reordered"):
        compare(digits_model, naive)
    with pytest.raises(VitruviusError, match="expected external memory for a model with experts"):
        compare(mixed, machine.model_copy(update={"memory": 512}))
    bare = IntegerModel("bare", digits_model.operators[:3], digits_model.tensors)
    with pytest.raises(VitruviusError, match="bare: expected a model with attention"):
        compare(bare, machine)


def test_cells_were_counted_for_every_idea_that_changes_hardware() -> None:
    cells = load_cells()
    ideas = {item.idea for item in cells.cells}
    assert ideas - {""} == {idea.name for idea in IDEAS} - {"prefetch"}
    assert "benchmarks/ideas.py" in cells.command
    assert all(item.lut + item.bram36 > 0 for item in cells.cells)
