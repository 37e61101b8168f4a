"""Where a chunk of a row that leaves tile by tile lies in a buffer with rows of ``lanes`` bytes."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value

from .machine import Machine

__all__ = ["row_placement"]


def row_placement(m: Module, machine: Machine, valid: Value, tile: Value) -> tuple[Signal, Signal]:
    """(row, lane) of the chunk ``tile`` that is ``valid`` in this cycle, counted from tile 0 of its
    row; ``machine.cols`` bytes a chunk, tiles of a row in order.
    """
    cols, lanes = machine.cols, machine.lanes
    row, lane = Signal(24), Signal(range(lanes))
    here_row, here_lane = Signal.like(row), Signal.like(lane)
    lane_after = Signal(range(2 * lanes))
    m.d.comb += [
        here_row.eq(Mux(tile == 0, 0, row)),
        here_lane.eq(Mux(tile == 0, 0, lane)),
        lane_after.eq(here_lane + cols),
    ]
    with m.If(valid):
        m.d.sync += [
            lane.eq(Mux(lane_after >= lanes, lane_after - lanes, lane_after)),
            row.eq(here_row + (lane_after >= lanes)),
        ]
    return here_row, here_lane
