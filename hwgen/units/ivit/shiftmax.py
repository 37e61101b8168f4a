"""Shiftmax: a row's maximum, its powers of two, one division for the row, a product for each."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ....models.integer.ivit.shiftmax import OCTAVES
from ...delay import delayed
from ..tree import highest, summed
from .shift_exp import DISTANCE_BITS, STEP_BITS, ShiftExp, check_octaves, latency

__all__ = ["Shiftmax", "cycles", "division"]

_SCORE_BITS = 8
_TOTAL_BITS = 31
_RESULT_BITS = 15
_SUMS = 2
"""Cycles from a chunk of exponentials to the row's sum: lanes, row."""


def division(octaves: int = OCTAVES) -> int:
    """Cycles of a row in the divider: a load, and one for each bit of the quotient. The row's
    maximum alone adds ``2**octaves`` or more to its sum, so the quotient has no more bits.
    """
    return 1 + _TOTAL_BITS - octaves


def cycles(arrivals: Sequence[int], tiles: int, octaves: int = OCTAVES) -> list[int]:
    """The cycle of each row's last results, given the cycle in which its last chunk is taken.

    ``arrivals`` are strictly increasing; rows have ``tiles`` chunks each. Rows back to back take
    ``max(tiles, division())`` cycles each.

    >>> cycles([0, 13, 26], tiles=13)
    [56, 73, 90]
    """
    completions = []
    free = 0
    for arrival in arrivals:
        begin = max(arrival + Shiftmax.START, free)
        free = begin + max(tiles, division(octaves))
        completions.append(begin + 2 * (tiles - 1) + Shiftmax.weighing(octaves))
    return completions


