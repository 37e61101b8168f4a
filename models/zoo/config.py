"""The sizes of a Vision Transformer: what can be written in a model's TOML file, and its checks.

Nothing here needs torch, so that models can be listed at once.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["Experts", "VisionTransformerConfig"]


class Experts(BaseModel):
    """Mixtures of experts in place of some layers' MLPs.

    Layers ``every - 1``, ``2 * every - 1``, ... (from 0) hold ``count`` experts each, of which a
    token uses ``top_k``; an expert's hidden width is ``hidden_ratio`` times the model's. With
    ``tasks`` above 1 every such layer has one gate per task; the experts are shared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(ge=2)
    top_k: int = Field(ge=1)
    hidden_ratio: float = Field(gt=0)
    every: int = Field(default=2, ge=1)
    tasks: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _chooses_among_them(self) -> Self:
        if self.top_k > self.count:
            raise ValueError(f"top_k {self.top_k} is more than count {self.count}")
        return self


class VisionTransformerConfig(BaseModel):
    """A Vision Transformer by its sizes; the defaults are those of ViT-Base (Dosovitskiy et al.
    2021, arXiv 2010.11929, table 1).

    ``image_size`` is (height, width) in pixels, one number means a square. ``classes`` 0 means no
    head: the output is the token matrix [B, tokens, dim]. ``pool`` says what the head reads: the
    class token, or the mean of the patch tokens. ``distilled`` adds a second token and a second
    head. ``layer_scale`` is the initial factor of both branches of a block, None for no factor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: tuple[int, int] = (224, 224)
    patch_size: int = Field(default=16, ge=1)
    channels: int = Field(default=3, ge=1)
    classes: int = Field(default=1000, ge=0)
    dim: int = Field(default=768, ge=1)
    depth: int = Field(default=12, ge=1)
    heads: int = Field(default=12, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    norm_eps: float = Field(default=1e-6, gt=0)
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"] = "gelu"
    pool: Literal["token", "mean"] = "token"
    distilled: bool = False
    registers: int = Field(default=0, ge=0)
    final_norm: bool = True
    qkv_bias: bool = True
    layer_scale: float | None = None
    experts: Experts | None = None

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value: object) -> object:
        return (value, value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if min(self.image_size) < 1 or any(side % self.patch_size for side in self.image_size):
            raise ValueError(
                f"image_size {list(self.image_size)} is not a multiple of patch_size "
                f"{self.patch_size}"
            )
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.hidden < 1:
            raise ValueError(f"mlp_ratio {self.mlp_ratio} leaves no hidden channel")
        if self.distilled and (self.pool == "mean" or not self.classes):
            raise ValueError("distilled needs pool 'token' and at least one class")
        if self.experts is not None and self.experts.every > self.depth:
            raise ValueError(
                f"experts.every {self.experts.every} leaves no layer of {self.depth} with experts"
            )
        if self.experts is not None and self.expert_hidden < 1:
            raise ValueError(
                f"experts.hidden_ratio {self.experts.hidden_ratio} leaves no hidden channel"
            )
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return self.grid[0] * self.grid[1]

    @property
    def prefix(self) -> int:
        """Tokens before the patches: class, distillation and register tokens."""
        return 1 + int(self.distilled) + self.registers

    @property
    def tokens(self) -> int:
        """Tokens of one image.

        >>> VisionTransformerConfig().tokens, VisionTransformerConfig(distilled=True).tokens
        (197, 198)
        """
        return self.prefix + self.patches

    @property
    def hidden(self) -> int:
        """Hidden width of a dense MLP."""
        return round(self.dim * self.mlp_ratio)

    @property
    def expert_hidden(self) -> int:
        """Hidden width of one expert; 0 without experts."""
        return round(self.dim * self.experts.hidden_ratio) if self.experts else 0

    def holds_experts(self, layer: int) -> bool:
        """Whether layer ``layer`` (from 0) has experts in place of its MLP."""
        return self.experts is not None and layer % self.experts.every == self.experts.every - 1

    @property
    def parameters(self) -> int:
        """Trained numbers of the model, all experts and all tasks' gates included.

        >>> VisionTransformerConfig().parameters  # ViT-B/16: 86.6 M
        86567656
        """
        dim = self.dim
        norm = 2 * dim if self.norm == "layernorm" else dim
        attention = 4 * dim * dim + dim + (3 * dim if self.qkv_bias else 0)
        scales = 2 * dim if self.layer_scale is not None else 0
        total = dim * self.channels * self.patch_size**2 + dim
        total += dim * (self.prefix + self.tokens - self.registers)
        for layer in range(self.depth):
            total += 2 * norm + attention + scales
            if self.experts is not None and self.holds_experts(layer):
                total += self.experts.count * _mlp(dim, self.expert_hidden)
                total += self.experts.tasks * self.experts.count * dim
            else:
                total += _mlp(dim, self.hidden)
        total += norm if self.final_norm else 0
        return total + (1 + int(self.distilled)) * self.classes * (dim + 1) * (self.classes > 0)


def _mlp(dim: int, hidden: int) -> int:
    return 2 * dim * hidden + hidden + dim
