"""Gated short convolutions, gated MLPs, caches and scans: found where they are, and only there."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vitruvius.models.blocks import blocks_of
from vitruvius.models.graph import Graph
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.models.zoo.language import HybridLanguageModel


def counted(graph: Graph) -> Counter[tuple[str, int, int]]:
    return Counter((block.kind, block.width, block.size) for block in blocks_of(graph))


def test_prefill_and_decode_have_the_blocks_of_the_config() -> None:
    module = resolve_model("lfm2_tiny").module
    assert isinstance(module, HybridLanguageModel)
    layers = {("gated MLP", 64, 160): 4, ("gated short convolution", 64, 3): 2}
    prefill = trace(module, module.inputs(12), name="prefill")
    assert counted(prefill) == layers
    decode = trace(module, module.inputs(1, 9), name="decode")
    # two attentions keep 9 keys and 9 values of 2 x 16, two convolutions 2 vectors
    assert counted(decode) == layers | {("cache", 32, 9): 4, ("cache", 64, 2): 2}


def test_a_scan_is_a_block() -> None:
    workload = resolve_model("ssm_tiny")
    graph = trace(workload.module, workload.example_inputs, name="ssm")
    assert counted(graph) == {("scan", 32 * 8, 32): 2}


class _Near(nn.Module):
    """One gated convolution (b), and what looks like a block and is none: a convolution that mixes
    channels (a), a gate that is a parameter (c), and an activation times something that no Linear
    computes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.Conv1d(6, 6, 3, bias=False)
        self.depthwise = nn.Conv1d(6, 6, 3, groups=6, bias=False)
        self.gate = nn.Parameter(torch.rand(6, 1))
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        a = x * self.mixing(functional.pad(x * x.tanh(), (2, 0)))
        b = x.tanh() * self.depthwise(functional.pad(a, (2, 0)))
        c = self.depthwise(functional.pad(self.gate * b, (2, 0))) * x
        return self.last(functional.silu(self.first(c.mT)) * x.mT)


def test_what_only_looks_like_a_block_is_none() -> None:
    graph = trace(_Near(), (torch.rand(1, 6, 9),), name="near")
    assert counted(graph) == {("gated short convolution", 6, 3): 1}


@pytest.mark.parametrize("name", ["vit_digits", "autoneural_encoder_tiny"])
def test_vision_models_have_none(name: str) -> None:
    workload = resolve_model(name)
    assert not blocks_of(trace(workload.module, workload.example_inputs, name=name))
