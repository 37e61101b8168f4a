"""Edge-MoE's cycles against counts of its published loops, and its published figures."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.models.zoo import ZOO
from vitruvius.models.zoo.config import Experts, VisionTransformerConfig
from vitruvius.sim.edge_moe import (
    attention_cycles,
    expert_cycles,
    key_steps,
    linear_cycles,
    patch_embed_cycles,
    simulate_edge_moe,
    weight_cycles,
)
from vitruvius.sim.edge_moe_ablation import STEPS, ablation, unknowns
from vitruvius.sim.edge_moe_architecture import (
    MEASURED_ROUTING,
    EdgeMoE,
    Routing,
    Techniques,
    balanced_routing,
    default_routing,
)

M3VIT = ZOO["m3vit_tiny"].config
BOARD = EdgeMoE()
WIDE = EdgeMoE(port_bits=256)
NO_TECHNIQUE = STEPS[0].techniques
N, D, HIDDEN, EXPERT = M3VIT.tokens, M3VIT.dim, M3VIT.hidden, M3VIT.expert_hidden


def ms(cycles: float) -> float:
    return cycles / BOARD.clock_hz * 1e3


# First acceptance: figures that the published schedule gives exactly


def test_the_published_figures_come_out_exactly() -> None:
    assert key_steps(N, BOARD.query_slots) == 4_257
    assert attention_cycles(WIDE, N, D) == 102_168
    assert attention_cycles(BOARD, N, D) == 204_336
    assert linear_cycles(BOARD, D, D, N) == 18_576
    assert linear_cycles(BOARD, D, HIDDEN, N) == linear_cycles(BOARD, HIDDEN, D, N) == 74_304
    assert linear_cycles(BOARD, D, EXPERT, 1) == linear_cycles(BOARD, EXPERT, D, 1) == 288
    assert weight_cycles(WIDE, D, D) == 2_304
    assert weight_cycles(WIDE, D, HIDDEN) == weight_cycles(WIDE, HIDDEN, D) == 9_216
    assert weight_cycles(WIDE, D, EXPERT) == weight_cycles(WIDE, EXPERT, D) == 4_608
    assert weight_cycles(BOARD, D, D) == 4_608
    assert patch_embed_cycles(BOARD, M3VIT) == 73_728


def short_model(arch: EdgeMoE, techniques: Techniques | None = None) -> tuple[int, int, float]:
    """The short model's QK and AV, even layer, odd layer with 12.5 experts used: no fill."""
    square = 4 * (linear_cycles(arch, D, D, N) + weight_cycles(arch, D, D))
    even = square + sum(
        linear_cycles(arch, *pair, N) + weight_cycles(arch, *pair)
        for pair in ((D, HIDDEN), (HIDDEN, D))
    )
    products = 2 * (linear_cycles(arch, D, EXPERT, N) + linear_cycles(arch, EXPERT, D, N))
    loads = MEASURED_ROUTING.used * (
        weight_cycles(arch, D, EXPERT) + weight_cycles(arch, EXPERT, D)
    )
    return 2 * attention_cycles(arch, N, D, techniques), even, square + max(products, loads)


def test_the_terms_of_the_short_model() -> None:
    """Used experts counted wrongly, a missing port factor or a load left out would show here."""
    attention, even, odd = short_model(BOARD)
    assert (attention, even, odd) == (2 * 204_336, 278_208, 323_136)
    assert ms(12 * attention) == pytest.approx(16.35, abs=0.005)
    assert ms(6 * (even + odd)) == pytest.approx(12.03, abs=0.005)
    assert 12 * attention / (34.64e-3 * BOARD.clock_hz) == pytest.approx(0.472, abs=0.001)
    assert 6 * (even + odd) / (34.64e-3 * BOARD.clock_hz) == pytest.approx(0.347, abs=0.001)


@pytest.mark.parametrize(
    ("arch", "published"),
    [(WIDE, 17.8), (EdgeMoE(query_slots=8), 20.5), (EdgeMoE(query_slots=1), 75.9)],
)
def test_the_two_terms_on_other_ports_and_slots(arch: EdgeMoE, published: float) -> None:
    attention, even, odd = short_model(arch)
    assert ms(12 * attention + 6 * (even + odd)) == pytest.approx(published, abs=0.06)


