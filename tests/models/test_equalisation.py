"""Evening out channels: the float graph stays the same, spread is found, calm tensors are left."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vitruvius.models.channels import places
from vitruvius.models.equalisation import equalise
from vitruvius.models.graph import Graph, check, execute
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.trace import trace

OPTIONS = QuantizationOptions()


class Norm(nn.Module):
    """A LayerNorm whose gains go from 1 to ``spread``, read by two Linears."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.left, self.right = nn.Linear(32, 24), nn.Linear(32, 8)
        with torch.no_grad():
            self.norm.weight.copy_(torch.logspace(0, math.log10(spread), 32))
            # Columns that take the spread back, as trained weights do.
            self.left.weight.div_(self.norm.weight)
            self.right.weight.div_(self.norm.weight)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(image.flatten(2).transpose(1, 2))
        return torch.cat([self.left(x), functional.gelu(self.right(x))], -1)


class Attention(nn.Module):
    """Fused projections, two heads, values whose channels differ by up to ``spread``."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        factors = torch.logspace(0, math.log10(spread), 16)
        with torch.no_grad():
            self.qkv.weight[32:].mul_(factors.unsqueeze(1))
            self.qkv.bias[32:].mul_(factors)
            self.proj.weight.div_(factors)

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(2).transpose(1, 2)
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, 2, dim // 2).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*qkv.unbind(0))
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))


def traced(module: nn.Module, channels: int) -> tuple[Graph, Tensor]:
    images = torch.randn(24, channels, 3, 3, generator=torch.Generator().manual_seed(1))
    return trace(module.eval(), (images[:1],), name="part"), images


def rounded(values: Tensor) -> Tensor:
    """The values in 8 bits with one scale, by their largest magnitude."""
    scale = float(values.abs().max()) / 127
    return torch.round(values / scale) * scale


def noise_db(graph: Graph, images: Tensor, name: str, linear: str) -> float:
    """SQNR of ``linear`` when its input ``name`` is rounded to 8 bits, from PyTorch alone."""
    seen = {}
    execute(graph, images, observe=lambda op, value: seen.update({op.name: value}))
    weight = graph.tensors[graph.operator(linear).tensors["weight"]]
    value = seen[name]
    error = (rounded(value) - value) @ weight.t()
    return 10 * math.log10(float((value @ weight.t()).square().sum() / error.square().sum()))


@pytest.mark.parametrize("seed", range(3))
def test_a_norm_with_spread_gains_and_computes_the_same(seed):
    torch.manual_seed(seed)
    graph, images = traced(Norm(100.0), 32)
    even, done = equalise(graph, images, OPTIONS)
    check(even)
    assert [item.name for item in done] == ["norm"]
    assert done[0].gain_db > 6
    assert done[0].spread > 10
    before, after = execute(graph, images), execute(even, images)
    assert float((after - before).abs().max() / before.abs().max()) < 1e-5
    for linear in ("left", "right"):
        gain = noise_db(even, images, "norm", linear) - noise_db(graph, images, "norm", linear)
        assert gain > 6, (linear, gain)


def test_a_norm_without_spread_is_left_alone():
    torch.manual_seed(0)
    graph, images = traced(Norm(1.0), 32)
    even, done = equalise(graph, images, OPTIONS)
    assert done == ()
    assert even is graph


def test_values_with_spread_gain_and_queries_and_keys_stay():
    torch.manual_seed(0)
    graph, images = traced(Attention(50.0), 16)
    (place,) = places(graph)
    even, done = equalise(graph, images, OPTIONS)
    check(even)
    assert [item.name for item in done] == [place.name]
    assert done[0].gain_db > 3
    before, after = execute(graph, images), execute(even, images)
    assert float((after - before).abs().max() / before.abs().max()) < 1e-5
    weight = graph.operator("qkv").tensors["weight"]
    assert torch.equal(even.tensors[weight][:32], graph.tensors[weight][:32])
    assert not torch.equal(even.tensors[weight][32:], graph.tensors[weight][32:])


def test_the_graph_given_keeps_its_tensors():
    torch.manual_seed(0)
    graph, images = traced(Norm(100.0), 32)
    copies = {key: tensor.clone() for key, tensor in graph.tensors.items()}
    equalise(graph, images, OPTIONS)
    assert all(torch.equal(graph.tensors[key], copies[key]) for key in copies)


class Residual(Norm):
    """Also adds the norm itself: its factors cannot be taken back."""

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(image.flatten(2).transpose(1, 2))
        return self.left(x) + x[..., :24]


class Twice(Norm):
    """Reads one weight in two places: it cannot hold two sets of factors."""

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(2).transpose(1, 2)
        return self.left(self.norm(x)) + self.left(x)


@pytest.mark.parametrize("module", [Residual, Twice])
def test_what_cannot_be_taken_back_is_no_place(module):
    graph, _ = traced(module(100.0), 32)
    assert list(places(graph)) == []


def test_a_channel_that_is_always_zero_does_no_harm():
    torch.manual_seed(0)
    module = Norm(100.0)
    with torch.no_grad():
        module.norm.weight[3] = 0.0
        module.norm.bias[3] = 0.0
        module.left.weight[:, 5] = 0.0
        module.right.weight[:, 5] = 0.0
    graph, images = traced(module, 32)
    even, done = equalise(graph, images, OPTIONS)
    assert len(done) == 1
    before, after = execute(graph, images), execute(even, images)
    assert bool(torch.isfinite(after).all())
    assert float((after - before).abs().max() / before.abs().max()) < 1e-5
