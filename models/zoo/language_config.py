"""The sizes of a language model of gated short convolutions, grouped-query attention and SwiGLU,
and of a state-space scan; with their checks.

Nothing here needs torch, so that models can be listed at once.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["LanguageConfig", "ScanConfig"]


class LanguageConfig(BaseModel):
    """A decoder with ``depth`` layers: those in ``attention`` (from 0) attend, the others are gated
    short convolutions; each is followed by a SwiGLU of width ``hidden``.

    ``heads`` queries share ``kv_heads`` keys and values of ``head_dim``. Token embedding and
    output are one matrix if ``tied``. ``context`` is the length that ``trace`` takes where none is
    given, ``max_context`` the longest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocabulary: int = Field(ge=2)
    dim: int = Field(ge=1)
    depth: int = Field(ge=1)
    attention: tuple[int, ...] = ()
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=2)
    hidden: int = Field(ge=1)
    kernel: int = Field(default=3, ge=1)
    norm_eps: float = Field(default=1e-5, gt=0)
    qk_norm: bool = True
    rope_theta: float = Field(default=1e6, gt=0)
    tied: bool = True
    context: int = Field(default=64, ge=1)
    max_context: int = Field(ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd, rotary positions need pairs")
        if len(set(self.attention)) != len(self.attention) or any(
            not 0 <= layer < self.depth for layer in self.attention
        ):
            raise ValueError(
                f"attention {list(self.attention)}: expected different layers from 0 to "
                f"{self.depth - 1}"
            )
        if self.context > self.max_context:
            raise ValueError(f"context {self.context} is more than max_context {self.max_context}")
        return self

    @property
    def convolutions(self) -> int:
        """How many layers are gated short convolutions."""
        return self.depth - len(self.attention)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Token numbers of one text, [1, T]."""
        return (1, self.context)

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that the attention layers keep for every token."""
        return 2 * len(self.attention) * self.kv_heads * self.head_dim

    @property
    def state_values(self) -> int:
        """Numbers that the convolutions keep, whatever the context."""
        return self.convolutions * self.dim * (self.kernel - 1)

    @property
    def parameters(self) -> int:
        """Trained numbers of the model; a tied matrix counts once."""
        dim, inner = self.dim, self.heads * self.head_dim
        attention = 2 * dim * inner + 2 * dim * self.kv_heads * self.head_dim
        attention += 2 * self.head_dim if self.qk_norm else 0
        convolution = 4 * dim * dim + dim * self.kernel
        total = self.vocabulary * dim * (1 if self.tied else 2) + dim
        total += self.depth * (3 * dim * self.hidden + 2 * dim)
        return total + len(self.attention) * attention + self.convolutions * convolution


class ScanConfig(BaseModel):
    """Blocks around a diagonal state-space scan, h = a h + b x and y = c h, of ``state`` numbers
    for each of ``dim`` channels; a, b and c are computed from the token (Gu and Dao 2023, arXiv
    2312.00752, without its convolution).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(ge=1)
    depth: int = Field(ge=1)
    state: int = Field(ge=1)
    tokens: int = Field(ge=1)
    norm_eps: float = Field(default=1e-5, gt=0)

    @property
    def heads(self) -> int:
        """Of an attention; there is none."""
        return 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One sequence with its batch axis, [1, T, dim]."""
        return (1, self.tokens, self.dim)

    @property
    def parameters(self) -> int:
        """Trained numbers of the model."""
        dim, state = self.dim, self.state
        return self.depth * (
            dim + dim * 2 * dim + dim * (dim + 2 * state) + dim * state + dim * dim
        )