def test_one_slot_is_the_order_without_the_technique() -> None:
    naive = Techniques(attention_order=False)
    assert attention_cycles(BOARD, N, D, naive) == N * N * 24 * 2
    one = EdgeMoE(query_slots=1)
    assert attention_cycles(BOARD, N, D, naive) == attention_cycles(one, N, D)


# The formulas against the loops, counted one by one


def walked_steps(tokens: int, slots: int) -> int:
    """Key steps of the skewed schedule, walked until every row has met every key once."""
    met: set[tuple[int, int]] = set()
    for step in range(tokens * (tokens + slots)):
        batch, key = divmod(step, tokens)
        for slot in range(slots):
            row = (batch if key >= slot else batch - 1) * slots + slot
            if 0 <= row < tokens:
                assert (row, key) not in met
                met.add((row, key))
        if len(met) == tokens * tokens:
            return step + 1
    raise AssertionError("a row never met a key")


@pytest.mark.parametrize(
    ("tokens", "slots"),
    [*((129, slots) for slots in (1, 2, 3, 4, 5, 8, 13, 16)), (197, 7), (5, 3), (64, 8), (65, 8)],
)
def test_the_skewed_schedule_takes_so_many_steps(tokens: int, slots: int) -> None:
    assert key_steps(tokens, slots) == walked_steps(tokens, slots)


@pytest.mark.parametrize(("inputs", "outputs"), [(192, 768), (100, 33), (16, 1), (17, 16)])
def test_sizes_that_the_tile_does_not_divide_are_rounded_up(inputs: int, outputs: int) -> None:
    tiles = sum(1 for _ in range(0, outputs, 16) for _ in range(0, inputs, 16))
    assert linear_cycles(BOARD, inputs, outputs, 7) == 7 * tiles
    beats = sum(1 for _ in range(outputs) for _ in range(0, inputs, 16))
    assert weight_cycles(WIDE, inputs, outputs) == beats
    assert weight_cycles(EdgeMoE(port_bits=96), inputs, outputs) == 3 * beats


def test_the_patch_embedding_walks_its_loops() -> None:
    config = VisionTransformerConfig(
        image_size=(28, 42), patch_size=14, channels=2, dim=20, heads=2
    )
    steps = sum(
        1
        for _ in range(2)  # rows of patches
        for _ in range(2)  # channels
        for _ in range(14)  # rows of pixels
        for _ in range(0, 42, 32)  # beats of pixels
        for _ in range(0, 20, 8)  # blocks of features
    )
    assert patch_embed_cycles(BOARD, config) == steps


# Experts


def load(inputs: int, outputs: int) -> int:
    """Weights and biases: 2 cycles a beat of 16, two requests of 64 cycles, depths 5 and 3."""
    return outputs * inputs // 16 * 2 + outputs // 16 * 2 + 2 * 64 + 5 + 3


FILL = 79 + 16 + 148
L1, L2 = load(192, 384), load(384, 192)


@pytest.mark.parametrize(
    ("lengths", "cycles"),
    [
        ((), 0),
        ((0, 0), 0),
        # One expert: nothing to load behind its second half.
        ((0, 1, 0), L1 + L2 + (288 + FILL)),
        ((129,), L1 + 2 * (129 * 288 + FILL)),
        # 40 tokens outlast a load, 1 does not.
        ((40, 0, 1), L1 + 2 * (40 * 288 + FILL) + L2 + (288 + FILL)),
        ((1, 40), L1 + L2 + L1 + 2 * (40 * 288 + FILL)),
    ],
)
def test_an_expert_computes_while_the_next_weights_load(
    lengths: tuple[int, ...], cycles: int
) -> None:
    assert expert_cycles(BOARD, 192, 384, lengths)[0] == cycles


def test_without_the_order_each_token_loads_its_own_experts() -> None:
    found, bound = expert_cycles(BOARD, 192, 384, (2, 0, 1), Techniques(expert_order=False))
    assert found == 3 * (L1 + L2 + 2 * (288 + FILL))
    assert bound == "port of the weights"


def test_the_measured_queues_hold_every_token_twice() -> None:
    assert [sum(queue) for queue in MEASURED_ROUTING.queues] == [2 * N, 2 * N]
    assert MEASURED_ROUTING.used == 12.5
    assert default_routing(M3VIT) is MEASURED_ROUTING


