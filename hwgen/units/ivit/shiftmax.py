"""Shiftmax: a row's maximum, its powers of two, one division for the row, a product for each."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ....models.integer.ivit.shiftmax import OCTAVES
from ...delay import delayed
from ..score_rows import ScoreRows, check_extents, gathered_rows
from ..tree import summed
from .shift_exp import DISTANCE_BITS, STEP_BITS, ShiftExp, latency

__all__ = ["LEAST_SUM", "RESULT_BITS", "SCORE_BITS", "Shiftmax", "cycles"]

SCORE_BITS = 8
RESULT_BITS = 15
LEAST_SUM = 1 << 9
"""The least exponential of a row's maximum, ``step << octaves``, for the reciprocal's bits."""
_TOTAL_BITS = 31
_DIVISION = ((1 << _TOTAL_BITS) // LEAST_SUM - 1).bit_length()
"""Cycles of a row in the divider, one for each bit of the quotient."""
_SUMS = 2
"""Cycles from a chunk of exponentials to the row's sum: lanes, row."""


def cycles(arrivals: Sequence[int], tiles: int) -> list[int]:
    """The cycle of each row's last results, given the cycle of each row's ``last`` chunk.

    ``arrivals`` are strictly increasing; rows have ``tiles`` chunks each. Rows back to back take
    ``tiles`` cycles each.

    >>> cycles([0, 13, 26], tiles=13)
    [62, 75, 88]
    """
    completions = []
    free = 0
    for arrival in arrivals:
        begin = max(arrival + ScoreRows.START, free)
        free = begin + tiles
        completions.append(begin + 2 * (tiles - 1) + Shiftmax.WEIGHING)
    return completions


