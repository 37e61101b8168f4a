"""The sizes of an MPCViT and what each head, row and token computes; their checks.

Nothing here needs torch, so that models can be listed at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["Activation", "Attention", "Granularity", "MpcVitConfig"]

Attention: TypeAlias = Literal["softmax", "relu_softmax", "2quad", "scale", "the_x", "mixed"]
Activation: TypeAlias = Literal["gelu_tanh", "quad", "relu", "linear"]
Granularity: TypeAlias = Literal["layer", "head", "row"]
_RECIPROCAL = 2 * 16 + 16 * 17 + 17  # trained numbers of THE-X's network, 1 to 16 to 16 to 1


class MpcVitConfig(BaseModel):
    """An MPCViT by its sizes (Zeng et al., ICCV 2023, arXiv 2211.13955); the defaults are those for
    CIFAR-10.

    attention: of every head, S being the scores QKᵀ / √d of N tokens: ``softmax``;
    ``relu_softmax``, relu(S) / (sum of relu(S) + 1e-5); ``2quad``, (S + 5)² / sum of (S + 5)²;
    ``scale``, S / N; ``the_x``, E T(sum of E) with E = relu((S / 2 + 1)³) and a small network T for
    the reciprocal (Chen et al. 2022, arXiv 2206.00216); or ``mixed``: ReLU-softmax for the units
    that ``relu_softmax`` lists for each layer, ``scale`` for the others. A unit is a head, a row of
    the scores (the query of one token, in all heads), or with granularity ``layer`` the whole
    layer, unit 0.
    scale_order: ``scores`` makes S for the scaled units too; ``linear`` multiplies Kᵀ and V first.
    activation: of all MLPs, or one for each layer; ``linear`` is none. activated: for each layer
    the tokens that the activation is applied to, None for all.
    relu_behind: a ReLU behind the second matrix, for tokens without activation (MPCViT+).
    fused: in layers without activation the two matrices of the MLP are one.
    norm_affine: whether norms have a weight and a bias. norms: ``layernorm``, or ``affine``, the
    weight and the bias alone, as in THE-X.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: tuple[int, int] = (32, 32)
    patch_size: int = Field(default=4, ge=1)
    channels: int = Field(default=3, ge=1)
    classes: int = Field(default=10, ge=1)
    dim: int = Field(default=256, ge=1)
    depth: int = Field(default=7, ge=1)
    heads: int = Field(default=4, ge=1)
    mlp_ratio: float = Field(default=2.0, gt=0)
    attention: Attention = "softmax"
    granularity: Granularity = "head"
    relu_softmax: tuple[tuple[int, ...], ...] | None = None
    scale_order: Literal["scores", "linear"] = "scores"
    activation: Activation | tuple[Activation, ...] = "gelu_tanh"
    activated: tuple[tuple[int, ...] | None, ...] | None = None
    relu_behind: bool = False
    fused: bool = False
    norms: Literal["layernorm", "affine"] = "layernorm"
    norm_affine: bool = True
    norm_eps: float = Field(default=1e-5, gt=0)

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value: object) -> object:
        return (value, value) if isinstance(value, int) else value

    @field_validator("activated", mode="before")
    @classmethod
    def _all_tokens(cls, value: object) -> object:
        """TOML has no None: the word "all" stands for it."""
        if isinstance(value, (list, tuple)):
            return tuple(None if item == "all" else item for item in value)
        return value

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
        if (self.attention == "mixed") != (self.relu_softmax is not None):
            raise ValueError(
                "the list relu_softmax goes with attention 'mixed' and with no other, got "
                f"attention '{self.attention}' and relu_softmax {self.relu_softmax}"
            )
        self._listed("relu_softmax", self.relu_softmax, self.units)
        if not isinstance(self.activation, str) and len(self.activation) != self.depth:
            raise ValueError(
                f"activation: expected one for each of {self.depth} layers, got "
                f"{len(self.activation)}"
            )
        self._listed("activated", self.activated, self.tokens)
        if self.norms == "affine" and not self.norm_affine:
            raise ValueError("norms 'affine' without norm_affine leaves nothing of a norm")
        return self

    def _listed(
        self, field: str, lists: Sequence[tuple[int, ...] | None] | None, units: int
    ) -> None:
        if lists is None:
            return
        if len(lists) != self.depth:
            raise ValueError(
                f"{field}: expected a list for each of {self.depth} layers, got {len(lists)}"
            )
        for layer, chosen in enumerate(lists):
            if chosen is None:
                continue
            if list(chosen) != sorted(set(chosen)) or not all(0 <= n < units for n in chosen):
                raise ValueError(
                    f"{field}[{layer}]: expected rising numbers from 0 to {units - 1}, "
                    f"got {list(chosen)}"
                )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def prefix(self) -> int:
        """Tokens before the patches: the class token."""
        return 1

    @property
    def tokens(self) -> int:
        """Tokens of one image, the class token included.

        >>> MpcVitConfig().tokens
        65
        """
        return self.prefix + self.grid[0] * self.grid[1]

    @property
    def hidden(self) -> int:
        """Hidden width of an MLP."""
        return round(self.dim * self.mlp_ratio)

    @property
    def units(self) -> int:
        """Units of one layer whose attention is chosen: its heads, its rows, or one."""
        return {"layer": 1, "head": self.heads, "row": self.tokens}[self.granularity]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One image with its batch axis, [1, C, H, W]."""
        return (1, self.channels, *self.image_size)

    def layer_activation(self, layer: int) -> Activation:
        """The activation of layer ``layer`` (from 0); ``linear`` also where it has no token."""
        name = self.activation if isinstance(self.activation, str) else self.activation[layer]
        return "linear" if self.activated_tokens(layer) == () else name

    def activated_tokens(self, layer: int) -> tuple[int, ...] | None:
        """The tokens of layer ``layer`` with an activation, None for all."""
        chosen = None if self.activated is None else self.activated[layer]
        return None if chosen == tuple(range(self.tokens)) else chosen

    def is_fused(self, layer: int) -> bool:
        """Whether layer ``layer`` has one matrix in place of its MLP's two."""
        return self.fused and self.layer_activation(layer) == "linear"

    @property
    def parameters(self) -> int:
        """Trained numbers of the model.

        >>> MpcVitConfig().parameters
        3716874
        """
        dim, hidden = self.dim, self.hidden
        norm = 2 * dim if self.norm_affine else 0
        total = dim * self.channels * self.patch_size**2 + dim + dim + self.tokens * dim
        total += norm + self.classes * (dim + 1)
        for layer in range(self.depth):
            mlp = dim * dim + dim if self.is_fused(layer) else 2 * dim * hidden + hidden + dim
            total += 2 * norm + 4 * dim * dim + dim + mlp
            total += _RECIPROCAL if self.attention == "the_x" else 0
        return total
