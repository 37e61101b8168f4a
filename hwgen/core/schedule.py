"""When the words of a product are issued: the schedule of the product engine in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from .machine import Order

__all__ = ["QUEUE_READ", "Schedule", "schedule"]

QUEUE_READ = 3
"""Cycles from the place of a row in a queue to its addresses: what a product with an expert takes
longer to begin, and the least that a step of it takes."""


@dataclass(frozen=True)
class Schedule:
    """The schedule of a product in numbers.

    step_cycles: cycles per step (one tile for all slots); padding: those of them, at its beginning,
    in which no word is issued; period: steps from one row of a slot to its next; skew: steps from
    one slot's first row to the next slot's; steps: steps in all.
    """

    step_cycles: int
    padding: int
    period: int
    skew: int
    steps: int

    @property
    def issue_cycles(self) -> int:
        """Cycles from the first issued word to the end of the last step, both included."""
        return self.steps * self.step_cycles


def schedule(
    *,
    tokens: int,
    tiles: int,
    words: int,
    rows: int,
    order: Order = "reordered",
    queued: bool = False,
) -> Schedule:
    """Steps of a product of ``tokens`` rows with ``tiles`` column tiles on ``rows`` slots.

    For tiles >= rows: ``ceil(N / rows) * tiles + (N - 1) % rows`` steps, Edge-MoE's formula; in the
    naive order without the remainder. A step lasts ``words`` cycles, or ``rows`` if the drain needs
    longer, or if rows are ``queued`` as many as the next entry of a queue takes. With fewer tiles
    than slots a reordered slot waits until all others have begun.

    >>> schedule(tokens=129, tiles=129, words=24, rows=4).steps
    4257
    """
    skew = int(order == "reordered")
    period = max(tiles, rows * skew)
    batches = -(-tokens // rows)
    steps = (batches - 1) * period + (tokens - 1) % rows * skew + tiles
    step_cycles = max(words, rows, QUEUE_READ if queued else 2)
    return Schedule(step_cycles, step_cycles - words, period, skew, steps)
