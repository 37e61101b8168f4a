"""When rows are read, finished and weighed: what the cycle simulator takes from the hardware."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..hwgen.core.instruction import Product
from ..hwgen.core.machine import Machine
from ..hwgen.core.schedule import Schedule, schedule

__all__ = ["Contracts", "Cycles"]

Cycles: TypeAlias = NDArray[np.int64]


class Contracts:
    """The contracts of the hardware as it is generated. A subclass describes other hardware, to
    compare with; no RTL stands behind its cycles.
    """

    def schedule(self, item: Product, machine: Machine) -> Schedule:
        """Steps of a product."""
        return schedule(
            tokens=item.tokens,
            tiles=item.tiles,
            words=item.words,
            rows=machine.rows,
            order=machine.order,
            queued=item.expert > 0,
        )

    def rows(self, item: Product, plan: Schedule, machine: Machine) -> tuple[Cycles, ...]:
        """Of every row of a product its slot, the step in which it is read into the slot, and the
        step with its last tile.
        """
        index = np.arange(item.tokens)
        slot = index % machine.rows
        load_step = index // machine.rows * plan.period + slot * plan.skew
        return slot, load_step, load_step + item.tiles - 1

    def read_steps(self, item: Product, plan: Schedule, machine: Machine) -> int:
        """Steps that read words of the other side: weights, keys or values."""
        return plan.steps

    def loads(self, item: Product, machine: Machine) -> int:
        """Rows that may be read into their slots in the same step."""
        return machine.loads

    def softmax_cycles(self, tiles: int) -> int:
        """Cycles that a row of ``tiles`` tiles of scores keeps the softmax unit busy."""
        return tiles
