"""Rows of scores: chunks of several rows arrive interleaved, complete rows leave one by one."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, fifo, memory, wiring
from amaranth.lib.wiring import In, Out

from .tree import highest

__all__ = ["ScoreRows", "check_extents", "gathered_rows"]


def check_extents(**extents: int) -> None:
    """Raise ValueError unless each of them is at least 1."""
    for name, extent in extents.items():
        if extent < 1:
            raise ValueError(f"{name}: expected at least 1, got {extent!r}")


def gathered_rows(m: Module, unit: wiring.Component, score_bits: int) -> ScoreRows:
    """A submodule ``rows`` of ``m`` that takes the chunks at the ports of ``unit``, a softmax."""
    m.submodules.rows = rows = ScoreRows(
        slots=unit.slots,
        lanes=unit.lanes,
        max_tiles=unit.max_tiles,
        max_row=unit.max_row,
        score_bits=score_bits,
    )
    for name in (
        "valid", "slot", "tile", "count", "first", "last", "row", "scores", "tiles", "last_count",
    ):  # fmt: skip
        m.d.comb += getattr(rows, name).eq(getattr(unit, name))
    return rows


class ScoreRows(wiring.Component):
    """Gathers rows of signed scores with their maxima and reads the complete ones.

    The chunks of a row may come in any order of tiles, those of different slots in any
    interleaving, at most one chunk a cycle; nothing can stall. Scores are kept in two halves per
    slot: once a row is complete, its slot may begin the next in the other half in the very next
    cycle, but not the one after that before the first row has been read. Complete rows queue and
    are read in order of completion, tiles 0 to ``tiles`` - 1 at one a cycle, back to back: the
    first `START` cycles after the row's last chunk, if no other row is being read.

    Parameters
    ----------
    slots, lanes, max_tiles, max_row : as of `Softmax`.
    score_bits : width of a score.

    Members
    -------
    valid, slot, tile, count, first, last, row, scores : In, a chunk, as of `Softmax`
    tiles, last_count : In, as of `Softmax`
    reading, read_tile, final, read_row : Out
        A tile is read in this cycle: its number, whether it is the row's last, the row's index.
    read_scores, read_count, maximum : Out
        One cycle later: the tile, its valid lanes, and the row's maximum.
    """

    START = 2
    """Cycles from a row's last chunk to its first read: maximum, queue."""

    def __init__(
        self, *, slots: int, lanes: int, max_tiles: int, max_row: int, score_bits: int
    ) -> None:
        check_extents(slots=slots, lanes=lanes, max_tiles=max_tiles, max_row=max_row)
        self.slots, self.lanes, self.max_tiles, self.max_row = slots, lanes, max_tiles, max_row
        self.score_bits = score_bits
        scores = data.ArrayLayout(signed(score_bits), lanes)
        super().__init__(
            {
                "valid": In(1),
                "slot": In(range(slots)),
                "tile": In(range(max_tiles)),
                "count": In(range(lanes + 1)),
                "first": In(1),
                "last": In(1),
                "row": In(range(max_row)),
                "scores": In(scores),
                "tiles": In(range(max_tiles + 1)),
                "last_count": In(range(lanes + 1)),
                "reading": Out(1),
                "read_tile": Out(range(max_tiles)),
                "final": Out(1),
                "read_row": Out(range(max_row)),
                "read_scores": Out(scores),
                "read_count": Out(range(lanes + 1)),
                "maximum": Out(signed(score_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job_layout = data.StructLayout(
            {
                "slot": range(self.slots),
                "half": unsigned(1),
                "row": range(self.max_row),
                "maximum": signed(self.score_bits),
            }
        )
        m.submodules.jobs = jobs = fifo.SyncFIFO(width=job_layout.size, depth=2 * self.slots)
        m.submodules.storage = storage = memory.Memory(
            shape=unsigned(self.score_bits * self.lanes),
            depth=2 * self.slots * self.max_tiles,
            init=[],
        )
        self._gather(m, jobs, storage, job_layout)

        # The row at the queue's head.
        job = data.View(job_layout, jobs.r_data)
        tile = self.read_tile
        reader = storage.read_port()
        m.d.comb += [
            self.reading.eq(jobs.r_rdy),
            self.final.eq(tile == self.tiles - 1),
            self.read_row.eq(job.row),
            reader.addr.eq(self._address(job.slot, job.half, tile)),
            jobs.r_en.eq(self.final),
            self.read_scores.as_value().eq(reader.data),
        ]
        with m.If(jobs.r_rdy):
            m.d.sync += tile.eq(Mux(self.final, 0, tile + 1))
        m.d.sync += [
            self.maximum.eq(job.maximum),
            self.read_count.eq(Mux(self.final, self.last_count, self.lanes)),
        ]
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
        shape = signed(self.score_bits)
        lowest = -(1 << (self.score_bits - 1))
        peak = Signal(shape)
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
        maxima = Array(Signal(shape, name=f"maximum_{slot}") for slot in range(self.slots))
        so_far, following = Signal(shape), Signal(shape)
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
