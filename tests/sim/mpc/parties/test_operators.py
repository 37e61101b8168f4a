"""Every kind of operator on shares, in one graph: traffic as in the closed forms, values as in
PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.models.graph import Graph, execute_all
from vitruvius.models.trace import trace
from vitruvius.sim.mpc.operators import mpc_traffic
from vitruvius.sim.mpc.options import MpcOptions
from vitruvius.sim.mpc.parties import ring
from vitruvius.sim.mpc.parties.evaluation import refusals
from vitruvius.sim.mpc.parties.operators import LOCAL, SECURE
from vitruvius.sim.mpc.parties.ranges import check_ranges, expected_failures, measured_ranges
from vitruvius.sim.mpc.parties.roles import PartyResult
from vitruvius.sim.mpc.protocols import load_protocol

Rule = Callable[[Tensor], Tensor]

# outputs of one module that gets x in [-3, 3]; how far they may be off
FUNCTIONS: dict[str, tuple[Rule, float]] = {
    "abs": (torch.abs, 1e-3),
    "clamp": (lambda x: x.clamp(-1.0, 0.5), 1e-3),
    "clamp above": (lambda x: x.clamp(max=0.5), 1e-3),
    "less": (lambda x: torch.where(x < 0.1, x, x * 2.0), 1e-3),
    "not less": (lambda x: torch.where(torch.logical_not(x < 0.1), x, x * 2.0), 1e-3),
    "at most": (lambda x: torch.where(x <= 1.0, x, x * 2.0), 1e-3),
    "at least": (lambda x: torch.where(x >= 1.0, x, x * 2.0), 1e-3),
    "more": (lambda x: torch.where(x > 1.0, x, x * 2.0), 1e-3),
    "equal": (lambda x: torch.where(x.roll(0, 1) == torch.relu(x), x, x * 2.0), 1e-3),
    "unequal": (lambda x: torch.where(x != torch.relu(x), x, x * 2.0), 1e-3),
    "sign": (torch.sign, 1e-3),
    "divide": (lambda x: x / 7.0, 1e-3),
    "reciprocal": (lambda x: 1.0 / (torch.relu(x) + 0.5), 1e-2),
    "divide by a sum": (
        lambda x: torch.relu(x) / (torch.relu(x).sum(-1, keepdim=True) + 0.5),
        1e-2,
    ),
    "divide by either sign": (lambda x: x / (x.sum(-1, keepdim=True).clamp(0.5, 9) * -1.0), 2e-2),
    "exp": (lambda x: torch.exp(-torch.relu(x)), 1e-2),
    "group norm": (lambda x: functional.group_norm(x, 2), 2e-2),
    "hard sigmoid": (functional.hardsigmoid, 1e-3),
    "hard swish": (functional.hardswish, 2e-3),
    "unit length": (lambda x: functional.normalize(x, dim=-1), 1e-2),
    "layer norm": (lambda x: functional.layer_norm(x, (6,)), 2e-2),
    "leaky": (lambda x: functional.leaky_relu(x, 0.1), 1e-3),
    "log": (lambda x: torch.log(torch.relu(x) + 0.5), 3e-2),
    "log softmax": (lambda x: functional.log_softmax(x, -1), 6e-2),
    "maximum": (lambda x: torch.maximum(x, x * -0.5), 1e-3),
    "minimum": (lambda x: torch.minimum(x, x * -0.5), 1e-3),
    "mean": (lambda x: x.mean((1, 2)), 1e-3),
    "square": (lambda x: x * x, 1e-3),
    "cube": (lambda x: x**3, 5e-3),
    "fifth": (lambda x: x**5, 0.2),
    "power of -0.5": (lambda x: (torch.relu(x) + 0.5) ** -0.5, 1e-2),
    "quick gelu": (lambda x: x * torch.sigmoid(1.702 * x), 1e-2),
    "row maximum": (lambda x: x.amax(-1), 1e-3),
    "maximum of two axes": (lambda x: x.amax((1, 3), keepdim=True), 1e-3),
    "row minimum": (lambda x: x.amin(2), 1e-3),
    "relu6": (functional.relu6, 1e-3),
    "rms": (lambda x: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-2), 2e-2),
    "sigmoid": (torch.sigmoid, 1e-2),
    "silu": (functional.silu, 2e-2),
    "softmax": (lambda x: x.softmax(-1), 1e-2),
    "softmax of another axis": (lambda x: x.softmax(1), 1e-2),
    "root": (lambda x: torch.sqrt(torch.relu(x) + 0.5), 2e-2),
    "tanh": (torch.tanh, 1e-2),
    "variance": (lambda x: x.var(-1), 1e-2),
    "length": (lambda x: torch.linalg.vector_norm(x, dim=-1), 3e-2),
    "moved": (lambda x: torch.cat([x.roll(1, 2), x.flip(-1)], 1)[:, 1:, :, ::2], 1e-3),
    "padded": (lambda x: functional.pad(x, (1, 2)), 1e-3),
    "summed up": (lambda x: x.cumsum(-1), 1e-3),
    "public product": (lambda x: x @ torch.eye(6).roll(1, 0), 1e-3),
    "public factors": (lambda x: x * (torch.arange(6) - 2), 1e-3),
    "public quotients": (lambda x: x / (torch.arange(6) + 1), 1e-3),
    "public numerator": (lambda x: (torch.arange(6) + 1) / (torch.relu(x) + 1.0), 2e-2),
    "gram": (lambda x: x @ x.transpose(-1, -2), 1e-2),
}


class All(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.rand(6) + 0.5)
        self.table = nn.Parameter(torch.rand(1, 4, 3, 6))
        self.batch = nn.BatchNorm2d(4)
        self.batch.running_var.uniform_(0.5, 2)
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found = [rule(x) for rule, _ in FUNCTIONS.values()]
        trained = [x * self.weights, x + self.table, self.batch(x), x @ self.table[0, 0].mT]
        # a mask of booleans, which the graph holds as a constant: public
        trained.append(torch.where(self.weights > 1, x, -x))
        return (*found, *trained, self.norm(x))


TRAINED = ("times", "plus", "batch norm", "product", "mask", "scaled norm")


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(1)
    return trace(All().eval(), (torch.rand(1, 4, 3, 6),), name="all")


@pytest.mark.parametrize("way", ["published", "other"])
def test_every_kind(
    way: str, graph: Graph, play: Callable[..., list[Any]], task: Callable[..., Any]
) -> None:
    """One wrong constant, sign, axis or count of a single rule fails, and is named."""
    other = MpcOptions(maximum="tree", division="element", weights="once", gelu="pieces")
    options = MpcOptions() if way == "published" else other
    images = 6 * torch.rand(1, 4, 3, 6, generator=torch.Generator().manual_seed(2)) - 3
    asked = task(graph, images, options=options)
    first, second, _ = play((asked, asked), (graph, graph), images)
    assert isinstance(first, PartyResult), (first, second)
    assert isinstance(second, PartyResult), second
    predicted = mpc_traffic(graph, load_protocol("crypten"), options)
    wrong = {}
    for item in first.counted[0]:
        online, offline = predicted[item.name].online, predicted[item.name].offline
        expected = (online.rounds, online.bytes_sent, online.bytes_received, offline.bytes_received)
        counted = (item.rounds, item.bytes_sent, item.bytes_received, item.offline_bytes)
        if counted != expected:
            wrong[f"{item.name} ({item.kind})"] = (counted, expected)
    assert not wrong
    names = [*FUNCTIONS, *TRAINED]
    bounds = [bound for _, bound in FUNCTIONS.values()] + [2e-2] * len(TRAINED)
    off = {}
    for name, bound, words, values in zip(
        names, bounds, first.outputs[0], execute_all(graph, images), strict=True
    ):
        error = float((ring.decode(words, 16) - values.double()).abs().max())
        if error > bound:
            off[name] = error
    assert not off


def test_the_graph_has_every_kind(graph: Graph) -> None:
    """A kind that is not in it is tested nowhere."""
    seen = {op.kind for op in graph.operators()}
    elsewhere = {"Conv2d", "Gelu", "Linear", "RepeatBatch", "Concat", "Output"}
    assert SECURE.keys() - seen - elsewhere - LOCAL == set()


def traced(rule: Rule, *shape: int) -> Graph:
    class One(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return rule(x)

    return trace(One(), (torch.rand(1, *shape),), name="one")


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (torch.erf, "Erf has no evaluation on shares"),
        (lambda x: x**1.5, "no power 1.5 on shares"),
        (lambda x: torch.linalg.vector_norm(x, 1, dim=-1), "only the Euclidean norm on shares"),
        (lambda x: functional.pad(x, (1, 1), mode="reflect"), "on shares"),
        (lambda x: torch.where((x < 1.0) & (x > 0.0), x, 0.0), "'and' of secret truths on shares"),
    ],
)
def test_what_has_no_evaluation_is_named(rule: Rule, reason: str) -> None:
    found = refusals(traced(rule, 3, 4))
    assert [text for _, text in found] == [found[0][1]]
    assert reason in found[0][1]


def test_a_ring_that_is_too_small_is_refused_with_the_tensor_and_its_bits() -> None:
    graph = traced(lambda x: (x * x) * (x * x), 3, 4)
    ranges = measured_ranges(graph, torch.full((1, 3, 4), 90.0))
    widest = graph.operators()[-2].name
    assert check_ranges(ranges, graph, MpcOptions(), 16) == (widest, 1 + 32 + 26)
    with pytest.raises(VitruviusError) as caught:
        check_ranges(ranges, graph, MpcOptions(), 20)
    assert f"{widest} needs 67 bits" in str(caught.value)
    assert "does not fit a ring of 64 bits with 20 fraction bits" in str(caught.value)


def test_a_point_so_far_left_that_truncations_go_wrong_is_refused() -> None:
    """At 26 fraction bits a product of 1 wraps once in 4096 truncations."""
    graph = traced(lambda x: x @ x.transpose(-1, -2), 64, 64)
    ranges = measured_ranges(graph, torch.ones(1, 64, 64))
    expected = 64 * 64 * 64 / 2**32
    assert sum(expected_failures(ranges, graph, 16).values()) == pytest.approx(expected)
    check_ranges(ranges, graph, MpcOptions(), 16)
    with pytest.raises(VitruviusError, match=r"26 fraction bits: 64 trunc.* at most 23 fraction"):
        check_ranges(ranges, graph, MpcOptions(), 26)
    check_ranges(ranges, graph, MpcOptions(), 22)


def test_values_outside_a_function_s_range_are_refused() -> None:
    graph = traced(functional.gelu, 3, 4)
    ranges = measured_ranges(graph, torch.full((1, 3, 4), 25.0))
    with pytest.raises(VitruviusError, match=r"gelu gets values up to 25, its tanh form takes 18"):
        check_ranges(ranges, graph, MpcOptions(), 16)
    check_ranges(ranges, graph, MpcOptions(gelu="pieces"), 16)
