"""What the attentions of a traced model look at, in numbers, and whether it matters.

The measures are this project's choice: the papers on ConvShareViT speak of attention scores without
defining them. Each has the value that uniform attention would give beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import VitruviusError
from .editing import Edit, rebuilt
from .graph import Graph, Operator, execute

__all__ = [
    "AttentionMeasures",
    "attention_maps",
    "fixed_attention",
    "mask_shares",
    "measures",
    "overlap",
    "rollout",
    "uniform_measures",
]

_BATCH = 250


@dataclass(frozen=True)
class AttentionMeasures:
    """Means over images, heads and queries of one attention.

    entropy: of a row of weights, over log T: 1 when uniform, 0 when on one token.
    distance_pixels: between the centres of query and key, weighted; tokens of the image only (mean
        attention distance, Dosovitskiy et al. 2021, arXiv 2010.11929, appendix D.7).
    top_share: of the weights of a row that its largest ``top`` tokens have.
    variation: half the sum of differences between a row and the mean row of all images: 0 when
        every image is attended alike, at most 1 (total variation distance).
    """

    entropy: float
    distance_pixels: float
    top_share: float
    variation: float


def attention_maps(graph: Graph, images: Tensor) -> Tensor:
    """The weights of every attention of ``graph`` for ``images`` [B, C, H, W]: [layers, B, heads,
    T, T].

    Raises ``VitruviusError`` when there is none, or attentions differ in size or have windows.
    """
    _same_size(graph)
    softmaxes = [region.softmax for region in graph.regions]
    parts = []
    for piece in torch.split(images, _BATCH):
        seen: dict[str, Tensor] = {}

        def keep(op: Operator, value: Tensor, seen: dict[str, Tensor] = seen) -> None:
            if op.name in softmaxes:
                seen[op.name] = value

        execute(graph, piece, observe=keep)
        parts.append(torch.stack([seen[name] for name in softmaxes]))
    return torch.cat(parts, dim=1)


def measures(
    maps: Tensor, grid: tuple[int, int], patch_pixels: int, *, top: int = 3
) -> AttentionMeasures:
    """The measures of one attention, weights [B, heads, T, T] whose last rows x columns tokens are
    those of the image, ``patch_pixels`` apart.
    """
    tokens, patches = maps.shape[-1], grid[0] * grid[1]
    weights = maps.double()
    entropy = -torch.xlogy(weights, weights).sum(-1) / math.log(tokens)
    between = weights[..., tokens - patches :, tokens - patches :]
    between = between / between.sum(-1, keepdim=True).clamp(min=1e-30)
    distances = (between * _distances(grid, patch_pixels)).sum(-1)
    share = weights.topk(top, dim=-1).values.sum(-1)
    variation = (weights - weights.mean(0)).abs().sum(-1) / 2
    means = (float(item.mean()) for item in (entropy, distances, share, variation))
    return AttentionMeasures(*means)


def uniform_measures(
    tokens: int, grid: tuple[int, int], patch_pixels: int, *, top: int = 3
) -> AttentionMeasures:
    """What ``measures`` gives where every weight is 1 / T.

    >>> uniform_measures(17, (4, 4), 8).top_share == 3 / 17
    True
    """
    return AttentionMeasures(1.0, float(_distances(grid, patch_pixels).mean()), top / tokens, 0.0)


def rollout(maps: Tensor) -> Tensor:
    """Attention rollout (Abnar and Zuidema 2020, arXiv 2005.00928) from the class token, the first,
    to the other tokens: weights [layers, B, heads, T, T] to shares [B, T - 1] that sum to 1.

    The heads' mean and the residual stream weigh the same: (A + 1) / 2 of each layer, multiplied.
    """
    unit = torch.eye(maps.shape[-1], dtype=torch.float64)
    total = unit
    for layer in maps.double().mean(2):
        total = (layer + unit) / 2 @ total
    shares = total[:, 0, 1:]
    return shares / shares.sum(-1, keepdim=True)


def mask_shares(masks: Tensor, plane_size: int, token_side: int) -> Tensor:
    """The share of an object that lies in each token: masks [B, 1, H, W], placed in the middle of a
    plane of ``plane_size`` that is cut into tokens, to [B, tokens] that sum to 1.
    """
    before = (plane_size - masks.shape[-1]) // 2
    after = plane_size - masks.shape[-1] - before
    whole = functional.pad(masks.double(), (before, after, before, after))
    inside = functional.avg_pool2d(whole, token_side).flatten(1)
    return inside / inside.sum(-1, keepdim=True)


def overlap(shares: Tensor, objects: Tensor) -> float:
    """What two distributions over tokens [B, tokens] have in common, the mean sum of the smaller
    ones: 1 when attention lies on the object as its pixels do, 0 when all is beside it.

    >>> overlap(torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.0, 0.25, 0.75]]))
    0.25
    """
    return float(torch.minimum(shares.double(), objects.double()).sum(-1).mean())


def fixed_attention(graph: Graph, maps: Sequence[Tensor | None]) -> Graph:
    """The graph with the same weights [heads, T, T] for every image in the place of each attention,
    in the order of its regions; None leaves one as it is.

    Raises ``VitruviusError`` as ``attention_maps`` does, and for weights of another shape.
    """
    _same_size(graph)
    if len(maps) != len(graph.regions):
        raise VitruviusError(
            f"{graph.name}: expected weights for each of {len(graph.regions)} attentions, got "
            f"{len(maps)}"
        )
    edit = Edit(graph)
    for region, weights in zip(graph.regions, maps, strict=True):
        if weights is None:
            continue
        softmax = edit.operator(region.softmax)
        if tuple(weights.shape) != softmax.output.shape[1:]:
            raise VitruviusError(
                f"{graph.name}: expected weights {list(softmax.output.shape[1:])} for "
                f"{softmax.name}, got {list(weights.shape)}"
            )
        held = {"value": weights[None].float()}
        constant = edit.add("Constant", [], like=softmax, label="fixed", tensors=held)
        edit.redirect(softmax.name, constant)
    kept = [region for region, item in zip(graph.regions, maps, strict=True) if item is None]
    found = edit.graph()
    return rebuilt(found, found.operators(), regions=kept)


def _distances(grid: tuple[int, int], patch_pixels: int) -> Tensor:
    """Between the centres of every two tokens, in pixels: [patches, patches]."""
    places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).double()
    return torch.cdist(places, places) * patch_pixels


def _same_size(graph: Graph) -> None:
    shapes = {graph.operator(region.softmax).output.shape for region in graph.regions}
    windows = any(region.windows != 1 for region in graph.regions)
    if len(shapes) != 1 or windows or len(min(shapes)) != 4:
        raise VitruviusError(
            f"{graph.name}: expected attentions of one size, [1, heads, T, T], without windows; "
            f"got {', '.join(str(list(shape)) for shape in sorted(shapes)) or 'none'}"
        )
