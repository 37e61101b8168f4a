"""The gate of a mixture of experts: who is chosen, with what weight."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vitruvius.models.integer.gate import GATE_FRACTION, gate, route


def test_ties_go_to_the_lower_index():
    scores = torch.tensor([[5, 9, 9, 9], [7, 7, 7, 7], [0, 3, 1, 3]])
    assert route(scores, 2).experts.tolist() == [[1, 2], [0, 1], [1, 3]]
    assert route(scores, 1).experts.tolist() == [[1], [0], [1]]


def test_scores_decide_where_the_weights_are_both_zero():
    """Far below the maximum every weight is 0; the larger score still takes the place."""
    routing = route(torch.tensor([[-30000, 32767, -20000, -30000]]), 2)
    assert routing.experts.tolist() == [[1, 2]]
    assert routing.weights.tolist() == [[32767, 0]]


@pytest.mark.parametrize("k", [1, 2, 5])
def test_weights_are_the_softmax_over_all_experts(k):
    """Not renormalised over the chosen: the weights of a row sum to less than 1."""
    scores = torch.randint(-100, 100, (64, 5), generator=torch.Generator().manual_seed(k))
    exact = functional.softmax(scores.to(torch.float64) / 32, -1)
    got = gate(scores, k).to(torch.float64) / (1 << GATE_FRACTION)
    chosen = got > 0
    # Each of the 5 weights is off by half of 1/255 at most, of a sum of 255 at least.
    assert float((got - exact)[chosen].abs().max()) < 3 / 255, f"seed {k}"
    assert int((gate(scores, k) > 0).sum(-1).max()) <= k
    largest = exact.topk(k).values[:, -1:]
    assert bool((exact[chosen] >= largest.expand_as(exact)[chosen] - 1e-12).all())


def test_one_expert_alone_has_the_largest_weight_that_fits():
    assert gate(torch.tensor([[123]]), 1).tolist() == [[32767]]


def test_queues_hold_k_entries_per_token_whatever_the_weights():
    scores = torch.randint(-3000, 3000, (2, 33, 6), generator=torch.Generator().manual_seed(4))
    lengths = route(scores, 2).queue_lengths(6)
    assert lengths.shape == (2, 6)
    assert lengths.sum(-1).tolist() == [66, 66]
    by_hand = [(route(scores, 2).experts[1] == expert).sum().item() for expert in range(6)]
    assert lengths[1].tolist() == by_hand
