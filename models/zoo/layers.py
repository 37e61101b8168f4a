"""The layers of a Vision Transformer: attention, MLP, mixture of experts, norms and activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import Experts, VisionTransformerConfig

__all__ = [
    "Attention",
    "LayerScale",
    "MixtureOfExperts",
    "Mlp",
    "QuickGelu",
    "activation",
    "norm",
]


class Attention(nn.Module):
    """Multi-head self-attention with one projection for q, k and v: [B, N, dim] to the same."""

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(x.transpose(1, 2).reshape(batch, tokens, dim))
        return out


class Mlp(nn.Module):
    """Two linear layers with an activation between them: [B, N, dim] to the same."""

    def __init__(self, dim: int, hidden: int, act: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = act
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class MixtureOfExperts(nn.Module):
    """Every token goes to the ``top_k`` experts with the largest gate weights: [B, N, dim] to the
    same.

    The gate weights are the softmax over all experts and are not renormalised after the choice
    (M3ViT, Liang et al. 2022, arXiv 2210.14793). With several tasks each has its own ``gates.T``;
    ``task`` says whose is used, and is fixed when the module is traced.

    Every expert is computed for every token and weighted, with 0 for those not chosen: that is what
    exports. The hardware computes the chosen ones only.
    """

    def __init__(self, dim: int, hidden: int, experts: Experts, act: str) -> None:
        super().__init__()
        self.top_k = experts.top_k
        self.task = 0
        if experts.tasks == 1:
            self.gate = nn.Linear(dim, experts.count, bias=False)
        else:
            self.gates = nn.ModuleList(
                nn.Linear(dim, experts.count, bias=False) for _ in range(experts.tasks)
            )
        self.experts = nn.ModuleList(
            Mlp(dim, hidden, activation(act)) for _ in range(experts.count)
        )

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gates[self.task] if hasattr(self, "gates") else self.gate
        weights = functional.softmax(gate(x), dim=-1)
        top, index = weights.topk(self.top_k, dim=-1)
        routing = torch.zeros_like(weights).scatter(-1, index, top)
        shares = torch.split(routing, 1, dim=-1)
        out: Tensor = shares[0] * self.experts[0](x)
        for share, expert in zip(shares[1:], self.experts[1:], strict=True):
            out = out + share * expert(x)
        return out


class LayerScale(nn.Module):
    """One trained factor per channel (Touvron et al. 2021, arXiv 2103.17239): [B, N, dim] to the
    same.
    """

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class QuickGelu(nn.Module):
    """GELU as CLIP computes it: x times the logistic function of 1.702 x."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


def activation(name: str) -> nn.Module:
    """The activation that a config calls ``name``."""
    modules: dict[str, nn.Module] = {
        "gelu": nn.GELU(),
        "gelu_tanh": nn.GELU(approximate="tanh"),
        "quick_gelu": QuickGelu(),
        "relu": nn.ReLU(),
        "silu": nn.SiLU(),
    }
    return modules[name]


def norm(config: VisionTransformerConfig) -> nn.Module:
    """The norm of ``config``, over the last axis."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.dim, eps=config.norm_eps)
    return nn.LayerNorm(config.dim, eps=config.norm_eps)
