"""Recurrences written as loops: which become a Scan, and which must not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vitruvius.models.graph import Graph, execute
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.sim.npu.report import estimate_npu

T, D = 6, 5


class Loop(nn.Module):
    """A function of the driven values and decays [B, T, D] and a state [B, D]."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function
        torch.manual_seed(0)
        self.decay = nn.Parameter(torch.rand(D))

    def forward(self, u: Tensor, a: Tensor, h: Tensor) -> Tensor:
        return self.function(self, u, a, h)


def traced(function: Callable[..., Tensor]) -> Graph:
    inputs = (torch.rand(1, T, D), torch.rand(1, T, D), torch.rand(1, D))
    graph = trace(Loop(function).eval(), inputs, name="loop")
    many = tuple(torch.rand(3, *tensor.shape[1:]) for tensor in inputs)
    with torch.no_grad():
        assert torch.allclose(execute(graph, *many), Loop(function)(*many), atol=1e-6)
    return graph


def kinds(graph: Graph) -> Counter[str]:
    return Counter(op.kind for op in graph.operators())


def from_state(m: Loop, u: Tensor, a: Tensor, h: Tensor) -> Tensor:
    found = []
    for place in range(T):
        h = a[:, place] * h + u[:, place]
        found.append(torch.tanh(h))
    return torch.stack(found, 1)


def from_zeros_swapped(m: Loop, u: Tensor, a: Tensor, h: Tensor) -> Tensor:
    h = torch.zeros_like(h)
    found = []
    for place in range(T):
        h = u[:, place] + h * a[:, place]
        found.append(h)
    return torch.stack(found, 2)


def fixed_decay(m: Loop, u: Tensor, a: Tensor, h: Tensor) -> Tensor:
    h = u[:, 0]
    found = [h]
    for place in range(1, T):
        h = m.decay * h + u[:, place]
        found.append(h)
    return torch.stack(found, 1) + a


@pytest.mark.parametrize("function", [from_state, from_zeros_swapped, fixed_decay])
def test_a_loop_is_one_scan_and_nothing_is_left_of_it(function: Callable[..., Tensor]) -> None:
    found = kinds(traced(function))
    assert found["Scan"] == 1
    assert not found["Concat"] and not found["Select"] and found["Mul"] == 0


def last_only(m: Loop, u: Tensor, a: Tensor, h: Tensor) -> Tensor:
    for place in range(T):
        h = a[:, place] * h + u[:, place]
    return h


def test_only_the_last_state_is_read_from_the_scan() -> None:
    found = kinds(traced(last_only))
    assert (found["Scan"], found["Select"], found["Mul"]) == (1, 1, 0)


def backwards(m: Loop, u: Tensor, a: Tensor, h: Tensor) -> Tensor:
    for place in reversed(range(T)):
        h = a[:, place] * h + u[:, place]
    return h


def shifted_decay(m: Loop, u: Tensor, a: Tensor, h: Tensor) -> Tensor:
    h = u[:, 0]
    for place in range(1, T):
        h = a[:, place - 1] * h + u[:, place]
    return h


def not_linear(m: Loop, u: Tensor, a: Tensor, h: Tensor) -> Tensor:
    for place in range(T):
        h = torch.tanh(a[:, place] * h + u[:, place])
    return h


@pytest.mark.parametrize("function", [backwards, shifted_decay, not_linear])
def test_another_recurrence_is_no_scan(function: Callable[..., Tensor]) -> None:
    """Each would give other numbers as a Scan; ``traced`` compares them."""
    assert not kinds(traced(function))["Scan"]


def test_a_stack_in_another_order_is_not_rolled() -> None:
    def shuffled(m: Loop, u: Tensor, a: Tensor, h: Tensor) -> Tensor:
        return torch.stack([torch.tanh(u[:, place]) for place in (1, 0, 2, 3, 4, 5)], 1)

    assert kinds(traced(shuffled))["Concat"] == 1


def test_the_zoos_scan_is_two_operators_and_costs_its_tokens_one_by_one() -> None:
    workload = resolve_model("ssm_tiny")
    graph = trace(workload.module, workload.example_inputs, name="ssm")
    found = kinds(graph)
    assert found["Scan"] == 2 and not found["Concat"]
    rows = [row for row in estimate_npu(graph, "edge32").operators if row.kind == "Scan"]
    # 32 tokens, each 32 x 8 states on 32 lanes, multiplied, then requantized; side by side on the
    # lanes, tokens would take a fraction of it
    assert all(row.product_cycles >= 32 * (32 * 8 // 32) * 2 for row in rows)


def test_transformers_mamba_has_one_scan() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.MambaConfig(
        vocab_size=32, hidden_size=16, state_size=4, num_hidden_layers=1, use_mambapy=False
    )

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.model = transformers.MambaModel(config)

        def forward(self, tokens: Tensor) -> Tensor:
            out: Tensor = self.model(tokens, use_cache=False).last_hidden_state
            return out

    graph = trace(Tokens().eval(), (torch.zeros(1, 6, dtype=torch.int64),), name="mamba")
    assert kinds(graph)["Scan"] == 1 and not graph.unmapped
