"""MPCViT: a Vision Transformer whose attention and MLPs are cheap where they are computed on shares
(Zeng et al., ICCV 2023, arXiv 2211.13955).

What a config leaves out is not computed: heads or rows without ReLU-softmax, and tokens without an
activation, are taken apart before and put back behind, both of which cost nothing on shares.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .mpcvit_config import Activation, MpcVitConfig

__all__ = ["MpcAttention", "MpcBlock", "MpcMlp", "MpcVit", "fused", "relu_softmax", "two_quad"]

_RELU_SOFTMAX_EPS = 1e-5
_QUAD_SHIFT = 5.0  # MPCFormer (Li et al. 2023, arXiv 2211.01452)
_RECIPROCAL = 16
_PARTS = {"layer": 1, "head": 1, "row": 2}  # the axis of the scores that units lie on


class MpcAttention(nn.Module):
    """Attention with the normaliser of its config, q, k and v without bias: [B, N, D] to the
    same.
    """

    def __init__(self, config: MpcVitConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.heads, self.tokens = config.heads, config.tokens
        self.kind: str = config.attention
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.proj = nn.Linear(config.dim, config.dim)
        self.chosen: Tensor
        self.others: Tensor
        self.back: Tensor
        self.axis = _PARTS[config.granularity]
        if self.kind == "the_x":
            self.reciprocal = Reciprocal(config.tokens)
        if config.relu_softmax is not None:
            self._part(config.relu_softmax[layer], config)

    def _part(self, chosen: tuple[int, ...], config: MpcVitConfig) -> None:
        """Keeps which units are which; a layer all of one kind is that kind."""
        if len(chosen) in (0, config.units):
            self.kind = "relu_softmax" if chosen else "scale"
            return
        others = [unit for unit in range(config.units) if unit not in chosen]
        order = torch.tensor([*chosen, *others])
        for name, index in (
            ("chosen", torch.tensor(chosen)),
            ("others", torch.tensor(others)),
            ("back", torch.argsort(order)),
        ):
            self.register_buffer(name, index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = self.attended(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))
        return out

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What each query reads of the values: three times [B, H, N, d] to one."""
        linear = self.config.scale_order == "linear"
        if self.kind == "scale" and linear:
            return self._scaled_linearly(q, k, v)
        if self.kind == "mixed" and linear:
            return self._mixed_linearly(q, k, v)
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        mixed: Tensor = self.normalised(scores) @ v
        return mixed

    def normalised(self, scores: Tensor) -> Tensor:
        """The weights of all values, from scores [B, H, N, N] to the same."""
        if self.kind == "softmax":
            return functional.softmax(scores, dim=-1)
        if self.kind == "relu_softmax":
            return relu_softmax(scores)
        if self.kind == "2quad":
            return two_quad(scores)
        if self.kind == "scale":
            return scores * (1 / self.tokens)
        if self.kind == "the_x":
            powers = functional.relu((scores / 2 + 1) ** 3)
            weights: Tensor = powers * self.reciprocal(powers.sum(-1, keepdim=True))
            return weights
        parts = [
            relu_softmax(scores.index_select(self.axis, self.chosen)),
            scores.index_select(self.axis, self.others) * (1 / self.tokens),
        ]
        return torch.cat(parts, self.axis).index_select(self.axis, self.back)

    def _scaled_linearly(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """S / N times V with the products in the order that is linear in the tokens."""
        factor = q.shape[-1] ** -0.5 / self.tokens
        mixed: Tensor = q @ ((k.transpose(-1, -2) @ v) * factor)
        return mixed

    def _mixed_linearly(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = (self.chosen, self.others)
        chosen, others = (q.index_select(self.axis, part) for part in parts)
        read, scaled = (k, v), (k, v)
        if self.axis == 1:
            read, scaled = ((k.index_select(1, part), v.index_select(1, part)) for part in parts)
        scores = (chosen @ read[0].transpose(-1, -2)) * q.shape[-1] ** -0.5
        found = [relu_softmax(scores) @ read[1], self._scaled_linearly(others, *scaled)]
        return torch.cat(found, self.axis).index_select(self.axis, self.back)


class Reciprocal(nn.Module):
    """THE-X's network of three linear maps for the reciprocal of a row's sum: [..., 1] to the same.
    Untrained it is near 1 / N, which is right for scores of 0.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(1, _RECIPROCAL)
        self.fc2 = nn.Linear(_RECIPROCAL, _RECIPROCAL)
        self.fc3 = nn.Linear(_RECIPROCAL, 1)
        self.scale = 1 / tokens
        with torch.no_grad():
            self.fc3.weight.zero_()
            self.fc3.bias.fill_(1.0)

    def forward(self, total: Tensor) -> Tensor:
        hidden = functional.relu(self.fc1(total * self.scale))
        out: Tensor = self.fc3(functional.relu(self.fc2(hidden))) * self.scale
        return out


class MpcMlp(nn.Module):
    """Two linear maps, between them an activation for all tokens, some, or none: [B, N, D] to the
    same. Without one they may be fused.
    """

    def __init__(self, config: MpcVitConfig, layer: int) -> None:
        super().__init__()
        self.kind: Activation = config.layer_activation(layer)
        self.relu_behind = config.relu_behind
        if config.is_fused(layer):
            self.fc = nn.Linear(config.dim, config.dim)
        else:
            self.fc1 = nn.Linear(config.dim, config.hidden)
            self.fc2 = nn.Linear(config.hidden, config.dim)
        self.chosen: Tensor
        self.others: Tensor
        self.back: Tensor
        tokens = config.activated_tokens(layer)
        self.parted = bool(tokens)
        if tokens:
            others = [token for token in range(config.tokens) if token not in tokens]
            for name, index in (
                ("chosen", torch.tensor(tokens)),
                ("others", torch.tensor(others)),
                ("back", torch.argsort(torch.tensor([*tokens, *others]))),
            ):
                self.register_buffer(name, index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "fc"):
            return self._behind(self.fc(x))
        hidden = self.fc1(x)
        if self.kind == "linear":
            return self._behind(self.fc2(hidden))
        if not self.parted:
            out: Tensor = self.fc2(self.activated(hidden))
            return out
        chosen, others = (hidden.index_select(1, part) for part in (self.chosen, self.others))
        if not self.relu_behind:
            parts = [self.activated(chosen), others]
            whole: Tensor = self.fc2(torch.cat(parts, 1).index_select(1, self.back))
            return whole
        read = self.fc2(torch.cat([self.activated(chosen), others], 1))
        count = len(self.chosen)
        return torch.cat([read[:, :count], functional.relu(read[:, count:])], 1).index_select(
            1, self.back
        )

    def activated(self, hidden: Tensor) -> Tensor:
        """The activation, of any shape."""
        if self.kind == "gelu_tanh":
            return functional.gelu(hidden, approximate="tanh")
        if self.kind == "relu":
            return functional.relu(hidden)
        # MPCFormer's replacement of GELU
        return 0.125 * hidden.square() + 0.25 * hidden + 0.5

    def _behind(self, read: Tensor) -> Tensor:
        return functional.relu(read) if self.relu_behind else read


class Affine(nn.Module):
    """A weight and a bias for each channel, what THE-X leaves of a norm: [..., D] to the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


class MpcBlock(nn.Module):
    """One layer, its second norm on the residual stream itself, as MPCViT's code has it: [B, N, D]
    to the same.
    """

    def __init__(self, config: MpcVitConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = _norm(config)
        self.attn: MpcAttention = MpcAttention(config, layer)
        self.norm2 = _norm(config)
        self.mlp = MpcMlp(config, layer)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm2(x + self.attn(self.norm1(x)))
        out: Tensor = x + self.mlp(x)
        return out


class MpcVit(nn.Module):
    """Images [B, C, H, W] to logits [B, classes], read from the class token.

    Dropout and stochastic depth of the published training are not here.
    """

    def __init__(self, config: MpcVitConfig) -> None:
        super().__init__()
        self.config = config
        dim, patch = config.dim, config.patch_size
        self.patch_embed = nn.Conv2d(config.channels, dim, patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, dim))
        self.blocks = nn.ModuleList(MpcBlock(config, layer) for layer in range(config.depth))
        self.norm = _norm(config)
        self.head = nn.Linear(dim, config.classes)
        for token in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(token, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(images)[:, 0])
        return out

    def features(self, images: Tensor) -> Tensor:
        """The tokens behind the last norm, [B, N, D]."""
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.norm(x)
        return out


def relu_softmax(scores: Tensor) -> Tensor:
    """relu(S) over its sum along the last axis plus 1e-5: any shape to the same."""
    kept = functional.relu(scores)
    return kept / (kept.sum(-1, keepdim=True) + _RELU_SOFTMAX_EPS)


def two_quad(scores: Tensor) -> Tensor:
    """(S + 5)² over its sum along the last axis: any shape to the same."""
    squares = (scores + _QUAD_SHIFT) ** 2
    return squares / squares.sum(-1, keepdim=True)


def fused(module: MpcVit) -> MpcVit:
    """The same model with one matrix, W2 W1, in the place of two wherever no activation is between
    them; ``module`` stays as it is.
    """
    config = module.config.model_copy(update={"fused": True})
    found = MpcVit(config)
    tensors = dict(module.state_dict())
    for layer in range(config.depth):
        first, second, one = (f"blocks.{layer}.mlp.{name}" for name in ("fc1", "fc2", "fc"))
        if not config.is_fused(layer) or f"{one}.weight" in tensors:
            continue
        w1, b1 = tensors.pop(f"{first}.weight").double(), tensors.pop(f"{first}.bias").double()
        w2, b2 = tensors.pop(f"{second}.weight").double(), tensors.pop(f"{second}.bias").double()
        tensors[f"{one}.weight"] = (w2 @ w1).float()
        tensors[f"{one}.bias"] = (w2 @ b1 + b2).float()
    found.load_state_dict(tensors)
    return found.train(module.training)


def _norm(config: MpcVitConfig) -> nn.Module:
    if config.norms == "affine":
        return Affine(config.dim)
    return nn.LayerNorm(config.dim, eps=config.norm_eps, elementwise_affine=config.norm_affine)
