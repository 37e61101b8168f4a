"""The penalty: what the cost model says, with a gradient, and other choices over other networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitruvius.models.zoo.mpcvit_config import MpcVitConfig
from vitruvius.sim.mpc.network import load_network
from vitruvius.sim.mpc.protocols import load_protocol
from vitruvius.sim.mpc.search.binarise import kept_units, top_units, within_budget
from vitruvius.sim.mpc.search.latency import Place
from vitruvius.sim.mpc.search.penalty import UnitCosts, cost_penalty, l1_penalty, unit_costs

NONE = torch.zeros(0)
CIFAR = MpcVitConfig(depth=2)


def place(network: str) -> Place:
    return Place(load_protocol("crypten"), load_network(network))


def test_costs_are_those_of_the_closed_forms() -> None:
    """ReLU-softmax on H rows of N: 38 rounds, and sent 1/2 (464 N + 608 + 16 (N + 1)) a row; Add
    and scaling are local. Of GELU: 26 rounds and 1/2 848 a value, and the second product of an MLP
    that is not fused, 1 round.
    """
    network = load_network("wan")
    costs = unit_costs(CIFAR, place("wan").latency_s)
    row = (464 * 65 + 608 + 16 * 66) // 2
    assert costs.step_s == pytest.approx(38 * network.round_s())
    assert costs.unit_s == pytest.approx(65 * row / network.bytes_s)
    values, inner = 65 * 512, 65 * 256
    two = 8 * (inner + 512 * 256) + 8 * (values + 512 * 256)
    one = 8 * (inner + 256 * 256)
    sent = values * 424 + two - one
    assert costs.activation_s == pytest.approx(27 * network.round_s() + sent / network.bytes_s)


def test_a_layer_is_one_unit_of_its_own() -> None:
    whole = CIFAR.model_copy(update={"granularity": "layer"})
    one, heads = (
        unit_costs(whole, place("wan").latency_s),
        unit_costs(CIFAR, place("wan").latency_s),
    )
    assert one.unit_s == 0
    assert one.step_s == pytest.approx(heads.step_s + 4 * heads.unit_s)


def test_penalties_are_worth_the_number_of_units_at_first_and_have_a_gradient() -> None:
    costs = UnitCosts(step_s=3.0, unit_s=0.5)
    ones = torch.ones(3, 4, requires_grad=True)
    assert float(l1_penalty(ones, NONE).detach()) == 12
    assert float(cost_penalty(ones, NONE, costs).detach()) == pytest.approx(12)
    # 3 of a layer's step for its largest, 1/2 for each; 15 s together are 12
    values = torch.tensor([[0.5, 0.2], [0.0, -1.0]], requires_grad=True)
    paid = cost_penalty(values, NONE, costs)
    assert float(paid.detach()) == pytest.approx((3 * 1.5 + 0.5 * 1.7) * 4 / 8)
    paid.backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, torch.tensor([[1.75, 0.25], [0.0, -1.75]]))
    betas = torch.tensor([0.5, -1.0], requires_grad=True)
    with_betas = cost_penalty(values, betas, UnitCosts(3.0, 0.5, activation_s=2.0))
    assert float(with_betas.detach() - paid.detach()) == pytest.approx(2 * 1.5 * 4 / 8)
    (l1_penalty(values, betas)).backward()
    assert betas.grad is not None and betas.grad.tolist() == [1.0, -1.0]


def found(importance: torch.Tensor, costs: UnitCosts, strength: float) -> torch.Tensor:
    """Alphas that make strength * penalty - sum(importance * alpha) smallest within 0 to 1."""
    values = torch.ones_like(importance, requires_grad=True)
    optimizer = torch.optim.SGD([values], lr=0.01)
    for _ in range(800):
        optimizer.zero_grad()
        loss = strength * cost_penalty(values, NONE, costs) - (importance * values).sum()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            values.clamp_(0, 1)
    return values.detach()


def test_wan_empties_layers_and_lan_spreads() -> None:
    """One head matters in every layer, and in layer 0 all do a little: a network of slow rounds
    keeps the one layer whole, one of fast rounds the head of each layer.
    """
    importance = torch.full((5, 4), 0.1)
    importance[:, 2] = 1.0
    importance[0] = 0.8
    wan = UnitCosts(step_s=0.76, unit_s=0.02)
    lan = UnitCosts(step_s=0.006, unit_s=0.02)
    slow, fast = found(importance, wan, 0.6), found(importance, lan, 0.6)
    assert (slow[0] > 0.9).all() and (slow[1:] < 0.1).all()
    assert (fast[:, 2] > 0.9).all() and (fast[1:, [0, 1, 3]] < 0.1).all()
    share = 0.35
    by_wan = within_budget(importance.double().numpy(), share, wan)
    by_lan = within_budget(importance.double().numpy(), share, lan)
    assert [len(units) for units in by_wan] == [4, 0, 0, 0, 0]
    assert min(len(units) for units in by_lan) >= 1
    for kept, costs in ((by_wan, wan), (by_lan, lan)):
        spent = costs.seconds([len(units) for units in kept])
        assert spent <= share * costs.seconds([4] * 5) * (1 + 1e-6)


def test_the_shipped_networks_differ_enough_for_the_published_sizes() -> None:
    """At 257 tokens a head's bytes over the LAN outweigh a layer's rounds, over the WAN not."""
    tiny = MpcVitConfig(image_size=(64, 64), dim=192, depth=2, heads=12, classes=200)
    wan, lan = (unit_costs(tiny, place(name).latency_s) for name in ("wan", "lan"))
    assert wan.step_s > 2 * wan.unit_s
    assert lan.unit_s > 2 * lan.step_s


def test_kept_units_are_the_published_numbers() -> None:
    """§1.4: T = 28 and 108 at mu .1, .3, .5, .7; binary fractions would lose one at 0.9."""
    shares = (0.1, 0.3, 0.5, 0.7)
    assert [kept_units(28, share) for share in shares] == [3, 9, 14, 20]
    assert [kept_units(108, share) for share in shares] == [11, 33, 54, 76]
    assert (kept_units(10, 0.9), kept_units(7, 0), kept_units(7, 1)) == (9, 0, 7)


def test_top_units_takes_the_largest_of_all_layers_and_ties_in_order() -> None:
    values = np.array([[0.2, 0.9, -0.3], [0.9, 0.1, 0.5]])
    assert top_units(values, 3) == ((1,), (0, 2))
    assert top_units(values, 0) == ((), ())
    assert top_units(np.ones((12, 2)), 21)[10:] == ((0,), ())


@pytest.mark.parametrize("seed", range(4))
def test_within_budget_is_the_best_of_all_choices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(0.4, 0.5, (3, 3))
    costs = UnitCosts(step_s=float(rng.uniform(0, 3)), unit_s=1.0)
    share = float(rng.uniform(0.1, 1))
    budget = share * costs.seconds([3] * 3)
    best = max(
        float((values * mask).sum())
        for number in range(2**9)
        for mask in [np.array([number >> bit & 1 for bit in range(9)]).reshape(3, 3)]
        if costs.seconds([int(n) for n in mask.sum(1)]) <= budget + 1e-9
    )
    kept = within_budget(values, share, costs)
    got = sum(values[layer, unit] for layer, units in enumerate(kept) for unit in units)
    assert got == pytest.approx(best), f"seed {seed}"
    assert costs.seconds([len(units) for units in kept]) <= budget + 1e-6, f"seed {seed}"
