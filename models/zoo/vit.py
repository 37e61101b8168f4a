"""Vision Transformers: ViT, DeiT with its distillation token, and M3ViT with its experts are one
module and differ in their configs.

Names in the state dict follow timm, so that its checkpoints load as they are (see
``pretrained.py``), but for ``patch_embed``, which is the convolution itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import VitruviusError
from .config import Experts, VisionTransformerConfig
from .layers import Attention, LayerScale, MixtureOfExperts, Mlp, activation, norm

__all__ = ["Block", "Experts", "VisionTransformer", "VisionTransformerConfig"]


class Block(nn.Module):
    """Pre-norm transformer block: [B, N, dim] to the same."""

    def __init__(self, config: VisionTransformerConfig, layer: int) -> None:
        super().__init__()
        dim, factor = config.dim, config.layer_scale
        self.norm1 = norm(config)
        self.attn = Attention(dim, config.heads, qkv_bias=config.qkv_bias)
        self.ls1 = nn.Identity() if factor is None else LayerScale(dim, factor)
        self.norm2 = norm(config)
        self.mlp: nn.Module
        if config.experts is not None and config.holds_experts(layer):
            self.mlp = MixtureOfExperts(
                dim, config.expert_hidden, config.experts, config.activation
            )
        else:
            self.mlp = Mlp(dim, config.hidden, activation(config.activation))
        self.ls2 = nn.Identity() if factor is None else LayerScale(dim, factor)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class VisionTransformer(nn.Module):
    """Vision Transformer with a class token and learned positions (Dosovitskiy et al. 2021).

    The input is [B, channels, height, width]. The output is [B, classes] logits, or the tokens
    [B, tokens, dim] when the config has no classes. Tokens are in the order class, distillation,
    registers, patches; registers (Darcet et al. 2023, arXiv 2309.16588) have no position. With a
    distillation token (Touvron et al. 2021, arXiv 2012.12877) the logits are the mean of both
    heads, as at inference there.
    """

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.config = config
        dim, patch = config.dim, config.patch_size
        self.patch_embed = nn.Conv2d(config.channels, dim, patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.dist_token: nn.Parameter | None = None
        if config.distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.reg_token: nn.Parameter | None = None
        if config.registers:
            self.reg_token = nn.Parameter(torch.zeros(1, config.registers, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens - config.registers, dim))
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.norm = norm(config) if config.final_norm else nn.Identity()
        self.head = nn.Linear(dim, config.classes) if config.classes else nn.Identity()
        self.head_dist = nn.Linear(dim, config.classes) if config.distilled else None
        for token in (self.cls_token, self.pos_embed, self.dist_token, self.reg_token):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)

    @property
    def tasks(self) -> int:
        """How many tasks have gates of their own."""
        return self.config.experts.tasks if self.config.experts is not None else 1

    @property
    def task(self) -> int:
        """The task whose gates are used, from 0; set it before tracing."""
        mixtures = [part for part in self.modules() if isinstance(part, MixtureOfExperts)]
        return mixtures[0].task if mixtures else 0

    @task.setter
    def task(self, task: int) -> None:
        if not 0 <= task < self.tasks:
            raise VitruviusError(f"task must be between 0 and {self.tasks - 1}, got {task}")
        for part in self.modules():
            if isinstance(part, MixtureOfExperts):
                part.task = task

    def forward(self, images: Tensor) -> Tensor:
        x = self._embedded(images)
        for block in self.blocks:
            x = block(x)
        tokens: Tensor = self.norm(x)
        if not self.config.classes:
            return tokens
        mean = self.config.pool == "mean"
        read = tokens[:, self.config.prefix :].mean(1) if mean else tokens[:, 0]
        logits: Tensor = self.head(read)
        if self.head_dist is not None:
            logits = (logits + self.head_dist(tokens[:, 1])) / 2
        return logits

    def _embedded(self, images: Tensor) -> Tensor:
        """Patches and the tokens before them, with their positions: [B, tokens, dim]."""
        x: Tensor = self.patch_embed(images).flatten(2).transpose(1, 2)
        batch = x.shape[0]
        prefix = [self.cls_token.expand(batch, -1, -1)]
        if self.dist_token is not None:
            prefix.append(self.dist_token.expand(batch, -1, -1))
        x = torch.cat([*prefix, x], dim=1) + self.pos_embed
        if self.reg_token is not None:
            registers = self.reg_token.expand(batch, -1, -1)
            x = torch.cat([x[:, : len(prefix)], registers, x[:, len(prefix) :]], dim=1)
        return x
