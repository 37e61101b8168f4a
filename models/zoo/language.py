"""A language model of gated short convolutions, grouped-query attention and SwiGLU, after LFM2.

What a layer keeps from one token to the next is an operand and a result, so that a graph of it
keeps nothing: ``state`` is, layer by layer, the last ``kernel - 1`` gated vectors [B, D, k - 1] of
a convolution, or the keys and values [B, kv_heads, P, d] of an attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .language_config import LanguageConfig

__all__ = ["HybridLanguageModel"]


class ShortConvolution(nn.Module):
    """Gated causal depthwise convolution over a few tokens: x [B, T, D] to the same."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        dim = config.dim
        self.kernel = config.kernel
        self.in_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.conv = nn.Conv1d(dim, dim, config.kernel, groups=dim, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        before, after, value = self.in_proj(x).transpose(1, 2).chunk(3, dim=1)
        gated = before * value
        if state:
            window = torch.cat([state[0], gated], dim=-1)
        else:
            window = functional.pad(gated, (self.kernel - 1, 0))
        out = self.out_proj((after * self.conv(window)).transpose(1, 2))
        return out, (window[..., window.shape[-1] - self.kernel + 1 :],)


class GroupedQueryAttention(nn.Module):
    """Causal attention whose groups of heads share keys and values: x [B, T, D] to the same."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        dim, head = config.dim, config.head_dim
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, head
        self.theta = config.rope_theta
        self.q_proj = nn.Linear(dim, config.heads * head, bias=False)
        self.k_proj = nn.Linear(dim, config.kv_heads * head, bias=False)
        self.v_proj = nn.Linear(dim, config.kv_heads * head, bias=False)
        self.out_proj = nn.Linear(config.heads * head, dim, bias=False)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        if config.qk_norm:
            self.q_norm = nn.RMSNorm(head, eps=config.norm_eps)
            self.k_norm = nn.RMSNorm(head, eps=config.norm_eps)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        batch, tokens, _ = x.shape
        past = state[0].shape[2] if state else 0
        cos, sin = self._rotation(past, tokens)
        q = self.q_norm(self.q_proj(x).reshape(batch, tokens, self.heads, self.head_dim))
        k = self.k_norm(self.k_proj(x).reshape(batch, tokens, self.kv_heads, self.head_dim))
        v = self.v_proj(x).reshape(batch, tokens, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = (_rotated(part.transpose(1, 2), cos, sin) for part in (q, k))
        if state:
            k, v = torch.cat([state[0], k], dim=2), torch.cat([state[1], v], dim=2)
        mask = None
        if past and tokens > 1:
            mask = torch.ones(tokens, past + tokens, dtype=torch.bool).tril(past)
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=not past and tokens > 1, enable_gqa=True
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), (k, v)

    def _rotation(self, start: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines [T, d] of the rotary positions (Su et al. 2021, arXiv 2104.09864)."""
        pairs = torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim
        places = torch.arange(start, start + tokens, dtype=torch.float32)
        angles = places[:, None] * self.theta**-pairs
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class SwiGlu(nn.Module):
    """SiLU of one product times another, and a product back (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(functional.silu(self.gate(x)) * self.up(x))
        return out


class Layer(nn.Module):
    """Convolution or attention, then SwiGLU, each behind an RMS norm and added to the stream."""

    def __init__(self, config: LanguageConfig, number: int) -> None:
        super().__init__()
        attends = number in config.attention
        self.mixer = GroupedQueryAttention(config) if attends else ShortConvolution(config)
        self.kept = 2 if attends else 1
        self.mixer_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.ffn = SwiGlu(config.dim, config.hidden)
        self.ffn_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        mixed, after = self.mixer(self.mixer_norm(x), state)
        x = x + mixed
        return x + self.ffn(self.ffn_norm(x)), after


class HybridLanguageModel(nn.Module):
    """Token numbers [B, T] to the logits [B, V] of the token behind the last, and the state.

    Without ``state`` the text begins here (prefill); with the state that came back it goes on
    (decode).
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.dim)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.depth))
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.head = nn.Linear(config.dim, config.vocabulary, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        if config.tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        x: Tensor = self.embedding(tokens)
        left, kept = list(state), list[Tensor]()
        for layer in self.layers:
            assert isinstance(layer, Layer)
            own = tuple(left[: layer.kept])
            del left[: layer.kept]
            x, after = layer(x, own)
            kept += after
        logits: Tensor = self.head(self.norm(x[:, -1]))
        return logits, *kept

    def inputs(self, tokens: int, past: int = 0) -> tuple[Tensor, ...]:
        """Zeros in the shapes of ``tokens`` new tokens behind ``past`` others."""
        config = self.config
        found = [torch.zeros(1, tokens, dtype=torch.int64)]
        if past:
            for number in range(config.depth):
                if number in config.attention:
                    shape = (1, config.kv_heads, past, config.head_dim)
                    found += [torch.zeros(shape), torch.zeros(shape)]
                else:
                    found.append(torch.zeros(1, config.dim, config.kernel - 1))
        return tuple(found)
