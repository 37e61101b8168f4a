"""Experts run queue by queue against every expert on every token, in integers."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from vitruvius.models.integer.gate import Routing, gate, route
from vitruvius.models.integer.mixture import (
    Expert,
    ProductCodes,
    accumulate,
    mixture,
    run_queues,
)
from vitruvius.models.integer.requantize import Dyadic


def product(outputs, inputs, generator):
    def draw(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    return ProductCodes(
        weight=draw(-128, 128, outputs, inputs),
        bias=draw(-5000, 5000, outputs),
        multiplier=draw(1 << 15, 1 << 16, outputs),
        shift=draw(18, 21, outputs),
    )


def experts(count, generator, width=6, hidden=10):
    return [
        Expert(
            product(hidden, width, generator),
            "Gelu",
            Dyadic(40000, 21),
            product(width, hidden, generator),
        )
        for _ in range(count)
    ]


def tokens(count, generator, width=6):
    stream = torch.randint(-(1 << 15), 1 << 15, (count, width), generator=generator)
    source = torch.randint(-128, 128, (count, width), generator=generator)
    return stream, source


@pytest.mark.parametrize("seed", range(4))
def test_queues_equal_the_dense_evaluation(seed):
    generator = torch.Generator().manual_seed(seed)
    stream, source = tokens(21, generator)
    parts = experts(5, generator)
    scores = torch.randint(-60, 60, (21, 5), generator=generator)
    dense = mixture(stream, gate(scores, 2), [part(source) for part in parts])
    assert torch.equal(run_queues(stream, source, route(scores, 2), parts), dense), f"seed {seed}"
    assert not torch.equal(dense, stream)


def test_an_expert_with_no_token_one_token_and_all_tokens():
    generator = torch.Generator().manual_seed(9)
    stream, source = tokens(7, generator)
    parts = experts(4, generator)
    scores = torch.tensor([[100, 50, -50, -100]]).repeat(7, 1)
    scores[3] = torch.tensor([100, -100, -50, 50])
    routing = route(scores, 2)
    assert routing.queue_lengths(4).tolist() == [7, 6, 0, 1]
    dense = mixture(stream, gate(scores, 2), [part(source) for part in parts])
    assert torch.equal(run_queues(stream, source, routing, parts), dense)


def test_a_share_is_rounded_once_half_to_even_and_saturates():
    stream = torch.tensor([[10, 10, 32760, -32760]])
    output = torch.tensor([[3, 5, 32767, -32768]])
    weight = torch.tensor([1 << 14])
    exact = [10 + round(Fraction(3, 2)), 10 + round(Fraction(5, 2)), 32767, -32768]
    assert accumulate(stream, output, weight).tolist() == [exact]


def test_the_order_is_ascending_since_saturation_keeps_it():
    """+, - and - + differ at the end of the range: expert 0 must come first."""
    stream = torch.tensor([[32767]])
    outputs = [torch.tensor([[1000]]), torch.tensor([[-1000]])]
    gates = torch.tensor([[32767, 32767]])
    assert mixture(stream, gates, outputs).tolist() == [[32767 - 1000]]


def test_what_an_expert_gives_for_other_tokens_does_not_matter():
    stream = torch.tensor([[1], [2]])
    gates = torch.tensor([[16384, 0], [0, 16384]])
    garbage = 30000
    outputs = [torch.tensor([[100], [garbage]]), torch.tensor([[garbage], [200]])]
    assert mixture(stream, gates, outputs).tolist() == [[51], [102]]
    routing = Routing(torch.tensor([[0], [1]]), torch.tensor([[16384], [16384]]))
    assert routing.queue_lengths(2).tolist() == [1, 1]
