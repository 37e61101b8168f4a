"""ShiftGELU of a row in hardware, in the mode `faithful`: relative to the row's maximum.

With the maximum known, a division for each element is one for each of 256 codes, whatever the row's
length and the number of lanes.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ....models.integer.ivit.shift_gelu import OCTAVES
from ...delay import delayed
from ..tree import highest
from .code_tables import ENTRIES, CodeTables
from .division import restoring_digit
from .shift_exp import DISTANCE_BITS, ShiftExp, latency
from .shift_gelu import SIGMOID_BITS, STEP_BITS

__all__ = ["ShiftGeluRows", "cycles"]

_CODE_BITS = 8
_LOWEST = -(1 << (_CODE_BITS - 1))
_OWN_BITS = STEP_BITS + OCTAVES
_TOTAL_BITS = _OWN_BITS + 1
_RESULT_BITS = 16


def cycles(arrivals: Sequence[int], tiles: int, dividers: int) -> list[int]:
    """The cycle of each row's last results, given the cycle in which its last chunk is taken.

    ``arrivals`` are strictly increasing; rows have ``tiles`` chunks each. Rows back to back take
    ``max(tiles, 256 / dividers)`` cycles each: none arrives in fewer than ``tiles``.

    >>> cycles([47, 95, 143], tiles=48, dividers=4)
    [205, 269, 333]
    """
    completions = []
    free = 0
    for arrival in arrivals:
        begin = max(arrival + ShiftGeluRows.START, free)
        free = begin + ENTRIES // dividers
        completions.append(
            begin + ENTRIES // dividers + ShiftGeluRows.FILL + tiles + ShiftGeluRows.LATENCY
        )
    return completions


class ShiftGeluRows(wiring.Component):
    """ShiftGELU in the mode ``faithful``: rows of 8-bit codes, relative to each row's maximum.

    A row comes in as ``tiles`` chunks in their order, at most one a cycle, and leaves as as many,
    one a cycle. Once its maximum is known, a table is filled with ``code * sigmoid`` of all 256
    codes, ``dividers`` of them a cycle, each through a pipeline with a stage for every digit of the
    quotient; then the row's chunks are looked up. There are two tables, so that the next row's
    fills meanwhile. A chunk waits only while two complete rows wait for their tables. Behind that
    nothing can stall, and the results have no flow control.

    The cycle contract, t being the cycle in which a row's last chunk is taken:

    * alone, its table begins in cycle b = t + ``START``; behind another row,
      256 / ``dividers`` cycles after that one's b, if that is later;
    * its results leave in ``tiles`` cycles, the last in
      b + 256 / ``dividers`` + ``FILL`` + ``tiles`` + ``LATENCY``;
    * ``ready`` is down from t + 1 on if the row before has not begun its table by then, until the
      cycle after it has;
    * ``busy`` rises in cycle t + 1 and falls in the cycle after the last results.

    Golden: `models.integer.ivit.shift_gelu.shift_gelu`, in its mode ``faithful``.

    Parameters
    ----------
    lanes : int
        Codes per chunk, at least 1.
    max_tiles : int
        Most chunks per row, at least 1.
    dividers : int
        Entries of a table filled in a cycle, 1, 2 or 4.

    Members
    -------
    tiles, last_count, step : In
        Chunks per row, valid codes of a row's last chunk, and ``a`` of the codes (1 to 127);
        constant while rows are inside.
    i : In, stream of chunks of signed 8-bit codes
    valid, last, results : Out
        A chunk of signed 16-bit results, whether it is its row's last; 0 in lanes that are not
        valid.
    busy : Out
        A row is complete and its last results have not left.

    Raises
    ------
    ValueError
        A parameter is out of range.
    """

    START = 2
    """Cycles from a row's last chunk to the start of its table: maximum of the lanes, of the row.
    """
    FILL = 1 + latency(OCTAVES) + 1 + (_TOTAL_BITS - 1) + 3
    """Cycles from a code to its entry: distance, exponential, sum, digits (the first one is zero),
    two stages of the product, sigmoid times code.
    """
    LATENCY = CodeTables.LATENCY

    def __init__(self, *, lanes: int, max_tiles: int, dividers: int = 1) -> None:
        for name, extent in (("lanes", lanes), ("max_tiles", max_tiles)):
            if extent < 1:
                raise ValueError(f"{name}: expected at least 1, got {extent!r}")
        if dividers not in (1, 2, 4):
            raise ValueError(f"dividers: expected 1, 2 or 4, got {dividers!r}")
        self.lanes, self.max_tiles, self.dividers = lanes, max_tiles, dividers
        super().__init__(
            {
                "tiles": In(range(max_tiles + 1)),
                "last_count": In(range(lanes + 1)),
                "step": In(unsigned(STEP_BITS)),
                "i": In(stream.Signature(data.ArrayLayout(signed(_CODE_BITS), lanes))),
                "valid": Out(1),
                "last": Out(1),
                "results": Out(data.ArrayLayout(signed(_RESULT_BITS), lanes)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        period = ENTRIES // self.dividers
        m.submodules.entries = entries = CodeTables(
            lanes=self.lanes, tables=2, word=self.dividers, bits=_RESULT_BITS, paired=False
        )
        # Most are there where rows are shorter than a table: two wait, the table of one is filled,
        # and of one that is read as many are left as the pipeline is long, and one. Longer rows do
        # not wait.
        m.submodules.chunks = chunks = fifo.SyncFIFOBuffered(
            width=self.i.payload.shape().size, depth=3 * self.max_tiles + self.FILL + 1
        )
        taken, begin, maximum = self._gather(m, chunks)
        filled = self._fill(m, entries, begin, maximum)

        tile = Signal(range(self.max_tiles))
        reading, final = Signal(), Signal()
        m.d.comb += [
            reading.eq(filled | (tile != 0)),
            final.eq(tile == self.tiles - 1),
            chunks.r_en.eq(reading),
            entries.codes.as_value().eq(chunks.r_data),
        ]
        with m.If(reading):
            m.d.sync += tile.eq(Mux(final, 0, tile + 1))
        with m.If(reading & final):
            m.d.sync += entries.table.eq(~entries.table)
        m.d.comb += [
            self.valid.eq(delayed(m, reading, self.LATENCY, name="reading")),
            self.last.eq(delayed(m, final, self.LATENCY, name="final")),
        ]
        for lane in range(self.lanes):
            void = self.last & (self.last_count <= lane)
            m.d.comb += self.results[lane].eq(Mux(void, 0, entries.out[lane]))

        # Two rows wait, one is read, the others lie the filling of a table apart.
        waiting = Signal(range(5 + (period + self.FILL) // period))
        m.d.sync += waiting.eq(waiting + taken - (self.valid & self.last))
        m.d.comb += self.busy.eq(waiting != 0)
        return m

    def _gather(self, m: Module, chunks: fifo.SyncFIFOBuffered) -> tuple[Signal, Signal, Signal]:
        """Keep chunks, and the maxima of complete rows until their tables begin.

        Returns the flags of a row's last chunk coming in and of a table's beginning, and the
        maximum for the table that begins.
        """
        m.submodules.maxima = maxima = fifo.SyncFIFO(width=_CODE_BITS, depth=2)
        tile = Signal(range(self.max_tiles))
        given, taken, end, begin = Signal(), Signal(), Signal(), Signal()
        held = Signal(range(3))
        count = Signal(range(self.lanes + 1))
        m.d.comb += [
            self.i.ready.eq(held != 2),
            given.eq(self.i.valid & self.i.ready),
            end.eq(tile == self.tiles - 1),
            taken.eq(given & end),
            count.eq(Mux(end, self.last_count, self.lanes)),
            chunks.w_en.eq(given),
            chunks.w_data.eq(self.i.payload.as_value()),
        ]
        m.d.sync += held.eq(held + taken - begin)
        with m.If(given):
            m.d.sync += tile.eq(Mux(end, 0, tile + 1))

        # One cycle for the maximum over the lanes, one for the maximum over the row so far.
        level: list[Value] = [
            Mux(count > lane, self.i.payload[lane], _LOWEST).as_signed()
            for lane in range(self.lanes)
        ]
        peak, first = Signal(signed(_CODE_BITS)), Signal()
        so_far, following = Signal(signed(_CODE_BITS)), Signal(signed(_CODE_BITS))
        m.d.sync += [peak.eq(highest(m, level, name="lanes")), first.eq(tile == 0)]
        m.d.comb += [
            following.eq(Mux(first | (peak > so_far), peak, so_far)),
            maxima.w_data.eq(following),
            maxima.w_en.eq(delayed(m, taken, 1, name="taken")),
        ]
        with m.If(delayed(m, given, 1, name="given")):
            m.d.sync += so_far.eq(following)

        period = ENTRIES // self.dividers
        pace = Signal(range(period))
        m.d.comb += [begin.eq(maxima.r_rdy & (pace == 0)), maxima.r_en.eq(begin)]
        m.d.sync += pace.eq(Mux(begin, period - 1, Mux(pace == 0, 0, pace - 1)))
        maximum = Signal(signed(_CODE_BITS))
        with m.If(begin):
            m.d.sync += maximum.eq(maxima.r_data)
        return taken, begin, maximum

    def _fill(self, m: Module, entries: CodeTables, begin: Signal, maximum: Signal) -> Signal:
        """Write the table of the row with ``maximum``, from the cycle after ``begin`` on.

        Returns the flag of the cycle after its last word.
        """
        words = ENTRIES // self.dividers
        word, filling = Signal(range(words)), Signal()
        m.d.sync += filling.eq(begin | (filling & (word != words - 1)))
        with m.If(filling):
            m.d.sync += word.eq(word + 1)

        m.submodules.other = other = ShiftExp(octaves=OCTAVES, step_bits=STEP_BITS, above=True)
        largest = Signal(signed(_CODE_BITS))
        m.d.sync += largest.eq(maximum)
        m.d.comb += [other.distance.eq(largest), other.step.eq(self.step)]
        # The words are counted anew where their entries arrive.
        arriving = delayed(m, filling, self.FILL - 1, name="filling")
        writing = delayed(m, arriving, 1, name="arriving")
        next_word, written = Signal(range(words)), Signal(range(words))
        half, complete = Signal(), Signal()
        m.d.sync += [
            next_word.eq(next_word + arriving),
            written.eq(next_word),
            complete.eq(writing & (written == words - 1)),
        ]
        with m.If(writing & (written == words - 1)):
            m.d.sync += half.eq(~half)
        values = []
        for index in range(self.dividers):
            raw = Cat(Const(index, (self.dividers - 1).bit_length()), word)
            distance = Signal(DISTANCE_BITS, name=f"distance_{index}")
            m.d.sync += distance.eq(maximum - raw)
            m.submodules[f"own_{index}"] = own = ShiftExp(octaves=OCTAVES, step_bits=STEP_BITS)
            m.d.comb += [own.distance.eq(distance), own.step.eq(self.step)]
            sigmoid = self._sigmoid(m, own.result, other.result, name=f"{index}")
            code = Cat(Const(index, (self.dividers - 1).bit_length()), next_word).as_signed()
            value = Signal(signed(_RESULT_BITS), name=f"value_{index}")
            m.d.sync += value.eq(code * sigmoid)
            values.append(value)
        m.d.comb += [
            entries.write_enable.eq(writing),
            entries.write_address.eq(Cat(written, half)),
            entries.write_data.eq(Cat(values)),
        ]
        return complete

    @staticmethod
    def _sigmoid(m: Module, own: Value, other: Value, *, name: str) -> Signal:
        """``own * ((2**31 - 1) // (own + other)) >> 24``, the sum saturated; a register a stage."""
        total = Signal(_TOTAL_BITS, name=f"total_{name}")
        wide = own + other
        top = (1 << _TOTAL_BITS) - 1
        m.d.sync += total.eq(Mux(wide[_TOTAL_BITS:].any(), top, wide))

        # The numerator is all ones, and no sum is below 2: its first digit is zero. A rest has no
        # more bits than the digits so far.
        digits = _TOTAL_BITS - 1
        rest: Value = Const(1, 1)
        quotient: Value = Const(0, 0)
        for index in range(digits):
            shifted = Cat(Const(1, 1), rest)
            following, fits = restoring_digit(m, shifted, total, name=f"digit_{name}_{index}")
            stage = {
                "rest": following[: min(index + 2, _TOTAL_BITS)],
                "quotient": Cat(fits, quotient),
                "total": total,
            }
            held = {
                part: Signal(len(value), name=f"{part}_{name}_{index}")
                for part, value in stage.items()
            }
            m.d.sync += [held[part].eq(value) for part, value in stage.items()]
            rest, quotient, total = held["rest"], held["quotient"], held["total"]

        kept = Signal(_OWN_BITS, name=f"own_{name}")
        m.d.comb += kept.eq(own)
        kept = delayed(m, kept, 1 + digits, name=f"own_{name}")
        half = digits // 2
        low = Signal(_OWN_BITS + half, name=f"low_{name}")
        high = Signal(_TOTAL_BITS - half, name=f"high_{name}")
        product = Signal(_TOTAL_BITS, name=f"product_{name}")
        sigmoid = Signal(SIGMOID_BITS, name=f"sigmoid_{name}")
        m.d.comb += product.eq((high << half) + low)
        m.d.sync += [
            low.eq(kept * quotient[:half]),
            high.eq(kept * quotient[half:]),
            sigmoid.eq(product[_TOTAL_BITS - SIGMOID_BITS :]),
        ]
        return sigmoid
