"""Training a model to do what another does: the loss of MPCViT's students."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["distillation_loss"]


def distillation_loss(
    logits: Tensor,
    features: Tensor,
    teacher_logits: Tensor,
    teacher_features: Tensor,
    feature_weight: float = 1.0,
) -> Tensor:
    """Cross entropy with the teacher's softmax at temperature 1, plus ``feature_weight`` times the
    mean squared difference of the tokens behind the last norm; the true labels do not enter (as in
    the code of MPCViT, Zeng et al. 2023).

    Logits are [B, classes], features [B, N, D].

    >>> same, tokens = torch.zeros(1, 2), torch.zeros(1, 3, 4)
    >>> round(float(distillation_loss(same, tokens, same, tokens + 2)), 3)  # log 2 + 4
    4.693
    """
    shares = torch.softmax(teacher_logits, dim=-1)
    return functional.cross_entropy(logits, shares) + feature_weight * functional.mse_loss(
        features, teacher_features
    )
