"""Softmax weights: running maximum of arriving scores, table exponential, reciprocal of the sum."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ...models.integer.softmax import SCORE_BITS, WEIGHT_BITS, exponential_table
from ..delay import delayed
from .reciprocal import Reciprocal
from .score_rows import ScoreRows, check_extents, gathered_rows
from .tree import summed

__all__ = ["Softmax", "cycles"]


def cycles(arrivals: Sequence[int], tiles: int) -> list[int]:
    """The cycle of ``scale_valid`` of each row, given the cycle of each row's ``last`` chunk.

    ``arrivals`` are strictly increasing; rows have ``tiles`` tiles each. A row's weights leave in
    ``tiles`` cycles that end ``Softmax.SCALE`` cycles earlier.

    >>> cycles([0, 1], tiles=4)
    [27, 31]
    """
    completions = []
    free = 0
    for arrival in arrivals:
        first_weight = max(arrival + Softmax.START, free)
        free = first_weight + tiles
        completions.append(free - 1 + Softmax.SCALE)
    return completions


class Softmax(wiring.Component):
    """Weights ``EXP[max - score]`` of rows of scores, and the reciprocal of each row's sum.

    The chunks of a row may come in any order of tiles, those of different slots in any
    interleaving, at most one chunk a cycle; nothing can stall. Scores are kept in two halves per
    slot: once a row is complete, its slot may begin the next in the other half in the very next
    cycle, but not the one after that before the first row's weights have left. Complete rows queue
    and leave in order of completion, tiles 0 to ``tiles`` - 1 at one a cycle, back to back.

    The cycle contract, t being the cycle in which ``last`` is at the input:

    * alone, the row's first weights are valid in cycle t + ``START``; behind another row, in the
      cycle after that row's last weights, if that is later;
    * ``scale_valid`` comes ``SCALE`` cycles after the row's last weights, for one cycle;
    * ``busy`` rises in cycle t + 1 and falls in the cycle after the last ``scale_valid``.

    Golden: `models.integer.softmax.softmax_weights` and `models.integer.reciprocal.reciprocal`.

    Parameters
    ----------
    slots : int
        Rows that can be arriving at the same time, at least 1.
    lanes : int
        Scores per chunk, at least 1.
    max_tiles : int
        Most chunks per row, at least 1.
    max_row : int
        Number of row indices, at least 1.

    Members
    -------
    valid, slot, tile, count, first, last, row, scores : In
        A chunk: its slot, its index in the row, its number of valid lanes (1 to ``lanes``), whether
        it is the first or the last of its row to arrive, and the row's index (read with ``last``).
    tiles, last_count : In
        Chunks per row, and valid lanes of the chunk with the highest index; constant while busy.
    weights_valid, weights_row, weights_tile, weights : Out
        Unsigned 8-bit weights of one tile; 0 in lanes that are not valid.
    scale_valid, scale_row, mantissa, length : Out
        The reciprocal of a row's sum, as `Reciprocal` gives it.
    busy : Out
        A row is complete and its scale has not left.

    Raises
    ------
    ValueError
        A parameter is less than 1.
    """

    START = ScoreRows.START + 3
    """Cycles from ``last`` to the row's first weights: the rows, scores, distance, table."""
    SCALE = 2 + Reciprocal.LATENCY
    """Cycles from a row's last weights to its scale: lanes, row, reciprocal."""

    def __init__(self, *, slots: int, lanes: int, max_tiles: int, max_row: int) -> None:
        check_extents(slots=slots, lanes=lanes, max_tiles=max_tiles, max_row=max_row)
        self.slots, self.lanes, self.max_tiles, self.max_row = slots, lanes, max_tiles, max_row
        self.total_bits = (((1 << WEIGHT_BITS) - 1) * lanes * max_tiles).bit_length()
        super().__init__(
            {
                "valid": In(1),
                "slot": In(range(slots)),
                "tile": In(range(max_tiles)),
                "count": In(range(lanes + 1)),
                "first": In(1),
                "last": In(1),
                "row": In(range(max_row)),
                "scores": In(data.ArrayLayout(signed(SCORE_BITS), lanes)),
                "tiles": In(range(max_tiles + 1)),
                "last_count": In(range(lanes + 1)),
                "weights_valid": Out(1),
                "weights_row": Out(range(max_row)),
                "weights_tile": Out(range(max_tiles)),
                "weights": Out(data.ArrayLayout(unsigned(WEIGHT_BITS), lanes)),
                "scale_valid": Out(1),
                "scale_row": Out(range(max_row)),
                "mantissa": Out(16),
                "length": Out(range(self.total_bits + 1)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = gathered_rows(m, self, SCORE_BITS)
        self._weigh(m, rows)
        self._scale(m, delayed(m, rows.final, 3, name="weights_final"))

        waiting = Signal(range(2 * self.slots + self.START + self.SCALE + 2))
        m.d.sync += waiting.eq(waiting + (self.valid & self.last) - self.scale_valid)
        m.d.comb += self.busy.eq(waiting != 0)
        return m

    def _weigh(self, m: Module, rows: ScoreRows) -> None:
        """Look up the weights of the tiles that are read."""
        table_data = exponential_table()
        for lane in range(self.lanes):
            difference = Signal(SCORE_BITS, name=f"difference_{lane}")
            distance = Signal(WEIGHT_BITS, name=f"distance_{lane}")
            void = (rows.read_count <= lane) | difference[WEIGHT_BITS:].any()
            m.d.comb += difference.eq(rows.maximum - rows.read_scores[lane])
            m.d.sync += distance.eq(Mux(void, len(table_data) - 1, difference))
            # A table for each lane: a block memory has two ports, and Yosys' search for a way to
            # share one table among 16 does not end.
            m.submodules[f"table_{lane}"] = table = memory.Memory(
                shape=unsigned(WEIGHT_BITS), depth=len(table_data), init=table_data
            )
            port = table.read_port()
            m.d.comb += [port.addr.eq(distance), self.weights[lane].eq(port.data)]
        m.d.comb += [
            self.weights_valid.eq(delayed(m, rows.reading, 3, name="weights_valid")),
            self.weights_row.eq(delayed(m, rows.read_row, 3, name="weights_row")),
            self.weights_tile.eq(delayed(m, rows.read_tile, 3, name="weights_tile")),
        ]

    def _scale(self, m: Module, last_tile: Signal) -> None:
        """Add up a row's weights and send the sum through the reciprocal."""
        m.submodules.reciprocal = reciprocal = Reciprocal(width=self.total_bits)
        chunk = Signal(range(((1 << WEIGHT_BITS) - 1) * self.lanes + 1))
        level: list[Value] = [self.weights[lane] for lane in range(self.lanes)]
        valid, first, last = Signal(), Signal(), Signal()
        row = Signal.like(self.weights_row)
        m.d.sync += [
            chunk.eq(summed(level)),
            valid.eq(self.weights_valid),
            first.eq(self.weights_tile == 0),
            last.eq(self.weights_valid & last_tile),
            row.eq(self.weights_row),
        ]
        total = Signal(self.total_bits)
        with m.If(valid):
            m.d.sync += total.eq(Mux(first, 0, total) + chunk)
        late = 1 + Reciprocal.LATENCY
        m.d.comb += [
            reciprocal.value.eq(total),
            self.mantissa.eq(reciprocal.mantissa),
            self.length.eq(reciprocal.length),
            self.scale_valid.eq(delayed(m, last, late, name="scale_valid")),
            self.scale_row.eq(delayed(m, row, late, name="scale_row")),
        ]
