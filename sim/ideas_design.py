"""The accelerator without one or several of Edge-MoE's ideas: what a design has in their place.

No RTL stands behind these cycles; `sim.ideas` says of each design which source its figures have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..hwgen.core.instruction import Destination, Product
from ..hwgen.core.machine import Machine
from ..hwgen.core.schedule import Schedule, schedule
from .contracts import Contracts, Cycles
from .edge_moe_architecture import EdgeMoE

__all__ = ["EVALUATION", "SCORE_PASSES", "Design", "OtherHardware"]

_ARCH = EdgeMoE()
EVALUATION = _ARCH.exponential_depth + _ARCH.reciprocal_depth
"""Cycles of a value in Edge-MoE's evaluator that is not pipelined: an exponential, a reciprocal."""
SCORE_PASSES = 3
"""Times that a row of scores is read where softmax is not single-pass: for the maximum, for
exponentials and their sum, for the quotients."""
_ATTENTION = (Destination.SCORE, Destination.APPLY)


@dataclass(frozen=True, kw_only=True)
class Design:
    """An accelerator by what it has of each idea; the defaults are the accelerator as it is.

    experts: whose products run together, those of an expert or those of a token. softmax: a pass
    over the scores, three passes, or three with an evaluator in each lane that is not pipelined.
    gelu: the table of delta, a table of every code, or an evaluator in each lane. unit: shared by
    all products, shares of it for each kind, or a copy for each kind. attention: slots begin a step
    apart; one query at a time meets all keys; slots are filled in turn and begin together; slots
    begin together from copies of the memories. prefetch: transfers run ahead of the products.
    """

    experts: Literal["expert", "token"] = "expert"
    softmax: Literal["single", "passes", "evaluators"] = "single"
    gelu: Literal["delta", "table", "evaluators"] = "delta"
    unit: Literal["shared", "shares", "copies"] = "shared"
    attention: Literal["reordered", "query", "turns", "copies"] = "reordered"
    prefetch: bool = True


class OtherHardware(Contracts):
    """The cycle contracts of a `Design`. units: kinds of products, each of which has a unit of its
    own where the design does not share one.
    """

    def __init__(self, design: Design, units: int) -> None:
        self.design = design
        self.split = units if design.unit == "shares" else 1

    def schedule(self, item: Product, machine: Machine) -> Schedule:
        """A step lasts ``units`` times as long on as small a share of the multipliers, and as long
        as its rows take to drain.
        """
        way = self._way(item)
        rows = 1 if way == "query" else machine.rows
        plan = schedule(
            tokens=item.tokens,
            tiles=item.tiles,
            words=item.words * self.split,
            rows=rows,
            order="naive" if way == "copies" else machine.order,
            queued=item.expert > 0,
        )
        if way == "turns":
            period = item.tiles + rows - 1
            full, rest = divmod(item.tokens, rows)
            steps = full * period + (item.tiles + rest - 1 if rest else 0)
            plan = replace(plan, period=period, skew=1, steps=steps)
        if self.design.gelu == "evaluators" and item.destination is Destination.GELU:
            least = EVALUATION * rows
            longer = max(0, least - plan.step_cycles)
            plan = replace(
                plan, step_cycles=plan.step_cycles + longer, padding=plan.padding + longer
            )
        return plan

    def rows(self, item: Product, plan: Schedule, machine: Machine) -> tuple[Cycles, ...]:
        """One row after the other, or those of all slots together behind the last to be filled."""
        way = self._way(item)
        if way == "query":
            index = np.arange(item.tokens)
            load_step = index * plan.period
            return np.zeros_like(index), load_step, load_step + item.tiles - 1
        slot, load_step, finish_step = super().rows(item, plan, machine)
        if way == "turns":
            batch = np.arange(item.tokens) // machine.rows
            last = np.minimum((batch + 1) * machine.rows, item.tokens) - 1
            finish_step = finish_step[last]
        return slot, load_step, finish_step

    def read_steps(self, item: Product, plan: Schedule, machine: Machine) -> int:
        """None while slots are filled in turn."""
        if self._way(item) == "turns":
            return -(-item.tokens // machine.rows) * item.tiles
        return plan.steps

    def loads(self, item: Product, machine: Machine) -> int:
        """One, but from copies of the memories one for each slot."""
        return machine.rows if self._way(item) == "copies" else machine.loads

    def softmax_cycles(self, tiles: int) -> int:
        """Passes over the tiles of a row, the second and third with an evaluator if need be."""
        if self.design.softmax == "single":
            return tiles
        if self.design.softmax == "passes":
            return SCORE_PASSES * tiles
        return (1 + EVALUATION) * tiles

    def _way(self, item: Product) -> str:
        """In which order the rows of a product begin; only attention's can differ."""
        return self.design.attention if item.destination in _ATTENTION else "reordered"