class Shiftmax(wiring.Component):
    """Probabilities of rows of 8-bit scores, in units of 1/2**15 or 1/2**7.

    A row comes in as ``tiles`` chunks in their order, at most one a cycle, and leaves as as many,
    one a cycle. A chunk waits only while two complete rows wait to be read, whose scores are kept.
    Behind that nothing can stall, and the results have no flow control.

    The cycle contract, t being the cycle in which a row's last chunk is taken:

    * alone, the row is read in cycles b = t + ``START`` to b + ``tiles`` - 1; behind another row,
      ``max(tiles, division(octaves))`` cycles after that one's b, if that is later;
    * its results leave in ``tiles`` cycles, the last in b + 2 * (``tiles`` - 1) + ``weighing()``;
    * ``ready`` is down from t + 1 on if the row before has not begun to be read by then, until the
      cycle after it has;
    * ``busy`` rises in cycle t + 1 and falls in the cycle after the last results.

    Golden: `models.integer.ivit.shiftmax.shiftmax`.

    Parameters
    ----------
    lanes : int
        Scores per chunk, at least 1.
    max_tiles : int
        Most chunks per row, at least 1.
    octaves : int
        Where the exponentials are cut, 1 to 22.

    Members
    -------
    tiles, last_count, step, narrow : In
        Chunks per row, valid scores of a row's last chunk, ``a`` of the scores (1 to 511), and
        whether results have 8 bits in the place of 16; constant while rows are inside.
    i : In, stream of chunks of signed 8-bit scores
    valid, last, results : Out
        A chunk of unsigned results, whether it is its row's last; 0 in lanes that are not valid.
    busy : Out
        A row is complete and its last results have not left.

    Raises
    ------
    ValueError
        A parameter is out of range.
    """

    START = 2
    """Cycles from a row's last chunk to its first read: maximum of the lanes, of the row."""
    TAIL = 3
    """Cycles from the read of a stored exponential to its result: buffer, product, shift."""

    @staticmethod
    def weighing(octaves: int = OCTAVES) -> int:
        """Cycles from a row's last read to its first results: buffer, distance, exponential, sums,
        division, tail.
        """
        return 2 + latency(octaves) + _SUMS + division(octaves) + Shiftmax.TAIL

    def __init__(self, *, lanes: int, max_tiles: int, octaves: int = OCTAVES) -> None:
        for name, extent in (("lanes", lanes), ("max_tiles", max_tiles)):
            if extent < 1:
                raise ValueError(f"{name}: expected at least 1, got {extent!r}")
        check_octaves(octaves)
        self.lanes, self.max_tiles, self.octaves = lanes, max_tiles, octaves
        super().__init__(
            {
                "tiles": In(range(max_tiles + 1)),
                "last_count": In(range(lanes + 1)),
                "step": In(unsigned(STEP_BITS)),
                "narrow": In(1),
                "i": In(stream.Signature(data.ArrayLayout(signed(_SCORE_BITS), lanes))),
                "valid": Out(1),
                "last": Out(1),
                "results": Out(data.ArrayLayout(unsigned(_RESULT_BITS), lanes)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        reading, final, scores, maximum, taken = self._gather(m)
        exponentials = self._weigh(m, scores, maximum, final)
        late = 2 + latency(self.octaves)
        weighed = delayed(m, reading, late, name="weighed")
        weighed_final = delayed(m, final, late, name="weighed_final")
        total, complete = self._sum(m, exponentials, weighed, weighed_final)
        factor, done = self._divide(m, total, complete)
        self._multiply(m, exponentials, weighed, factor, done)

        # Two rows wait, two are partly read or multiplied, the others lie a division apart.
        rows = 6 + Shiftmax.weighing(self.octaves) // division(self.octaves)
        waiting = Signal(range(rows))
        m.d.sync += waiting.eq(waiting + taken - (self.valid & self.last))
        m.d.comb += self.busy.eq(waiting != 0)
        return m

    def _gather(self, m: Module) -> tuple[Signal, Signal, data.View, Signal, Signal]:
        """Store chunks and each row's maximum, read complete rows at the divider's pace.

        Returns the flags of a read and of a row's last one, a cycle later the scores and their
        row's maximum, and the flag of a row's last chunk coming in.
        """
        m.submodules.scores = storage = memory.Memory(
            shape=self.i.payload.shape(), depth=2 * self.max_tiles, init=[]
        )
        writer, reader = storage.write_port(), storage.read_port()
        write_tile, read_tile = Signal(range(self.max_tiles)), Signal(range(self.max_tiles))
        write_half, read_half = Signal(), Signal()
        given, taken = Signal(), Signal()
        begin, reading, final = Signal(), Signal(), Signal()
        held, readable = Signal(range(3)), Signal(range(3))
        count = Signal(range(self.lanes + 1))
        end = write_tile == self.tiles - 1
        m.d.comb += [
            self.i.ready.eq(held != 2),
            given.eq(self.i.valid & self.i.ready),
            taken.eq(given & end),
            count.eq(Mux(end, self.last_count, self.lanes)),
            writer.en.eq(given),
            writer.addr.eq(Mux(write_half, self.max_tiles, 0) + write_tile),
            writer.data.eq(self.i.payload),
        ]
        m.d.sync += held.eq(held + taken - begin)
        with m.If(given):
            m.d.sync += write_tile.eq(Mux(end, 0, write_tile + 1))
        with m.If(taken):
            m.d.sync += write_half.eq(~write_half)

        # One cycle for the maximum over the lanes, one for the maximum over the row so far.
        lowest = -(1 << (_SCORE_BITS - 1))
        level: list[Value] = [
            Mux(count > lane, self.i.payload[lane], lowest).as_signed()
            for lane in range(self.lanes)
        ]
        peak, first = Signal(signed(_SCORE_BITS)), Signal()
        m.d.sync += [peak.eq(highest(m, level, name="lanes")), first.eq(write_tile == 0)]
        maxima = Array(Signal(signed(_SCORE_BITS), name=f"maximum_{half}") for half in range(2))
        half = delayed(m, write_half, 1, name="write_half")
        with m.If(delayed(m, given, 1, name="given") & (first | (peak > maxima[half]))):
            m.d.sync += maxima[half].eq(peak)
        m.d.sync += readable.eq(readable + delayed(m, taken, 1, name="taken") - begin)

        pace = Signal(range(division(self.octaves)))
        m.d.comb += [
            begin.eq((read_tile == 0) & (readable != 0) & (pace == 0)),
            reading.eq(begin | (read_tile != 0)),
            final.eq(read_tile == self.tiles - 1),
            reader.addr.eq(Mux(read_half, self.max_tiles, 0) + read_tile),
        ]
        m.d.sync += pace.eq(Mux(begin, division(self.octaves) - 1, Mux(pace == 0, 0, pace - 1)))
        with m.If(reading):
            m.d.sync += read_tile.eq(Mux(final, 0, read_tile + 1))
        with m.If(reading & final):
            m.d.sync += read_half.eq(~read_half)
        # A row that is being read leaves its half to a new row, which follows it at its heels.
        maximum = Signal(signed(_SCORE_BITS))
        with m.If(begin):
            m.d.sync += maximum.eq(maxima[read_half])
        return reading, final, reader.data, maximum, taken

    def _weigh(self, m: Module, scores: data.View, maximum: Signal, final: Signal) -> list[Signal]:
        """The exponential of each lane, 0 in void lanes."""
        void_after = delayed(m, final, 2 + latency(self.octaves), name="last_chunk")
        exponentials = []
        for lane in range(self.lanes):
            distance = Signal(DISTANCE_BITS, name=f"distance_{lane}")
            m.d.sync += distance.eq(maximum - scores[lane])
            m.submodules[f"exp_{lane}"] = exp = ShiftExp(octaves=self.octaves)
            m.d.comb += [exp.distance.eq(distance), exp.step.eq(self.step)]
            exponential = Signal.like(exp.result, name=f"exponential_{lane}")
            m.d.comb += exponential.eq(Mux(void_after & (self.last_count <= lane), 0, exp.result))
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

    def _divide(self, m: Module, total: Signal, complete: Signal) -> tuple[Signal, Signal]:
        """``(2**31 - 1) // total``, held until the next; and the flag of the cycle before it is."""
        places = _TOTAL_BITS - self.octaves
        divisor, rest = Signal(_TOTAL_BITS), Signal(_TOTAL_BITS)
        quotient, factor = Signal(places), Signal(places)
        left, done = Signal(range(places + 1)), Signal()
        shifted = Cat(Const(1, 1), rest)  # the numerator is all ones
        trial = Signal(_TOTAL_BITS + 2)
        fits = Signal()
        m.d.comb += [trial.eq(shifted - divisor), fits.eq(~trial[-1])]
        m.d.sync += done.eq(left == 1)
        with m.If(left != 0):
            m.d.sync += [
                rest.eq(Mux(fits, trial, shifted)),
                quotient.eq(Cat(fits, quotient)),
                left.eq(left - 1),
            ]
        with m.If(complete):
            # The first digits are zero: a sum is never below 2**octaves.
            m.d.sync += [rest.eq((1 << self.octaves) - 1), divisor.eq(total), left.eq(places)]
        with m.If(done):
            m.d.sync += factor.eq(quotient)
        return factor, done

    def _multiply(
        self,
        m: Module,
        exponentials: list[Signal],
        weighed: Signal,
        factor: Signal,
        done: Signal,
    ) -> None:
        """Keep the exponentials of rows in their order; multiply a row's as soon as it can be."""
        # From a word's storing to its reading pass the sums, its row's other chunks, the division.
        words = _SUMS + self.max_tiles + division(self.octaves)
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

        for lane in range(self.lanes):
            product = Signal(_TOTAL_BITS, name=f"product_{lane}")
            m.d.sync += [
                product.eq(reader.data[lane] * factor),
                self.results[lane].eq(Mux(self.narrow, product >> 24, product >> 16)),
            ]
        m.d.comb += [
            self.valid.eq(delayed(m, reading, Shiftmax.TAIL, name="reading")),
            self.last.eq(delayed(m, final, Shiftmax.TAIL, name="final")),
        ]
