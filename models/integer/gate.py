"""The gate of a mixture of experts: which experts a token goes to, and with what weight.

The gate's scores are 16-bit codes with 5 fraction bits, as in attention, and the weights those of
`softmax` over all experts. The k largest scores win (the order of the weights, but finer), ties go
to the lower index, and each winner's weight is divided by the row's sum once: one reciprocal per
token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .reciprocal import reciprocal
from .softmax import softmax_weights

__all__ = ["GATE_FRACTION", "Routing", "gate", "route"]

GATE_FRACTION = 15
"""Fraction bits of a gate weight, which is below 1 and so fits 16 signed bits."""


@dataclass(frozen=True)
class Routing:
    """Where each token goes: ``experts`` int64 [..., k], ascending; ``weights`` int64 [..., k],
    15 fraction bits. A weight may be 0: the token still takes its place in the expert's queue.
    """

    experts: Tensor
    weights: Tensor

    def queue_lengths(self, count: int) -> Tensor:
        """How many tokens each of ``count`` experts gets: int64 [..., count], the axis before the
        last of ``experts`` (the tokens) summed.
        """
        chosen = torch.nn.functional.one_hot(self.experts, count)
        return chosen.sum((-3, -2))


def route(scores: Tensor, k: int) -> Routing:
    """The ``k`` experts of each token and their weights; scores: int64 [..., E], k <= E.

    ``weight = (EXP[max - score] * r) >> length`` with (r, length) the reciprocal of the sum of
    all E weights: the probability in 15 fraction bits, truncated.

    >>> routing = route(torch.tensor([[0, 32, 32, -64]]), 2)
    >>> routing.experts.tolist(), routing.weights.tolist()
    ([[1, 2]], [[13542, 13542]])
    """
    weights, total = softmax_weights(scores)
    r, length = reciprocal(total)
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    experts = order[..., :k].sort(-1).values
    chosen = (weights.gather(-1, experts) * r.unsqueeze(-1)) >> length.unsqueeze(-1)
    return Routing(experts, chosen)


def gate(scores: Tensor, k: int) -> Tensor:
    """`route` as a matrix: int64 [..., E] of weights, zero where an expert is not chosen."""
    routing = route(scores, k)
    return torch.zeros_like(scores).scatter(-1, routing.experts, routing.weights)
