"""A convolutional encoder in the style of MobileNetV5: depthwise separable convolutions, attention
in late stages only, and a fusion of several scales.

Sizes come from a config. Two-dimensional norms are RMS norms over a pixel's channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder_config import Block, ConvEncoderConfig, hidden_of

__all__ = ["ConvEncoder"]


class PixelNorm(nn.Module):
    """RMS norm over the channels of every pixel: [B, C, H, W] to the same."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        channels = self.weight.shape
        last = functional.rms_norm(x.permute(0, 2, 3, 1), channels, self.weight, self.eps)
        return last.permute(0, 3, 1, 2)


class ConvNorm(nn.Sequential):
    """Convolution without bias, norm, and GELU if ``act``; zeros around keep H / stride x W /
    stride.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        eps: float,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        conv = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        )
        parts: list[nn.Module] = [conv, PixelNorm(outputs, eps)]
        if act:
            parts.append(nn.GELU(approximate="tanh"))
        super().__init__(*parts)


class ChannelScale(nn.Module):
    """One trained factor for each channel of [B, C, H, W]."""

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma[:, None, None]


def _scale(config: ConvEncoderConfig, channels: int) -> nn.Module:
    if config.layer_scale is None:
        return nn.Identity()
    return ChannelScale(channels, config.layer_scale)


class EdgeBottleneck(nn.Module):
    """Full convolution to the hidden width, then 1 x 1 back: [B, C, H, W] to [B, O, H', W']."""

    def __init__(self, inputs: int, block: Block, config: ConvEncoderConfig) -> None:
        super().__init__()
        hidden, eps = hidden_of(inputs, block.expansion), config.norm_eps
        self.expand = ConvNorm(inputs, hidden, block.kernel, eps=eps, stride=block.stride)
        self.project = ConvNorm(hidden, block.channels, 1, eps=eps, act=False)
        self.skip = block.stride == 1 and inputs == block.channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.expand(x))
        return x + out if self.skip else out


class UniversalBottleneck(nn.Module):
    """1 x 1 to the hidden width and back, with depthwise convolutions before and between where the
    block has them: [B, C, H, W] to [B, O, H', W'].
    """

    def __init__(self, inputs: int, block: Block, config: ConvEncoderConfig) -> None:
        super().__init__()
        hidden, eps = hidden_of(inputs, block.expansion), config.norm_eps
        self.start: nn.Module = nn.Identity()
        self.middle: nn.Module = nn.Identity()
        if block.start:
            stride = 1 if block.kernel else block.stride
            self.start = ConvNorm(
                inputs, inputs, block.start, eps=eps, stride=stride, groups=inputs, act=False
            )
        self.expand = ConvNorm(inputs, hidden, 1, eps=eps)
        if block.kernel:
            self.middle = ConvNorm(
                hidden, hidden, block.kernel, eps=eps, stride=block.stride, groups=hidden
            )
        self.project = ConvNorm(hidden, block.channels, 1, eps=eps, act=False)
        self.scale = _scale(config, block.channels)
        self.skip = block.stride == 1 and inputs == block.channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.scale(self.project(self.middle(self.expand(self.start(x)))))
        return x + out if self.skip else out


class MultiQueryAttention(nn.Module):
    """Attention of ``heads`` queries to one key and value for each pixel of a coarser grid: [B, C,
    H, W] to the same.
    """

    def __init__(self, block: Block, config: ConvEncoderConfig) -> None:
        super().__init__()
        width, eps = block.channels, config.norm_eps
        self.heads, self.head_dim = block.heads, block.head_dim
        inner = block.heads * block.head_dim
        self.norm = PixelNorm(width, eps)
        self.query = nn.Conv2d(width, inner, 1, bias=False)
        self.coarse_key: nn.Module = nn.Identity()
        self.coarse_value: nn.Module = nn.Identity()
        if block.reduce > 1:
            self.coarse_key, self.coarse_value = (
                ConvNorm(
                    width,
                    width,
                    block.kernel,
                    eps=eps,
                    stride=block.reduce,
                    groups=width,
                    act=False,
                )
                for _ in range(2)
            )
        self.key = nn.Conv2d(width, block.head_dim, 1, bias=False)
        self.value = nn.Conv2d(width, block.head_dim, 1, bias=False)
        self.out = nn.Conv2d(inner, width, 1, bias=False)
        self.scale = _scale(config, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        normed = self.norm(x)
        q = self.query(normed).reshape(batch, self.heads, self.head_dim, height * width)
        k = self.key(self.coarse_key(normed)).flatten(2).transpose(1, 2).unsqueeze(1)
        v = self.value(self.coarse_value(normed)).flatten(2).transpose(1, 2).unsqueeze(1)
        k, v = (part.expand(-1, self.heads, -1, -1) for part in (k, v))
        mixed = functional.scaled_dot_product_attention(q.transpose(2, 3), k, v)
        mixed = mixed.transpose(2, 3).reshape(batch, self.heads * self.head_dim, height, width)
        out: Tensor = x + self.scale(self.out(mixed))
        return out


class Fusion(nn.Module):
    """Stages of several resolutions to one grid: see the config."""

    def __init__(self, inputs: int, config: ConvEncoderConfig) -> None:
        super().__init__()
        hidden, eps = hidden_of(inputs, config.fusion_expansion), config.norm_eps
        self.grid = config.out_grid
        self.expand = ConvNorm(inputs, hidden, 1, eps=eps)
        self.project = ConvNorm(hidden, config.out_channels, 1, eps=eps, act=False)
        self.norm = PixelNorm(config.out_channels, eps)

    def forward(self, stages: list[Tensor]) -> Tensor:
        height, width = stages[0].shape[-2:]
        same = [
            stage
            if stage.shape[-2:] == (height, width)
            else functional.interpolate(stage, size=(height, width), mode="nearest")
            for stage in stages
        ]
        x = self.project(self.expand(torch.cat(same, 1)))
        window = (height // self.grid, width // self.grid)
        if window != (1, 1):
            x = functional.avg_pool2d(x, window, window)
        out: Tensor = self.norm(x)
        return out


class ConvEncoder(nn.Module):
    """Images [B, C, H, W] to features [B, out_channels, out_grid, out_grid]."""

    def __init__(self, config: ConvEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = ConvNorm(config.channels, config.stem, 3, eps=config.norm_eps, stride=2)
        width, wide = config.stem, 0
        stages: list[nn.Module] = []
        for number, blocks in enumerate(config.blocks):
            parts: list[nn.Module] = []
            for block in blocks:
                if block.kind == "mqa":
                    parts.append(MultiQueryAttention(block, config))
                elif block.kind == "er":
                    parts.append(EdgeBottleneck(width, block, config))
                else:
                    parts.append(UniversalBottleneck(width, block, config))
                width = block.channels
            stages.append(nn.Sequential(*parts))
            if number >= len(config.stages) - config.fused:
                wide += width
        self.stages = nn.ModuleList(stages)
        self.fusion = Fusion(wide, config)

    def forward(self, images: Tensor) -> Tensor:
        x: Tensor = self.stem(images)
        outputs: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        out: Tensor = self.fusion(outputs[-self.config.fused :])
        return out