class Shiftmax(wiring.Component):
    """Probabilities of rows of 8-bit scores, in units of 1/2**15 or 1/2**7.

    Chunks arrive as at `Softmax`: those of a row in any order of tiles, those of different slots in
    any interleaving, at most one a cycle; see `ScoreRows` for when a slot may begin a row. Nothing
    can stall; rows leave in order of completion.

    The cycle contract, t being the cycle in which ``last`` is at the input:

    * alone, the row is read in cycles b = t + ``ScoreRows.START`` to b + ``tiles`` - 1; behind
      another row, from the cycle after that row's last read, if that is later;
    * its results leave in ``tiles`` cycles, the last in b + 2 * (``tiles`` - 1) + ``WEIGHING``,
      with ``row_complete``;
    * ``busy`` rises in cycle t + 1 and falls in the cycle after the last results.

    Golden: `models.integer.ivit.shiftmax.shiftmax`.

    Parameters
    ----------
    slots, lanes, max_tiles, max_row : int
        As of `Softmax`.

    Members
    -------
    valid, slot, tile, count, first, last, row, scores : In
        A chunk of signed 8-bit scores, as of `Softmax`.
    tiles, last_count, step, octaves, narrow : In
        Chunks per row, valid scores of a row's last chunk, ``a`` of the scores (1 to 511), where
        exponentials are cut (1 to 15; ``step << octaves`` at least `LEAST_SUM`), and whether
        results have 8 bits in the place of 16; constant while rows are inside.
    weights_valid, weights_row, weights_tile, weights : Out
        Unsigned results of one tile; 0 in lanes that are not valid.
    row_complete : Out
        These are the row's last.
    busy : Out
        A row is complete and its last results have not left.

    Raises
    ------
    ValueError
        A parameter is out of range.
    """

    TAIL = 3
    """Cycles from the read of a stored exponential to its result: buffer, product, shift."""

    WEIGHING = 3 + latency() + _SUMS + _DIVISION + TAIL
    """Cycles from a row's last read to its first results: buffer, distance, exponential, octaves,
    sums, division, tail.
    """

    def __init__(self, *, slots: int, lanes: int, max_tiles: int, max_row: int) -> None:
        check_extents(slots=slots, lanes=lanes, max_tiles=max_tiles, max_row=max_row)
        self.slots, self.lanes, self.max_tiles, self.max_row = slots, lanes, max_tiles, max_row
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
                "step": In(unsigned(STEP_BITS)),
                "octaves": In(range(OCTAVES + 1), init=OCTAVES),
                "narrow": In(1),
                "weights_valid": Out(1),
                "weights_row": Out(range(max_row)),
                "weights_tile": Out(range(max_tiles)),
                "weights": Out(data.ArrayLayout(unsigned(RESULT_BITS), lanes)),
                "row_complete": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = gathered_rows(m, self, SCORE_BITS)

        exponentials = self._weigh(m, rows)
        late = 3 + latency()
        weighed = delayed(m, rows.reading, late, name="weighed")
        final = delayed(m, rows.reading & rows.final, late, name="weighed_final")
        total, complete = self._sum(m, exponentials, weighed, final)
        quotient = self._divide(m, total)
        done = delayed(m, complete, _DIVISION, name="done")
        row = delayed(m, rows.read_row, late + _SUMS + _DIVISION, name="row")
        self._multiply(m, exponentials, weighed, quotient, done, row)

        inside = 2 * self.slots + self.WEIGHING + 2 * self.max_tiles + 2
        waiting = Signal(range(inside))
        m.d.sync += waiting.eq(waiting + (self.valid & self.last) - self.row_complete)
        m.d.comb += self.busy.eq(waiting != 0)
        return m

    def _weigh(self, m: Module, rows: ScoreRows) -> list[Signal]:
        """The exponential of each lane of what is read, 0 in void lanes."""
        count = delayed(m, rows.read_count, 1 + latency(), name="exponential_count")
        dropped = Signal(range(OCTAVES + 1))
        m.d.comb += dropped.eq(OCTAVES - self.octaves)
        exponentials = []
        for lane in range(self.lanes):
            distance = Signal(DISTANCE_BITS, name=f"distance_{lane}")
            m.d.sync += distance.eq(rows.maximum - rows.read_scores[lane])
            m.submodules[f"exp_{lane}"] = exp = ShiftExp()
            m.d.comb += [exp.distance.eq(distance), exp.step.eq(self.step)]
            # Of fewer octaves the same in larger units, and nothing below the step.
            fewer = Signal.like(exp.result, name=f"fewer_{lane}")
            exponential = Signal.like(exp.result, name=f"exponential_{lane}")
            m.d.comb += fewer.eq(exp.result >> dropped)
            with m.If(count <= lane):
                m.d.sync += exponential.eq(0)
            with m.Elif(fewer < self.step):
                m.d.sync += exponential.eq(self.step)
            with m.Else():
                m.d.sync += exponential.eq(fewer)
            exponentials.append(exponential)
        return exponentials

    def _sum(
        self, m: Module, exponentials: list[Signal], weighed: Signal, final: Signal
    ) -> tuple[Signal, Signal]:
        """The saturating sum of each row, and the flag that it is complete."""
        level: list[Value] = [*exponentials]
        tree = summed(level)
        chunk, valid, fresh = Signal(len(tree)), Signal(), Signal(init=1)
        total, complete = Signal(_TOTAL_BITS), Signal()
        last = delayed(m, weighed & final, 1, name="summed_final")
        m.d.sync += [chunk.eq(tree), valid.eq(weighed), complete.eq(last)]
        following = Mux(fresh, 0, total) + chunk
        with m.If(valid):
            m.d.sync += [
                total.eq(Mux(following[_TOTAL_BITS:].any(), (1 << _TOTAL_BITS) - 1, following)),
                fresh.eq(last),
            ]
        return total, complete

    def _divide(self, m: Module, total: Signal) -> Signal:
        """``(2**31 - 1) // total``, `_DIVISION` cycles after ``total``: a stage for each bit."""
        # The first digits are zero; the numerator is all ones.
        rest: Value = Const(LEAST_SUM - 1, _TOTAL_BITS)
        divisor, quotient = total, Const(0, 0)
        for stage in range(_DIVISION):
            shifted = Cat(Const(1, 1), rest)
            trial = Signal(_TOTAL_BITS + 2, name=f"trial_{stage}")
            kept = Signal(_TOTAL_BITS, name=f"rest_{stage}")
            held = Signal(_TOTAL_BITS, name=f"divisor_{stage}")
            digits = Signal(stage + 1, name=f"quotient_{stage}")
            m.d.comb += trial.eq(shifted - divisor)
            fits = ~trial[-1]
            m.d.sync += [
                kept.eq(Mux(fits, trial, shifted)),
                held.eq(divisor),
                digits.eq(Cat(fits, quotient)),
            ]
            rest, divisor, quotient = kept, held, digits
        return quotient

    def _multiply(
        self,
        m: Module,
        exponentials: list[Signal],
        weighed: Signal,
        quotient: Signal,
        done: Signal,
        row: Signal,
    ) -> None:
        """Keep the exponentials of rows in their order; multiply a row's when it is ``done``."""
        # From a word's storing to its reading pass the sums, its row's other chunks, the division.
        words = _SUMS + self.max_tiles + _DIVISION
        address_bits = (words - 1).bit_length()
        shape = data.ArrayLayout(unsigned(len(exponentials[0])), self.lanes)
        m.submodules.exponentials = storage = memory.Memory(
            shape=shape, depth=1 << address_bits, init=[]
        )
        writer, reader = storage.write_port(), storage.read_port()
        write, read = Signal(address_bits), Signal(address_bits)
        tile = Signal(range(self.max_tiles))
        reading, final = Signal(), Signal()
        m.d.comb += [
            writer.en.eq(weighed),
            writer.addr.eq(write),
            writer.data.as_value().eq(Cat(exponentials)),
            reader.addr.eq(read),
            reading.eq(done | (tile != 0)),
            final.eq(tile == self.tiles - 1),
        ]
        m.d.sync += [write.eq(write + weighed), read.eq(read + reading)]
        with m.If(reading):
            m.d.sync += tile.eq(Mux(final, 0, tile + 1))
        factor, here, held = Signal.like(quotient), Signal.like(row), Signal.like(row)
        m.d.comb += here.eq(Mux(done, row, held))
        with m.If(done):
            m.d.sync += [factor.eq(quotient), held.eq(row)]

        for lane in range(self.lanes):
            product = Signal(_TOTAL_BITS, name=f"product_{lane}")
            m.d.sync += [
                product.eq(reader.data[lane] * factor),
                self.weights[lane].eq(Mux(self.narrow, product >> 24, product >> 16)),
            ]
        m.d.comb += [
            self.weights_valid.eq(delayed(m, reading, Shiftmax.TAIL, name="reading")),
            self.weights_row.eq(delayed(m, here, Shiftmax.TAIL, name="here")),
            self.weights_tile.eq(delayed(m, tile, Shiftmax.TAIL, name="tile")),
            self.row_complete.eq(delayed(m, reading & final, Shiftmax.TAIL, name="final")),
        ]