def test_queues_that_lose_a_token_are_refused() -> None:
    short = Routing(queues=((0,) * 15 + (257,),), source="test")
    with pytest.raises(VitruviusError, match="expected 16 queues that hold 258 tokens"):
        simulate_edge_moe(M3VIT, routing=short)
    with pytest.raises(VitruviusError, match="at most 129 each"):
        simulate_edge_moe(M3VIT, routing=Routing(((0,) * 15 + (258,),), "test"))


# The whole image


def test_the_final_latency_is_within_a_tenth_of_the_published() -> None:
    assert abs(ablation(M3VIT)[-1].deviation) < 0.10


def test_traffic_is_that_of_the_published_schedule() -> None:
    """78.5 MB of K and V, which cross the ports 33 times and more, and 22 MB of experts."""
    traffic = simulate_edge_moe(M3VIT).traffic_bytes
    assert traffic["K and V"] == 2 * 12 * 102_168 * 32
    assert traffic["weights of experts"] == 6 * 12.5 * 2 * 4_608 * 32


def test_phases_are_as_many_as_the_schedule_has() -> None:
    counts = {phase.name: phase.count for phase in simulate_edge_moe(M3VIT).phases}
    assert counts["LayerNorm"] == counts["residual"] == 24
    assert counts["Q, K, V, projection"] == counts["weights of Q, K, V, projection"] == 48
    assert counts["dense MLP"] == 12
    assert counts["gate"] == counts["experts, weights and products"] == 6


def test_the_gate_takes_what_the_published_schedule_says() -> None:
    """25 to 32 thousand cycles a layer with experts, with the clearing of the sum."""
    phases = {phase.name: phase for phase in simulate_edge_moe(M3VIT).phases}
    layer = sum(phases[name].cycles / 6 for name in ("gate", "clearing of the experts' sum"))
    assert 25_000 < layer < 32_000


@pytest.mark.parametrize(
    ("missing", "touched"),
    [
        ({"attention_order"}, {"QK and softmax statistics", "AV"}),
        ({"table_gelu"}, {"GELU of the dense MLP", "experts, weights and products"}),
        ({"single_pass_softmax"}, {"softmax in three passes"}),
        ({"expert_order"}, {"experts, weights and products"}),
        (
            {"unified_linear"},
            {"Q, K, V, projection", "dense MLP", "experts, weights and products"},
        ),
    ],
)
def test_a_technique_changes_its_own_phases_only(missing: set[str], touched: set[str]) -> None:
    """A switch that leaks into another phase would count a saving twice."""
    full = {phase.name: phase.cycles for phase in simulate_edge_moe(M3VIT).phases}
    without = Techniques(**dict.fromkeys(missing, False))
    found = {p.name: p.cycles for p in simulate_edge_moe(M3VIT, techniques=without).phases}
    changed = {name for name in full | found if full.get(name) != found.get(name)}
    assert changed == touched
    assert all(found[name] > full.get(name, 0) for name in touched)


def test_the_steps_add_one_technique_each_and_every_one_saves() -> None:
    for before, after in pairwise(STEPS):
        differing = [
            f.name
            for f in fields(Techniques)
            if getattr(before.techniques, f.name) != getattr(after.techniques, f.name)
        ]
        assert len(differing) == 1, (before.added, after.added)
    assert STEPS[-1].techniques == Techniques()
    assert [step.published_ms for step in STEPS] == [650.3, 433.4, 353.4, 212.9, 104.3, 34.64]
    assert all((one.saving_ms or 0) > 0 for one in ablation(M3VIT)[1:])


def test_the_value_that_an_unknown_needs_gives_the_published_saving() -> None:
    """Fails if values, scores, pairs or layers are counted wrongly: put in, each closes its gap."""
    need = {one.added: one.implied for one in unknowns(M3VIT)}
    share = replace(BOARD, linear_users=int(need["unified linear unit"]))
    for added, arch, tolerance in (
        ("GELU table", with_evaluation(round(need["GELU table"])), 0.03),
        ("single-pass softmax", with_evaluation(round(need["single-pass softmax"])), 0.03),
        ("unified linear unit", share, 0.05),
    ):
        found = {one.step.added: one for one in ablation(M3VIT, arch)}[added]
        assert found.saving_ms == pytest.approx(found.published_saving_ms, rel=tolerance), added


