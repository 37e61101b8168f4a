"""The Vision Transformers that traffic was measured on, as small torch modules of their own."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitruvius.models.graph import Graph
from vitruvius.models.trace import trace

SIZES = {
    "CIFAR": (32, 4, 256, 4, 7, 10),
    "Tiny-ImageNet": (64, 4, 192, 12, 9, 200),
}
"""Image, patch, width, heads, layers, classes; MLPs are twice as wide."""


class _Layer(nn.Module):
    """Norms without weights, the second one on the stream itself; q, k and v without bias."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(dim, elementwise_affine=False) for _ in range(2))
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1)) * (dim // self.heads) ** -0.5
        mixed = functional.softmax(scores, dim=-1) @ v
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))
        x = self.norm2(x)
        hidden = functional.gelu(self.fc1(x), approximate="tanh")
        out: Tensor = x + self.fc2(hidden)
        return out


class _Encoder(nn.Module):
    def __init__(self, name: str, layers: int) -> None:
        super().__init__()
        image, patch, dim, heads, _, classes = SIZES[name]
        self.patches = nn.Conv2d(3, dim, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.place = nn.Parameter(torch.zeros(1, (image // patch) ** 2 + 1, dim))
        self.layers = nn.Sequential(*(_Layer(dim, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        out: Tensor = self.head(self.norm(self.layers(x))[:, 0])
        return out


@cache
def encoder(name: str, layers: int | None = None) -> Graph:
    """The graph of one of ``SIZES``, perhaps with fewer layers, with softmax and GELU."""
    torch.manual_seed(0)
    image = SIZES[name][0]
    module = _Encoder(name, SIZES[name][4] if layers is None else layers).eval()
    return trace(module, (torch.zeros(1, 3, image, image),), name=name)
