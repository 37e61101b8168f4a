"""How the zoo's small models are optimised: AdamW or Muon, the rate over the steps, one thread."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .zoo.convshare import ConvShareVit
from .zoo.mpcvit import MpcVit
from .zoo.vit import VisionTransformer

__all__ = ["adamw", "muon", "one_thread", "rate_share"]

_WEIGHT_DECAY = 0.05
_ADAMW_RATE = 1e-3
_MUON_RATE = 3e-3
_APART_RATE = 1e-2
# initial values of the models trained with Muon: the height of the sines, their longest wavelength
# in patches over 2 pi, and the factor of each branch's last matrix
_POSITION = 0.2
_LONGEST = 100
_BRANCH = 0.3


def rate_share(step: int, steps: int, warmup: int) -> float:
    """The rate at ``step`` (from 0) over its peak: a linear warm-up, then a cosine to zero.

    >>> [rate_share(step, 5, 2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.2500000000000001, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def adamw(
    module: ConvShareVit | MpcVit | VisionTransformer, apart: Sequence[nn.Parameter] = ()
) -> list[torch.optim.Optimizer]:
    """AdamW for every parameter; those ``apart`` are a group of their own, without weight decay."""
    others = [parameter for parameter in module.parameters() if not _among(parameter, apart)]
    return [_with_apart(others, apart)]


def muon(
    module: ConvShareVit | MpcVit | VisionTransformer,
    apart: Sequence[nn.Parameter] = (),
    *,
    others_rate: float = _ADAMW_RATE,
) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices inside the blocks but the gates, at AdamW's scale
    (Liu et al. 2025, arXiv 2502.16982), AdamW at ``others_rate`` for the rest; ``apart`` as for
    ``adamw``. Kernels are rows of such a matrix.

    First, initial values that show every part of the image to every token: positions in sines of
    both axes (as in Beyer et al. 2022, arXiv 2205.01580), mid-grey patches at 0, weak branches.
    """
    rows, columns = module.config.grid
    with torch.no_grad():
        patch = module.stem if isinstance(module, ConvShareVit) else module.patch_embed
        assert patch.bias is not None
        patch.bias.copy_(-0.5 * patch.weight.sum((1, 2, 3)))
        sines = _sines(rows, columns, module.config.dim)
        module.pos_embed[:, module.config.prefix :] = _POSITION * sines
        for name, parameter in module.blocks.named_parameters():
            if name.endswith(("proj.weight", "fc2.weight")):
                parameter.mul_(_BRANCH)
            elif name.endswith(".bias"):
                parameter.zero_()
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if _among(parameter, apart):
            continue
        hidden = name.startswith("blocks.") and parameter.ndim == 2 and ".gate" not in name
        (matrices if hidden else others).append(parameter)
    return [
        _with_apart(others, apart, others_rate),
        torch.optim.Muon(
            matrices, lr=_MUON_RATE, weight_decay=_WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
        ),
    ]


def _with_apart(
    others: Sequence[nn.Parameter], apart: Sequence[nn.Parameter], rate: float = _ADAMW_RATE
) -> torch.optim.Optimizer:
    groups: list[dict[str, object]] = [{"params": list(others)}]
    if apart:
        groups.append({"params": list(apart), "lr": _APART_RATE, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=rate, weight_decay=_WEIGHT_DECAY)


def _among(parameter: nn.Parameter, members: Sequence[nn.Parameter]) -> bool:
    return any(parameter is member for member in members)


def _sines(rows: int, columns: int, dim: int) -> Tensor:
    """Sines and cosines of the place of each patch at ``dim`` / 4 wavelengths: [patches, dim]."""
    wavelengths = _LONGEST ** (torch.arange(dim // 4) / (dim // 4))
    places = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    turns = [place.reshape(-1, 1) / wavelengths for place in places]
    return torch.cat([wave(turn) for turn in turns for wave in (torch.sin, torch.cos)], dim=1)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread: batches this small gain nothing from two, and sums keep one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