def with_evaluation(cycles: int) -> EdgeMoE:
    return replace(BOARD, exponential_depth=1, reciprocal_depth=cycles - 1)


def test_no_parameter_is_dead_and_each_has_a_source() -> None:
    """A parameter that no formula reads would be listed as an assumption and mean nothing."""
    for f in fields(EdgeMoE):
        assert f.metadata["text"]
        assert f.metadata["source"] in {"paper", "code", "log"}
        changed = replace(BOARD, **{f.name: 100 * getattr(BOARD, f.name)})
        moved = [
            simulate_edge_moe(M3VIT, arch, techniques).latency_s
            for arch in (BOARD, changed)
            for techniques in (Techniques(), NO_TECHNIQUE)
        ]
        assert moved[:2] != moved[2:], f.name


def test_the_report_lists_every_parameter_the_schedule_and_the_routing() -> None:
    listed = [one.text for one in simulate_edge_moe(M3VIT).assumptions]
    assert len(set(listed)) == len(listed)
    assert {f.metadata["text"] for f in fields(EdgeMoE)} < set(listed)
    assert listed[-1] == "experts with a token, mean"


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_configuration_of_the_zoo_runs(name: str) -> None:
    config = ZOO[name].config
    report = simulate_edge_moe(config)
    names = {phase.name for phase in report.phases}
    assert ("gate" in names) == (config.experts is not None)
    assert all(phase.cycles > 0 for phase in report.phases)


def test_another_model_is_computed_from_its_own_sizes() -> None:
    """DeiT-Tiny at 224: 197 tokens, no experts; a typed-in size of M3ViT would show."""
    report = simulate_edge_moe(ZOO["deit_tiny_patch16_224"].config)
    phases = {phase.name: phase.cycles for phase in report.phases}
    steps = 50 * 197  # 196 is a multiple of 4: nothing at the end
    assert phases["QK and softmax statistics"] == 12 * (steps * 24 * 2 + 73 + 15 + 78 + 64)
    assert phases["dense MLP"] == 12 * 2 * (197 * 48 * 12 + 2 * 64 + 3 + 16 + 5)


def test_equal_queues_differ_by_one_at_most() -> None:
    config = M3VIT.model_copy(
        update={"experts": Experts(count=7, top_k=2, hidden_ratio=2, every=2)}
    )
    (queue,) = balanced_routing(config).queues
    assert (len(queue), sum(queue), max(queue) - min(queue)) == (7, 258, 1)
    assert default_routing(config).queues == (queue,)


def test_sizes_below_one_are_named() -> None:
    with pytest.raises(VitruviusError, match="from 1, got port_bits = 0, query_slots = -1"):
        EdgeMoE(port_bits=0, query_slots=-1)


def test_the_ablation_of_a_model_without_experts_has_no_unknowns() -> None:
    with pytest.raises(VitruviusError, match="model with experts"):
        unknowns(ZOO["deit_tiny_patch16_224"].config)


def test_a_narrow_port_bounds_products_and_softmax_bounds_a_wide_one() -> None:
    """Fails if a phase took one of its processes without asking which is the slowest."""
    narrow = {p.name: p for p in simulate_edge_moe(M3VIT, EdgeMoE(port_bits=16)).phases}
    linear = narrow["Q, K, V, projection"]
    assert (linear.bound, linear.cycles) == (
        "port of the inputs",
        48 * (129 * 24 * 16 + 2 * 64 + 3 + 16 + 5),
    )
    slow = {p.name: p for p in simulate_edge_moe(M3VIT, EdgeMoE(softmax_interval=20)).phases}
    scores = slow["QK and softmax statistics"]
    assert scores.bound == "softmax statistics"
    assert scores.cycles == 12 * (4_257 * 4 * 20 + 73 + 15 + 78 + 64)


@pytest.mark.parametrize(("depth", "each"), [(80, 46 + 154), (500, 46 + 500)])
def test_layernorm_takes_the_longer_of_its_two_halves_for_each_token(depth: int, each: int) -> None:
    phases = simulate_edge_moe(M3VIT, EdgeMoE(norm_read_depth=depth)).phases
    norm = next(phase for phase in phases if phase.name == "LayerNorm")
    assert norm.cycles == 24 * (46 + depth + 129 * each)
