"""The sizes of a ConvShareViT and of its maps from plane to plane; their checks.

Nothing here needs torch, so that models can be listed at once.
"""

from __future__ import annotations

from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["ConvShareConfig", "PlaneMapVariant"]

PlaneMapVariant: TypeAlias = Literal[
    "linear", "shared_valid_full", "shared_valid_k", "shared_same", "depthwise_same"
]


class ConvShareConfig(BaseModel):
    """A ConvShareViT (Ibadulla et al. 2025, arXiv 2504.11517) by its sizes; the defaults are for 28
    x 28 coloured images.

    A stem makes one plane of ``plane_size`` x ``plane_size`` of the image: a full convolution with
    kernels of ``plane_size`` - ``image_size`` + 1 to ``stem_channels`` planes, GELU, and a 3 x 3
    convolution to one. It is cut into tokens, planes of ``token_side`` = s pixels a side, d = s².

    variant: what maps a token to planes in attention and MLP. ``linear``: a matrix.
    ``shared_valid_full``: as many s x s kernels as numbers wanted, each with one valid output.
    ``shared_valid_k``: ``kernels`` = c kernels of ``kernel`` = k pixels a side for each plane
    wanted, whose valid outputs, c (s - k + 1)² = d numbers, are laid out as a plane anew.
    ``shared_same``: ``kernels`` kernels of k x k, padded, which make the heads and the MLP so many
    times wider. ``depthwise_same``: the same with kernels of its own for each token.
    ``kernel`` is of the last three; ``kernels`` left out is what closes, or 1.
    mlp_ratio: planes of the MLP between its two maps (times ``kernels`` of same padding).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(default=28, ge=1)
    plane_size: int = Field(default=32, ge=1)
    token_side: int = Field(default=8, ge=1)
    channels: int = Field(default=3, ge=1)
    stem_channels: int = Field(default=8, ge=1)
    classes: int = Field(default=10, ge=1)
    depth: int = Field(default=3, ge=1)
    heads: int = Field(default=2, ge=1)
    mlp_ratio: int = Field(default=2, ge=1)
    variant: PlaneMapVariant = "shared_valid_full"
    kernel: int | None = Field(default=None, ge=1)
    kernels: int | None = Field(default=None, ge=1)
    norm_eps: float = Field(default=1e-6, gt=0)

    @field_validator("kernel", "kernels", mode="before")
    @classmethod
    def _whole(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError(f"expected a whole number, got {value}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.plane_size < self.image_size:
            raise ValueError(
                f"plane_size {self.plane_size} is smaller than image_size {self.image_size}: "
                "the stem's full convolution makes a plane at least as large"
            )
        if self.plane_size % self.token_side:
            raise ValueError(
                f"plane_size {self.plane_size} is not a multiple of token_side {self.token_side}"
            )
        if self.variant in ("linear", "shared_valid_full"):
            if self.kernel is not None or self.kernels is not None:
                raise ValueError(
                    f"kernel and kernels are not for variant '{self.variant}', whose sizes follow "
                    f"from token_side; got kernel {self.kernel}, kernels {self.kernels}"
                )
            return self
        if self.kernel is None:
            raise ValueError(f"variant '{self.variant}' needs kernel, the side of its kernels")
        if self.kernel > self.token_side:
            raise ValueError(
                f"kernel {self.kernel} is larger than token_side {self.token_side}, the plane that "
                "it is moved over"
            )
        if self.variant == "shared_valid_k":
            self._closes(self.kernel)
        return self

    def _closes(self, kernel: int) -> None:
        side, dim = self.token_side, self.dim
        outputs = (side - kernel + 1) ** 2
        if dim % outputs == 0 and self.kernels in (None, dim // outputs):
            return
        fits = [
            f"kernel {k} with kernels {dim // (side - k + 1) ** 2}"
            for k in range(1, side + 1)
            if dim % (side - k + 1) ** 2 == 0
        ]
        given = "" if self.kernels is None else f", kernels {self.kernels}"
        raise ValueError(
            "shared_valid_k needs kernels * (token_side - kernel + 1)^2 = token_side^2, got "
            f"token_side {side}, kernel {kernel}{given}: {', '.join(fits)} would do"
        )

    @property
    def dim(self) -> int:
        """Numbers of a token, d = s²."""
        return self.token_side**2

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        side = self.plane_size // self.token_side
        return side, side

    @property
    def prefix(self) -> int:
        """Tokens before those of the image: the class token."""
        return 1

    @property
    def tokens(self) -> int:
        """Tokens of one image, the class token included.

        >>> ConvShareConfig().tokens
        17
        """
        return self.prefix + self.grid[0] * self.grid[1]

    @property
    def stem_kernel(self) -> int:
        """Side of the kernels that turn the image into planes."""
        return self.plane_size - self.image_size + 1

    @property
    def padded(self) -> bool:
        """Whether maps keep the side of a plane by padding."""
        return self.variant in ("shared_same", "depthwise_same")

    @property
    def width(self) -> int:
        """Planes where another variant has one, inside heads and MLPs: kernels of same padding."""
        return (self.kernels or 1) if self.padded else 1

    @property
    def kernel_side(self) -> int:
        """Side of the kernels of every map; of ``linear`` that of the whole plane."""
        return self.kernel if self.kernel is not None else self.token_side

    @property
    def kernels_per_plane(self) -> int:
        """Kernels that make one plane of one plane: c, or d where each makes one number.

        >>> ConvShareConfig(variant="shared_valid_k", kernel=5).kernels_per_plane
        4
        """
        return 1 if self.padded else self.dim // (self.token_side - self.kernel_side + 1) ** 2

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One image with its batch axis, [1, C, H, W]."""
        return (1, self.channels, self.image_size, self.image_size)

    def map_sizes(self, planes: int, made: int) -> tuple[int, int]:
        """Rows and columns of the weights that map ``planes`` planes of a token to ``made``: one
        row for each kernel.
        """
        tokens = self.tokens if self.variant == "depthwise_same" else 1
        return tokens * made * self.kernels_per_plane, planes * self.kernel_side**2

    @property
    def parameters(self) -> int:
        """Trained numbers of the model.

        >>> ConvShareConfig().parameters == ConvShareConfig(variant="linear").parameters
        True
        """
        dim, inner, hidden = self.dim, self.heads * self.width, self.mlp_ratio * self.width
        stem = self.stem_channels
        total = stem * (self.channels * self.stem_kernel**2 + 1) + 9 * stem + 1
        total += dim + self.tokens * dim + 2 * dim + self.classes * (dim + 1)
        rows, columns = self.map_sizes(1, 3 * inner)
        block = 4 * dim + rows * columns
        for planes, made in ((inner, 1), (1, hidden), (hidden, 1)):
            rows, columns = self.map_sizes(planes, made)
            block += rows * (columns + 1)
        return total + self.depth * block
