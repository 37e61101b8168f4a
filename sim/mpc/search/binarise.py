"""From trained alphas to an architecture: which units of each layer keep their ReLU-softmax."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ....errors import VitruviusError
from .penalty import UnitCosts

__all__ = ["kept_units", "top_units", "within_budget"]


def kept_units(total: int, share: float) -> int:
    """How many of ``total`` units a ``share`` (mu) keeps: T - floor((1 - mu) T).

    Raises ``VitruviusError`` for a share that is not between 0 and 1.

    >>> [kept_units(28, share) for share in (0.1, 0.3, 0.5, 0.7)]  # the model for CIFAR
    [3, 9, 14, 20]
    """
    if not 0 <= share <= 1:
        raise VitruviusError(
            f"mu is the share of units with ReLU-softmax, from 0 to 1, got {share}"
        )
    # exact: 1 - 0.9 in binary floating point would lose a unit
    return total - int((1 - Fraction(str(share))) * total)


def top_units(alphas: NDArray[np.float64], count: int) -> tuple[tuple[int, ...], ...]:
    """The ``count`` largest alphas of [layers, units], for each layer the units in rising order; of
    equal ones the first.
    """
    order = np.argsort(-alphas.flatten(), kind="stable")[:count]
    units = alphas.shape[1]
    return tuple(
        tuple(sorted(int(place) % units for place in order if place // units == layer))
        for layer in range(alphas.shape[0])
    )


def within_budget(
    alphas: NDArray[np.float64], share: float, costs: UnitCosts
) -> tuple[tuple[int, ...], ...]:
    """The units with the largest sum of alphas that together cost at most ``share`` of what all
    units cost; no unit of negative alpha.

    Of one layer it is always the largest alphas, so only their number is chosen: exactly, over the
    number of layers in use and of units so far.

    Raises ``VitruviusError`` for a share that is not between 0 and 1.
    """
    kept_units(1, share)
    layers, units = alphas.shape
    budget = share * costs.seconds([units] * layers) * (1 + 1e-9)
    order = np.argsort(-alphas, axis=1, kind="stable")
    worth = np.concatenate(
        [np.zeros((layers, 1)), np.cumsum(np.take_along_axis(alphas, order, 1), 1)], 1
    )
    # best[m, c]: the largest sum with m layers in use and c units; chosen[l][m, c]: layer l's units
    best = np.full((layers + 1, layers * units + 1), -np.inf)
    best[0, 0] = 0.0
    chosen: list[NDArray[np.int64]] = []
    for layer in range(layers):
        now, count = best.copy(), np.zeros(best.shape, dtype=np.int64)
        for number in range(1, units + 1):
            moved = np.full(best.shape, -np.inf)
            moved[1:, number:] = best[:-1, : best.shape[1] - number] + worth[layer, number]
            better = moved > now
            now, count = np.where(better, moved, now), np.where(better, number, count)
        best = now
        chosen.append(count)
    used, counts = np.indices(best.shape)
    seconds = costs.step_s * used + costs.unit_s * counts
    place = int(np.argmax(np.where(seconds <= budget, best, -np.inf)))
    m, c = divmod(place, best.shape[1])
    found: list[tuple[int, ...]] = []
    for layer in reversed(range(layers)):
        number = int(chosen[layer][m, c])
        found.append(tuple(sorted(int(unit) for unit in order[layer, :number])))
        m, c = m - (number > 0), c - number
    return tuple(reversed(found))
