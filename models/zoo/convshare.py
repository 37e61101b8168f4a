"""ConvShareViT: a Vision Transformer whose tokens are planes and whose matrices are convolutions
with kernels that all tokens share (Ibadulla et al. 2025, arXiv 2504.11517), for a 4f system.

The paper's code is not public. What is built here follows the algebra: a row of a matrix, laid out
as a kernel of the token's size, gives its product with a token as the one number of a valid
convolution. Heads are on whole planes and are added up, as in FCSA, the authors' earlier code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .convshare_config import ConvShareConfig

__all__ = ["ConvShareAttention", "ConvShareBlock", "ConvShareMlp", "ConvShareVit", "PlaneMap"]


class PlaneMap(nn.Module):
    """What stands where a Vision Transformer has a matrix: [B, T, planes * d] to [B, T, made * d],
    a token's planes one behind the other.

    ``weight`` has a row for each kernel, [kernels, planes * k * k]: of ``linear`` and
    ``shared_valid_full`` it is the same matrix.
    """

    def __init__(
        self, config: ConvShareConfig, planes: int, made: int, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.config = config
        self.planes, self.made = planes, made
        rows, columns = config.map_sizes(planes, made)
        self.weight = nn.Parameter(torch.empty(rows, columns))
        self.bias: nn.Parameter | None = nn.Parameter(torch.empty(rows)) if bias else None
        # the bounds of nn.Linear and nn.Conv2d
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            nn.init.uniform_(self.bias, -1 / math.sqrt(columns), 1 / math.sqrt(columns))

    def forward(self, x: Tensor) -> Tensor:
        config = self.config
        if config.variant == "linear":
            return functional.linear(x, self.weight, self.bias)
        kernel, tokens = config.kernel_side, x.shape[1]
        groups = tokens if config.variant == "depthwise_same" else 1
        # shared kernels: every token is an image of its own
        stacked = (-1, groups * self.planes, config.token_side, config.token_side)
        read = functional.conv2d(
            x.reshape(stacked),
            self.weight.reshape(-1, self.planes, kernel, kernel),
            self.bias,
            padding="same" if config.padded else "valid",
            groups=groups,
        )
        return read.reshape(-1, tokens, self.made * config.dim)


class ConvShareAttention(nn.Module):
    """Heads on whole planes, each with maps of its own for queries, keys, values and output, added
    up: [B, T, d] to the same.

    A score is the valid correlation of a query's plane with a key's, over s: the dot product of
    both, over √d.
    """

    def __init__(self, config: ConvShareConfig) -> None:
        super().__init__()
        self.heads = config.heads
        planes = config.heads * config.width
        self.qkv = PlaneMap(config, 1, 3 * planes, bias=False)
        self.proj = PlaneMap(config, planes, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = functional.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        # reading the planes of all heads at once adds up what each head's map makes of its own
        out: Tensor = self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, -1))
        return out


class ConvShareMlp(nn.Module):
    """Two maps with GELU between them: [B, T, d] to the same."""

    def __init__(self, config: ConvShareConfig) -> None:
        super().__init__()
        hidden = config.mlp_ratio * config.width
        self.fc1 = PlaneMap(config, 1, hidden)
        self.fc2 = PlaneMap(config, hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class ConvShareBlock(nn.Module):
    """Pre-norm block, norms over the plane: [B, T, d] to the same."""

    def __init__(self, config: ConvShareConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.attn = ConvShareAttention(config)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.mlp = ConvShareMlp(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ConvShareVit(nn.Module):
    """Images [B, C, H, W] to logits [B, classes], read from the class token.

    Tokens are rows of d = s² numbers, a plane of s x s row by row.
    """

    def __init__(self, config: ConvShareConfig) -> None:
        super().__init__()
        self.config = config
        kernel, stem = config.stem_kernel, config.stem_channels
        self.stem = nn.Conv2d(config.channels, stem, kernel, padding=kernel - 1)
        self.one_plane = nn.Conv2d(stem, 1, 3, padding=1)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.dim))
        self.blocks = nn.ModuleList(ConvShareBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.head = nn.Linear(config.dim, config.classes)
        for token in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(token, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        x = self.cut(self.one_plane(functional.gelu(self.stem(images))))
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(self.norm(x)[:, 0])
        return out

    def cut(self, plane: Tensor) -> Tensor:
        """The tokens of a plane [B, 1, P, P]: [B, (P / s)², s²]."""
        rows, columns = self.config.grid
        side = self.config.token_side
        tiles = plane.reshape(-1, rows, side, columns, side).transpose(2, 3)
        return tiles.reshape(-1, rows * columns, side * side)
