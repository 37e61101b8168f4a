"""Blocks around a diagonal state-space scan, written as a loop over the tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .language_config import ScanConfig

__all__ = ["ScanModel"]


class ScanBlock(nn.Module):
    """h = a h + b x and y = c h in every channel, gated: [B, T, D] to the same.

    a = exp(-d softplus), b, c and the step d are computed from the token.
    """

    def __init__(self, config: ScanConfig) -> None:
        super().__init__()
        dim, self.state = config.dim, config.state
        self.norm = nn.RMSNorm(dim, eps=config.norm_eps)
        self.in_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.parameters_proj = nn.Linear(dim, dim + 2 * config.state, bias=False)
        self.log_decay = nn.Parameter(torch.zeros(dim, config.state))
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.in_proj(self.norm(x)).chunk(2, dim=-1)
        dim, state = value.shape[-1], self.state
        step, b, c = self.parameters_proj(value).split([dim, state, state], dim=-1)
        step = functional.softplus(step)[..., None]
        decay = torch.exp(-step * torch.exp(self.log_decay))  # [B, T, D, N]
        driven = step * b[:, :, None, :] * value[..., None]
        kept = driven[:, 0]
        outputs = [(kept * c[:, 0, None, :]).sum(-1)]
        for token in range(1, value.shape[1]):
            kept = decay[:, token] * kept + driven[:, token]
            outputs.append((kept * c[:, token, None, :]).sum(-1))
        mixed = torch.stack(outputs, dim=1)
        out: Tensor = x + self.out_proj(mixed * functional.silu(gate))
        return out


class ScanModel(nn.Sequential):
    """``depth`` blocks: [B, T, D] to the same."""

    def __init__(self, config: ScanConfig) -> None:
        super().__init__(*(ScanBlock(config) for _ in range(config.depth)))
        self.config = config
