"""ShiftGELU of a layer in hardware, in the mode `safe`: tables that the unit fills itself.

A division for each element, as the scheme states it, is a division for each code, done one digit a
cycle before the layer begins. The mode `faithful` is in `shift_gelu_rows`.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ....models.integer.ivit.shift_gelu import LARGEST_STEP, OCTAVES
from ...delay import delayed
from .code_tables import CodeTables
from .division import restoring_digit
from .shift_exp import DISTANCE_BITS, ShiftExp, latency

__all__ = ["SIGMOID_BITS", "STEP_BITS", "ShiftGelu", "cycles"]

_CODE_BITS = 8
_LOWEST = -(1 << (_CODE_BITS - 1))
STEP_BITS = LARGEST_STEP.bit_length()
_OWN_BITS = STEP_BITS + OCTAVES
_TOTAL_BITS = _OWN_BITS + 1
SIGMOID_BITS = 7
"""No sigmoid exceeds 127: of an exponential and the quotient by a sum that holds it."""
_RESULT_BITS = 16


def cycles(values: int) -> int:
    """Cycles from the first of ``values`` chunks of codes, one a cycle, to `ShiftGelu`'s last."""
    return ShiftGelu.LATENCY + values - 1


class ShiftGelu(wiring.Component):
    """ShiftGELU in the mode ``safe``, ``lanes`` codes a cycle, from tables that it fills itself.

    ``load`` takes a layer's step; `filling` cycles later its table holds ``code * sigmoid`` of
    every code. From then on the results of the codes and the ``table`` in cycle t stand at the
    output in cycle t + ``LATENCY``, without flow control.

    Codes of the same magnitude share their sum, ``step * 2**23`` and the exponential of minus the
    magnitude, so 129 divisions fill a table. Digit by digit, one a cycle: a quotient of 25 bits of
    the 48, and beside it its products with both exponentials. The first 23 digits are zero.

    Golden: `models.integer.ivit.shift_gelu.shift_gelu`, in its mode ``safe``.

    Parameters
    ----------
    lanes : int
        Codes a cycle, at least 1. Two lanes share a block memory.
    tables : int
        Layers whose tables are held, at least 1.

    Members
    -------
    load, step : In
        Begins to fill the table ``table`` for ``step`` (``a``, 1 to 127); ignored unless ``ready``.
    ready : Out
        Nothing is being filled. It falls in the cycle after ``load``, for `filling` cycles; codes
        of these cycles have no result.
    codes : In, ``lanes`` signed 8-bit codes
    table : In, the layer, less than ``tables``
    results : Out, ``lanes`` signed 16-bit results

    Raises
    ------
    ValueError
        A parameter is less than 1.
    """

    LATENCY = CodeTables.LATENCY
    _DIGITS = 48 - OCTAVES
    _WRITE = 3
    """Cycles from a pair of sigmoids to the second one's entry: kept, two products."""

    def __init__(self, *, lanes: int, tables: int = 1) -> None:
        for name, extent in (("lanes", lanes), ("tables", tables)):
            if extent < 1:
                raise ValueError(f"{name}: expected at least 1, got {extent!r}")
        self.lanes, self.tables = lanes, tables
        super().__init__(
            {
                "load": In(1),
                "step": In(unsigned(STEP_BITS)),
                "ready": Out(1),
                "codes": In(data.ArrayLayout(signed(_CODE_BITS), lanes)),
                "table": In(range(tables)),
                "results": Out(data.ArrayLayout(signed(_RESULT_BITS), lanes)),
            }
        )

    @staticmethod
    def filling() -> int:
        """Cycles that ``ready`` is down after a load: the first exponential, a load and the digits
        for each magnitude, the last entries.
        """
        return 1 + latency(OCTAVES) + (1 - _LOWEST) * (1 + ShiftGelu._DIGITS) + ShiftGelu._WRITE

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.entries = entries = CodeTables(
            lanes=self.lanes, tables=self.tables, word=1, bits=_RESULT_BITS, paired=True
        )
        m.submodules.exp = exp = ShiftExp(octaves=OCTAVES, step_bits=STEP_BITS)
        step, table = Signal.like(self.step), Signal.like(self.table)
        upcoming, magnitude = Signal(DISTANCE_BITS), Signal(DISTANCE_BITS)
        left = Signal(range(max(self._DIGITS, latency(OCTAVES)) + 1))
        running, first = Signal(), Signal()
        divide, found, last = Signal(), Signal(), Signal()
        m.d.comb += [
            exp.distance.eq(upcoming),
            exp.step.eq(step),
            divide.eq(running & (left == 0)),
            found.eq(divide & ~first),
            last.eq(found & (magnitude == -_LOWEST)),
            entries.codes.eq(self.codes),
            entries.table.eq(self.table),
            self.results.eq(entries.out),
        ]

        divisor, rest = Signal(_TOTAL_BITS), Signal(_TOTAL_BITS)
        # Products with the exponentials of minus the magnitude, and of 0 without its 23 zeros.
        own, below, above = Signal(_OWN_BITS), Signal(48), Signal(self._DIGITS)
        rest_next, fits = restoring_digit(m, Cat(Const(1, 1), rest), divisor, name="digit")
        m.d.sync += [
            rest.eq(rest_next),
            below.eq((below << 1) + Mux(fits, own, 0)),
            above.eq((above << 1) + Mux(fits, step, 0)),
            left.eq(left - 1),
        ]
        with m.If(divide):
            m.d.sync += [
                divisor.eq((step << OCTAVES) + exp.result),
                rest.eq((1 << OCTAVES) - 1),
                own.eq(exp.result),
                below.eq(0),
                above.eq(0),
                first.eq(0),
                magnitude.eq(upcoming),
                upcoming.eq(upcoming + 1),
                left.eq(self._DIGITS),
            ]
        with m.If(last):
            m.d.sync += running.eq(0)

        # The entry of the positive code first: that of 128, which is no code, is overwritten.
        sigmoids, size = Signal(2 * SIGMOID_BITS), Signal(DISTANCE_BITS)
        product = Signal(DISTANCE_BITS + SIGMOID_BITS)
        m.d.sync += [
            sigmoids.eq(Mux(found, Cat(above[18:], below[41:]), sigmoids >> SIGMOID_BITS)),
            product.eq(sigmoids[:SIGMOID_BITS] * size),
        ]
        with m.If(found):
            m.d.sync += size.eq(magnitude)
        positive = delayed(m, found, 2, name="positive")
        negative = delayed(m, positive, 1, name="negative")
        m.d.comb += [
            entries.write_enable.eq(positive | negative),
            entries.write_address.eq(Cat(Mux(negative, -size, size)[:_CODE_BITS], table)),
            entries.write_data.eq(Mux(negative, -product, product)),
        ]
        ending = delayed(m, last, self._WRITE, name="ending")
        busy = Signal()
        m.d.comb += self.ready.eq(~busy)
        with m.If(ending):
            m.d.sync += busy.eq(0)
        with m.If(self.load & self.ready):
            m.d.sync += [
                busy.eq(1),
                running.eq(1),
                first.eq(1),
                step.eq(self.step),
                table.eq(self.table),
                upcoming.eq(0),
                left.eq(latency(OCTAVES)),
            ]
        return m
