"""The sizes of a convolutional encoder in the style of MobileNetV5, and their checks.

Nothing here needs torch, so that models can be listed at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["Block", "ConvEncoderConfig", "hidden_of"]

_WORD = re.compile(r"([a-z]+)([0-9]+(?:\.[0-9]+)?)")
_KEYS = {
    "er": {"k": "kernel", "s": "stride", "e": "expansion", "c": "channels"},
    "uir": {"a": "start", "k": "kernel", "s": "stride", "e": "expansion", "c": "channels"},
    "mqa": {"k": "kernel", "h": "heads", "d": "head_dim", "v": "reduce", "c": "channels"},
}
_NEEDED = {"er": "ksec", "uir": "aksec", "mqa": "hdc"}


@dataclass(frozen=True)
class Block:
    """One block of a stage, from a text such as ``"uir a3 k5 s2 e6 c256"``.

    kind: ``er``, an inverted bottleneck whose expansion is a full convolution; ``uir``, a universal
    inverted bottleneck (Qin et al. 2024, arXiv 2404.10518), with a depthwise convolution before
    the expansion (kernel ``start``, 0 for none) and one behind it (``kernel``, 0 for none);
    ``mqa``, multi-query attention whose keys and values are made at 1 / ``reduce`` of the
    resolution by a depthwise convolution of ``kernel``. ``stride`` is that of the last of its
    depthwise convolutions.
    """

    kind: str
    channels: int
    kernel: int = 0
    start: int = 0
    stride: int = 1
    expansion: float = 1.0
    heads: int = 0
    head_dim: int = 0
    reduce: int = 1

    @staticmethod
    def parsed(text: str) -> Block:
        """The block that ``text`` describes; raises ValueError with what was expected.

        >>> Block.parsed("mqa k3 h12 d64 v2 c640").heads
        12
        """
        kind, *words = text.split()
        if kind not in _KEYS:
            raise ValueError(f"block '{text}': expected it to begin with {', '.join(_KEYS)}")
        keys = _KEYS[kind]
        fields: dict[str, float] = {}
        for word in words:
            found = _WORD.fullmatch(word)
            if found is None or found[1] not in keys or keys[found[1]] in fields:
                raise ValueError(
                    f"block '{text}': '{word}' is not one of "
                    f"{', '.join(f'{key}<{name}>' for key, name in keys.items())}, each once"
                )
            fields[keys[found[1]]] = float(found[2])
        if missing := [keys[key] for key in _NEEDED[kind] if keys[key] not in fields]:
            raise ValueError(f"block '{text}': no {', '.join(missing)}")
        block = Block(
            kind=kind,
            channels=int(fields["channels"]),
            kernel=int(fields.get("kernel", 0)),
            start=int(fields.get("start", 0)),
            stride=int(fields.get("stride", 1)),
            expansion=fields.get("expansion", 1.0),
            heads=int(fields.get("heads", 0)),
            head_dim=int(fields.get("head_dim", 0)),
            reduce=int(fields.get("reduce", 1)),
        )
        block._check(text)
        return block

    def _check(self, text: str) -> None:
        kernels = [size for size in (self.kernel, self.start) if size]
        if any(size % 2 == 0 for size in kernels):
            raise ValueError(f"block '{text}': expected odd kernels")
        if self.channels < 1 or self.stride < 1 or self.expansion <= 0 or self.reduce < 1:
            raise ValueError(f"block '{text}': expected sizes above 0")
        if self.kind == "uir" and self.stride > 1 and not kernels:
            raise ValueError(f"block '{text}': a stride needs a depthwise convolution")
        if self.kind == "er" and not self.kernel:
            raise ValueError(f"block '{text}': expected a kernel above 0")
        if self.kind == "mqa" and not (self.heads and self.head_dim):
            raise ValueError(f"block '{text}': expected heads and head_dim above 0")
        if self.kind == "mqa" and self.reduce > 1 and not self.kernel:
            raise ValueError(f"block '{text}': a reduction needs a kernel")


class ConvEncoderConfig(BaseModel):
    """A convolutional encoder: a stem of stride 2, stages of blocks, and a fusion of the outputs of
    the last ``fused`` stages to ``out_grid`` x ``out_grid`` x ``out_channels``.

    The fusion brings the stages to the size of the first of them (nearest neighbour), puts them
    beside each other, and works pixel by pixel with a hidden layer ``fusion_expansion`` times as
    wide; then it averages windows. Norms are RMS norms over the channels of a pixel, the
    activation is GELU by tanh; every block has a LayerScale, which inference folds away.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: tuple[int, int] = (768, 768)
    channels: int = Field(default=3, ge=1)
    stem: int = Field(default=64, ge=1)
    stages: tuple[tuple[str, ...], ...]
    fused: int = Field(default=2, ge=1)
    fusion_expansion: float = Field(default=2.0, gt=0)
    out_grid: int = Field(default=16, ge=1)
    out_channels: int = Field(default=2048, ge=1)
    norm_eps: float = Field(default=1e-6, gt=0)
    layer_scale: float | None = 1e-5

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value: object) -> object:
        return (value, value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.stages or not all(self.stages):
            raise ValueError("stages: expected at least one, each with at least one block")
        _ = self.blocks  # every text is a block
        if self.fused > len(self.stages):
            raise ValueError(f"fused {self.fused} is more than the {len(self.stages)} stages")
        if self.blocks[0][0].kind == "mqa":
            raise ValueError("stages: the first block of a stage sets its channels, got mqa")
        for stage in self.blocks:
            if any(b.kind == "mqa" and b.channels != stage[0].channels for b in stage):
                raise ValueError("stages: attention keeps the channels of its stage")
        stride = self.stride
        if min(self.image_size) < stride or any(side % stride for side in self.image_size):
            raise ValueError(
                f"image_size {list(self.image_size)} is not a multiple of the stride {stride}"
            )
        grid = [side // self._stride(len(self.stages) - self.fused + 1) for side in self.image_size]
        if any(side % self.out_grid for side in grid):
            raise ValueError(
                f"image_size {list(self.image_size)} gives {grid[0]} x {grid[1]} pixels to fuse, "
                f"not a multiple of out_grid {self.out_grid}"
            )
        return self

    @property
    def blocks(self) -> tuple[tuple[Block, ...], ...]:
        """The blocks of every stage."""
        return tuple(tuple(Block.parsed(text) for text in stage) for stage in self.stages)

    def _stride(self, stages: int) -> int:
        """Pixels of the image for a pixel behind so many stages."""
        stride = 2
        for stage in self.blocks[:stages]:
            for block in stage:
                stride *= block.stride
        return stride

    @property
    def stride(self) -> int:
        """Pixels of the image for a pixel of the last stage."""
        return self._stride(len(self.stages))

    @property
    def dim(self) -> int:
        """Channels of the output."""
        return self.out_channels

    @property
    def depth(self) -> int:
        """How many blocks there are."""
        return sum(len(stage) for stage in self.stages)

    @property
    def heads(self) -> int:
        """Most heads of an attention."""
        return max((block.heads for stage in self.blocks for block in stage), default=0)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One image with its batch axis, [1, C, H, W]."""
        return (1, self.channels, *self.image_size)

    @property
    def parameters(self) -> int:
        """Trained numbers of the model."""
        total, width = 9 * self.channels * self.stem + self.stem, self.stem
        scale = int(self.layer_scale is not None)
        wide = 0
        for number, stage in enumerate(self.blocks):
            for block in stage:
                total += _parameters(block, width, scale)
                width = block.channels
            if number >= len(self.stages) - self.fused:
                wide += width
        hidden = hidden_of(wide, self.fusion_expansion)
        out = self.out_channels
        return total + wide * hidden + hidden + hidden * out + 2 * out


def hidden_of(channels: int, expansion: float) -> int:
    """Channels of an expanded layer: a multiple of 8.

    >>> hidden_of(1920, 2.0)
    3840
    """
    return max(8, round(channels * expansion / 8) * 8)


def _parameters(block: Block, width: int, scale: int) -> int:
    out = block.channels
    if block.kind == "mqa":
        inner = block.heads * block.head_dim
        total = width + width * inner + inner * width + 2 * width * block.head_dim
        if block.reduce > 1:
            total += 2 * (width * block.kernel**2 + width)
        return total + scale * width
    hidden = hidden_of(width, block.expansion)
    if block.kind == "er":
        return width * hidden * block.kernel**2 + hidden + hidden * out + out
    total = width * hidden + hidden + hidden * out + out + scale * out
    if block.start:
        total += width * block.start**2 + width
    if block.kernel:
        total += hidden * block.kernel**2 + hidden
    return total
