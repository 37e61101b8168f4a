"""The search space made continuous: every unit of every layer has an alpha between its two kinds.

Zeng et al., ICCV 2023, arXiv 2211.13955: A = alpha ReLU-softmax(S) + (1 - alpha) S / N, alpha
trained together with the weights from 1 on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ....models.zoo.mpcvit import MpcAttention, MpcBlock, MpcMlp, MpcVit, relu_softmax
from ....models.zoo.mpcvit_config import MpcVitConfig

__all__ = ["RelaxedAttention", "RelaxedMlp", "alphas", "betas", "gates", "relaxed"]

_SHAPES = {"layer": (1, 1, 1), "head": (-1, 1, 1), "row": (1, -1, 1)}


class RelaxedAttention(MpcAttention):
    """Attention between ReLU-softmax and the scaled scores; ``alpha`` broadcasts to [H, N, N]."""

    def __init__(self, config: MpcVitConfig, layer: int) -> None:
        super().__init__(config, layer)
        units = torch.ones(config.units)
        self.alpha = nn.Parameter(units.reshape(_SHAPES[config.granularity]))

    def normalised(self, scores: Tensor) -> Tensor:
        scaled = scores * (1 / self.tokens)
        weights: Tensor = self.alpha * relu_softmax(scores) + (1 - self.alpha) * scaled
        return weights


class RelaxedMlp(MpcMlp):
    """An MLP between its activation and none, for all its tokens: ``beta`` times GELU and 1 - beta
    times its input (MPCViT+).
    """

    def __init__(self, config: MpcVitConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.beta = nn.Parameter(torch.ones(1))

    def activated(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.beta * super().activated(hidden) + (1 - self.beta) * hidden
        return out


def relaxed(config: MpcVitConfig, *, plus: bool = False) -> MpcVit:
    """A model of random weights whose units are still to be chosen; with ``plus`` the layers with
    an activation too.

    The seed of torch's generator decides on the weights, as for ``MpcVit``.
    """
    plain = config.model_copy(
        update={"attention": "relu_softmax", "relu_softmax": None, "scale_order": "scores"}
    )
    module = MpcVit(plain)
    for layer, block in enumerate(_blocks(module)):
        attention = RelaxedAttention(plain, layer)
        attention.load_state_dict(block.attn.state_dict(), strict=False)
        block.attn = attention
        if plus:
            mlp = RelaxedMlp(plain, layer)
            mlp.load_state_dict(block.mlp.state_dict(), strict=False)
            block.mlp = mlp
    return module


def gates(module: MpcVit) -> list[nn.Parameter]:
    """The alphas of all layers, then the betas of all, one parameter for each layer."""
    blocks = _blocks(module)
    found = [block.attn.alpha for block in blocks if isinstance(block.attn, RelaxedAttention)]
    return found + [block.mlp.beta for block in blocks if isinstance(block.mlp, RelaxedMlp)]


def alphas(module: MpcVit) -> Tensor:
    """The alphas as [layers, units], with their gradient."""
    parts = [block.attn for block in _blocks(module)]
    return torch.stack(
        [part.alpha.flatten() for part in parts if isinstance(part, RelaxedAttention)]
    )


def betas(module: MpcVit) -> Tensor:
    """The betas as [layers], with their gradient; empty when nothing of the MLPs is relaxed."""
    mlps = [block.mlp for block in _blocks(module)]
    found: list[Tensor] = [part.beta for part in mlps if isinstance(part, RelaxedMlp)]
    return torch.cat(found) if found else torch.zeros(0)


def _blocks(module: MpcVit) -> list[MpcBlock]:
    return [block for block in module.blocks if isinstance(block, MpcBlock)]
