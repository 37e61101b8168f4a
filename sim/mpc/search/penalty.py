"""What the search pays for ReLU-softmax: the plain L1 norm, or what the cost model says.

Heads of one layer share their rounds and each has bytes of its own, so a layer costs a step for its
first unit and the same again for every unit. Over a network with slow rounds the step is nearly all
and whole layers are emptied; over a fast one the units are, and they spread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ....models.zoo.mpcvit_config import MpcVitConfig

__all__ = ["UnitCosts", "cost_penalty", "l1_penalty", "unit_costs"]


@dataclass(frozen=True)
class UnitCosts:
    """Seconds that ReLU-softmax adds to a layer of scaled attention: ``step_s`` if any of its units
    has it, ``unit_s`` more for each unit that has. ``activation_s`` is what the activation of one
    layer adds to an MLP of one fused matrix.
    """

    step_s: float
    unit_s: float
    activation_s: float = 0.0

    def seconds(self, counts: list[int]) -> float:
        """What layers with so many units each add together."""
        return sum(self.step_s * (count > 0) + self.unit_s * count for count in counts)


def unit_costs(config: MpcVitConfig, latency_s: Callable[[MpcVitConfig], float]) -> UnitCosts:
    """The costs of the search space of ``config``, by differences of whole models: no unit, one and
    two units of the first layer, and its activation taken away. All layers have the same shapes, so
    all cost the same.
    """
    rest = ("gelu_tanh",) * (config.depth - 1)

    def seconds(units: int, *, active: bool = True) -> float:
        lists = (tuple(range(units)), *((),) * (config.depth - 1))
        fields: dict[str, object] = {"attention": "mixed", "relu_softmax": lists}
        fields |= {"activation": ("linear" if not active else "gelu_tanh", *rest), "fused": True}
        return latency_s(MpcVitConfig.model_validate(config.model_dump() | fields))

    none, one = seconds(0), seconds(1)
    activation = none - seconds(0, active=False)
    if config.units == 1:
        return UnitCosts(one - none, 0.0, activation)
    unit = seconds(2) - one
    return UnitCosts(one - none - unit, unit, activation)


def l1_penalty(alphas: Tensor, betas: Tensor) -> Tensor:
    """The sum of |alpha| over [layers, units] and of |beta| over [layers]."""
    return alphas.abs().sum() + betas.abs().sum()


def cost_penalty(alphas: Tensor, betas: Tensor, costs: UnitCosts) -> Tensor:
    """The seconds of ``costs`` for alphas [layers, units] and betas [layers], times the number of
    units over the seconds of all units: like ``l1_penalty`` it is the number of units where all
    alphas are 1 and there are no betas.

    Whether any unit of a layer has ReLU-softmax becomes the layer's largest |alpha|: of all convex
    functions that are right where alphas are 0 or 1 it is the largest between. Of several largest
    ones each has its part of the gradient.
    """
    sizes = alphas.abs()
    layers, units = alphas.shape
    whole = costs.seconds([units] * layers)
    total = costs.step_s * sizes.amax(dim=1).sum() + costs.unit_s * sizes.sum()
    total = total + costs.activation_s * betas.abs().sum()
    return total * (layers * units / whole)
