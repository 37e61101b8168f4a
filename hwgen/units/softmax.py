"""Softmax weights: running maximum of arriving scores, table exponential, reciprocal of the sum."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, fifo, memory, wiring
from amaranth.lib.wiring import In, Out

from ...models.integer.softmax import SCORE_BITS, WEIGHT_BITS, exponential_table
from ..delay import delayed
from .reciprocal import Reciprocal
from .tree import highest, summed

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

    START = 5
    """Cycles from ``last`` to the row's first weights: maximum, queue, scores, distance, table."""
    SCALE = 2 + Reciprocal.LATENCY
    """Cycles from a row's last weights to its scale: lanes, row, reciprocal."""

    def __init__(self, *, slots: int, lanes: int, max_tiles: int, max_row: int) -> None:
        for name, extent in (
            ("slots", slots),
            ("lanes", lanes),
            ("max_tiles", max_tiles),
            ("max_row", max_row),
        ):
            if extent < 1:
                raise ValueError(f"{name}: expected at least 1, got {extent!r}")
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
        job_layout = data.StructLayout(
            {
                "slot": range(self.slots),
                "half": unsigned(1),
                "row": range(self.max_row),
                "maximum": signed(SCORE_BITS),
            }
        )
        m.submodules.jobs = jobs = fifo.SyncFIFO(width=job_layout.size, depth=2 * self.slots)
        m.submodules.storage = storage = memory.Memory(
            shape=unsigned(SCORE_BITS * self.lanes), depth=2 * self.slots * self.max_tiles, init=[]
        )
        self._gather(m, jobs, storage, job_layout)
        job = data.View(job_layout, jobs.r_data)
        last_tile = self._weigh(m, jobs, storage, job)
        self._scale(m, last_tile)

        waiting = Signal(range(2 * self.slots + self.START + self.SCALE + 2))
        m.d.sync += waiting.eq(waiting + (self.valid & self.last) - self.scale_valid)
        m.d.comb += self.busy.eq(waiting != 0)
        return m

    def _address(self, slot: Value, half: Value, tile: Value) -> Value:
        """Word of a tile: every (half, slot) has ``max_tiles`` words of its own."""
        halves = [
            Array(index * self.max_tiles for index in range(start, start + self.slots))
            for start in (0, self.slots)
        ]
        return Mux(half, halves[1][slot], halves[0][slot]) + tile

    def _gather(
        self,
        m: Module,
        jobs: fifo.SyncFIFO,
        storage: memory.Memory,
        job_layout: data.StructLayout,
    ) -> None:
        """Store each chunk, follow each slot's maximum, queue each complete row."""
        halves = Array(Signal(name=f"half_{slot}") for slot in range(self.slots))
        half = Signal()
        writer = storage.write_port()
        m.d.comb += [
            half.eq(halves[self.slot]),
            writer.en.eq(self.valid),
            writer.addr.eq(self._address(self.slot, half, self.tile)),
            writer.data.eq(self.scores.as_value()),
        ]
        with m.If(self.valid & self.last):
            m.d.sync += halves[self.slot].eq(~half)

        # One cycle for the maximum over the lanes, one for the maximum over the row so far.
        lowest = -(1 << (SCORE_BITS - 1))
        peak = Signal(signed(SCORE_BITS))
        level: list[Value] = [
            Mux(self.count > lane, self.scores[lane], lowest).as_signed()
            for lane in range(self.lanes)
        ]
        valid, first, last = Signal(), Signal(), Signal()
        job = Signal(job_layout)
        m.d.sync += [
            peak.eq(highest(m, level, name="lanes")),
            valid.eq(self.valid),
            first.eq(self.first),
            last.eq(self.last),
            job.slot.eq(self.slot),
            job.half.eq(half),
            job.row.eq(self.row),
        ]
        maxima = Array(
            Signal(signed(SCORE_BITS), name=f"maximum_{slot}") for slot in range(self.slots)
        )
        so_far = Signal(signed(SCORE_BITS))
        following = Signal(signed(SCORE_BITS))
        m.d.comb += [
            so_far.eq(maxima[job.slot]),
            following.eq(Mux(first | (peak > so_far), peak, so_far)),
        ]
        with m.If(valid):
            m.d.sync += maxima[job.slot].eq(following)
        queued = Signal(job_layout)
        m.d.comb += [
            queued.eq(job),
            queued.maximum.eq(following),
            jobs.w_en.eq(valid & last),
            jobs.w_data.eq(queued.as_value()),
        ]

    def _weigh(
        self,
        m: Module,
        jobs: fifo.SyncFIFO,
        storage: memory.Memory,
        job: data.View,
    ) -> Signal:
        """Read the tiles of the row at the queue's head and look up their weights.

        Returns the flag that the weights at the output are the last of their row.
        """
        tile = Signal(range(self.max_tiles))
        final = Signal()
        reader = storage.read_port()
        m.d.comb += [
            final.eq(tile == self.tiles - 1),
            reader.addr.eq(self._address(job.slot, job.half, tile)),
            jobs.r_en.eq(final),
        ]
        with m.If(jobs.r_rdy):
            m.d.sync += tile.eq(Mux(final, 0, tile + 1))

        maximum = Signal(signed(SCORE_BITS))
        count = Signal(range(self.lanes + 1))
        m.d.sync += [
            maximum.eq(job.maximum),
            count.eq(Mux(final, self.last_count, self.lanes)),
        ]
        table_data = exponential_table()
        scores = data.View(self.scores.shape(), reader.data)
        for lane in range(self.lanes):
            difference = Signal(SCORE_BITS, name=f"difference_{lane}")
            distance = Signal(WEIGHT_BITS, name=f"distance_{lane}")
            void = (count <= lane) | difference[WEIGHT_BITS:].any()
            m.d.comb += difference.eq(maximum - scores[lane])
            m.d.sync += distance.eq(Mux(void, len(table_data) - 1, difference))
            # A table for each lane: a block memory has two ports, and Yosys' search for a way to
            # share one table among 16 does not end.
            m.submodules[f"table_{lane}"] = table = memory.Memory(
                shape=unsigned(WEIGHT_BITS), depth=len(table_data), init=table_data
            )
            port = table.read_port()
            m.d.comb += [port.addr.eq(distance), self.weights[lane].eq(port.data)]
        m.d.comb += [
            self.weights_valid.eq(delayed(m, jobs.r_rdy, 3, name="weights_valid")),
            self.weights_row.eq(delayed(m, job.row, 3, name="weights_row")),
            self.weights_tile.eq(delayed(m, tile, 3, name="weights_tile")),
        ]
        return delayed(m, final, 3, name="weights_final")

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
