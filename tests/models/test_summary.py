"""A graph in numbers: against PyTorch's own counters, and by hand."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitruvius.models.graph import Graph, Operator, TensorSpec
from vitruvius.models.summary import Summary, repeats, summarise
from vitruvius.models.trace import trace
from vitruvius.models.zoo.vit import VisionTransformer, VisionTransformerConfig


def op(name: str, kind: str, inputs: str = "", size: int = 1, path: str = "", macs: int = 0):
    return Operator(name, kind, path, "", tuple(inputs.split()), TensorSpec((1, size), "float32"),
                    macs=macs)  # fmt: skip


class Net(nn.Module):
    """Three layers alike in a list, one more beside them, and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        parts = {"wide": nn.Linear(8, 32), "act": nn.ReLU(), "out": nn.Linear(32, 2, bias=False)}
        self.head = nn.Sequential(OrderedDict(parts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


@pytest.fixture(scope="module")
def net() -> Summary:
    return summarise(trace(Net(), (torch.zeros(1, 8),), name="net"))


def test_totals_are_those_of_pytorch(net: Summary) -> None:
    with FlopCounterMode(display=False) as counter:
        Net()(torch.zeros(1, 8))
    assert 2 * net.macs == counter.get_total_flops()
    assert net.routed_macs == net.macs
    assert net.params == sum(parameter.numel() for parameter in Net().parameters())
    # three times Linear and Add of 8 floats, then 32, 32 and 2
    assert net.activation_bytes == 4 * (6 * 8 + 32 + 32 + 2)
    assert (sum(row.macs for row in net.kinds), sum(row.params for row in net.kinds)) == (
        net.macs,
        net.params,
    )


def test_kinds(net: Summary) -> None:
    assert [(row.name, row.count, row.macs, row.params) for row in net.kinds] == [
        ("Linear", 5, 3 * 64 + 256 + 64, 3 * 72 + 288 + 64),
        ("Relu", 1, 0, 0),
        ("Add", 3, 0, 0),
    ]


def test_modules_alike_are_one_row(net: Summary) -> None:
    rows = [(row.depth, row.paths, row.times, row.total.macs) for row in net.modules]
    assert rows == [
        (0, ("layers.0", "layers.1", "layers.2"), 3, 192),
        (0, ("head",), 1, 320),
        (1, ("head.wide",), 1, 256),
        (1, ("head.act",), 1, 0),
        (1, ("head.out",), 1, 64),
        (0, ("",), 1, 0),
    ]
    assert net.modules[-1].own
    assert net.modules[-1].total.count == 3


def test_depth_and_wrappers() -> None:
    """A module around nearly everything uses up no level."""
    wrapped = nn.Sequential()
    wrapped.add_module("model", Net())
    graph = trace(wrapped, (torch.zeros(1, 8),), name="wrapped")
    at_one = [row.paths[0] for row in summarise(graph, depth=1).modules if not row.own]
    assert at_one == ["model", "model.layers.0", "model.head"]
    at_two = [row.paths[0] for row in summarise(graph, depth=2).modules if not row.own]
    assert at_two == [*at_one, "model.head.wide", "model.head.act", "model.head.out"]


def test_the_peak_counts_what_is_alive_and_aliases_once() -> None:
    graph = Graph(
        "peak",
        [
            op("x", "Input", size=10),
            op("a", "Relu", "x", 20),  # x, a: 30
            op("view", "View", "a", 20),
            op("b", "Relu", "a", 5),  # a is still read through the view: 25
            op("c", "Concat", "view b", 25),  # a, b, c: 50
            op("d", "Relu", "c", 3),  # c, d: 28
            op("out", "Output", "d", 3),
        ],
        {},
    )
    summary = summarise(graph)
    assert (summary.peak_bytes, summary.peak_at) == (4 * 50, "c")
    assert summary.activation_bytes == 4 * (20 + 5 + 25 + 3)


def test_the_peak_of_a_transformer_is_at_its_widest_activation() -> None:
    """Residual stream, hidden layer and its activation: tokens x (dim + 2 hidden)."""
    config = VisionTransformerConfig(
        image_size=16, patch_size=4, channels=1, classes=2, dim=16, depth=2, heads=2
    )
    module = VisionTransformer(config)
    summary = summarise(trace(module, (torch.zeros(1, 1, 16, 16),), name="vit"))
    assert summary.peak_bytes == 4 * config.tokens * (16 + 2 * 64)
    assert summary.peak_at == "blocks.0.mlp.act"


def test_experts_that_are_not_chosen_cost_nothing_with_routing() -> None:
    config = VisionTransformerConfig(
        image_size=8,
        patch_size=4,
        classes=2,
        dim=16,
        depth=2,
        heads=2,
        experts={"count": 8, "top_k": 2, "hidden_ratio": 2.0},
    )
    graph = trace(VisionTransformer(config), (torch.zeros(1, 3, 8, 8),), name="moe")
    summary = summarise(graph)
    one_expert = config.tokens * 2 * 16 * 32
    assert summary.macs - summary.routed_macs == 6 * one_expert


def test_critical_paths_by_cost_and_by_length() -> None:
    graph = Graph(
        "paths",
        [
            op("x", "Input"),
            op("heavy", "Linear", "x", macs=100),
            *(op(f"b{n}", "Relu", f"b{n - 1}" if n else "x", path=f"list.{n}") for n in range(4)),
            op("light", "Linear", "b3", macs=10),
            op("view", "View", "light"),
            op("sum", "Add", "heavy view"),
            op("out", "Output", "sum"),
        ],
        {},
    )
    summary = summarise(graph)
    assert summary.by_macs.operators == ("heavy", "sum")
    assert (summary.by_macs.macs, summary.by_macs.length) == (100, 2)
    assert summary.by_length.operators == ("b0", "b1", "b2", "b3", "light", "sum")
    assert (summary.by_length.macs, summary.by_length.length) == (10, 6)
    assert [(run.operators, run.times) for run in summary.by_length.runs] == [
        (("b0",), 4),
        (("light", "sum"), 1),
    ]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("", []),
        ("abc", [(0, 1, 1), (1, 1, 1), (2, 1, 1)]),
        ("aaaa", [(0, 1, 4)]),
        ("xababab", [(0, 1, 1), (1, 2, 3)]),
        ("abcabcd", [(0, 3, 2), (6, 1, 1)]),
        ("aabaab", [(0, 3, 2)]),
    ],
)
def test_repeats(tokens: str, expected: list[tuple[int, int, int]]) -> None:
    assert repeats(tokens) == expected


def test_repeats_cover_a_sequence() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        tokens = torch.randint(0, 3, (30,), generator=generator).tolist()
        rebuilt: list[int] = []
        for start, period, times in repeats(tokens):
            assert start == len(rebuilt)
            rebuilt += tokens[start : start + period] * times
        assert rebuilt == tokens, "seed 0"
