"""Integer inverse square root, digit by digit: one result bit a cycle, no multiplier."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .rounding import shifted_left

__all__ = ["InverseSqrt", "cycles", "root_layout"]

_DIGITS = 16


def root_layout() -> data.StructLayout:
    """``1 / sqrt(value) ~ mantissa / 2**(23 + half)``."""
    return data.StructLayout({"mantissa": unsigned(_DIGITS), "half": signed(6)})


def cycles() -> int:
    """Cycles from the transfer of a value to its result: length, normalise, 15 digits, output."""
    return 2 + (_DIGITS - 1) + 1


class InverseSqrt(wiring.Component):
    """``1 / sqrt(value)`` as mantissa and exponent, one value at a time.

    The result is valid `cycles` cycles after the value's transfer and stays until taken; the next
    value is accepted from the cycle after that on. Golden: `models.integer.inverse_sqrt`.

    With r the digits found so far and m the value's mantissa, a digit b is set if
    ``(r + 2**b)**2 * m < 2**46``. The unit keeps ``2**46 - 1 - r*r*m``, ``r*m << (b + 1)`` and
    ``m << 2*b``, so a digit costs an addition, a comparison and shifts by one and two.

    Parameters
    ----------
    width : int
        Width of the value, 1 to 62.

    Members
    -------
    i : In, stream of unsigned values, at least 1 (for 0 the result means nothing)
    o : Out, stream of `root_layout`

    Raises
    ------
    ValueError
        ``width`` is out of range.
    """

    def __init__(self, *, width: int) -> None:
        if not 1 <= width <= 62:
            raise ValueError(f"width: expected 1 to 62, got {width!r}")
        self.width = width
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(width))),
                "o": Out(stream.Signature(root_layout())),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Powers of four: pair k of the value is its bits 2k and 2k+1; the mantissa ends with the
        # highest pair that is not zero.
        pairs = max((self.width + 1) // 2, _DIGITS // 2)
        value = Signal(2 * pairs)
        found, pair = Signal(range(pairs)), Signal(range(pairs))
        for index in range(pairs):
            with m.If(value[2 * index : 2 * index + 2].any()):
                m.d.comb += found.eq(index)
        aligned, gap = Signal(2 * pairs), Signal(range(pairs))
        m.d.comb += [
            gap.eq(pairs - 1 - pair),
            aligned.eq(shifted_left(value, Cat(Const(0, 1), gap))),
        ]
        mantissa = aligned[2 * pairs - _DIGITS :]

        rest = Signal(3 * _DIGITS - 2)
        product = Signal(3 * _DIGITS)
        square = Signal(3 * _DIGITS - 2)
        trial = Signal(3 * _DIGITS + 2)
        fits = Signal()
        m.d.comb += [trial.eq(rest - product - square), fits.eq(~trial[-1])]

        root = Signal(_DIGITS)
        digits = Signal(range(_DIGITS))
        m.d.comb += [
            self.o.payload.mantissa.eq(root),
            self.o.payload.half.eq(pair - (_DIGITS // 2 - 1)),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += value.eq(self.i.payload)
                with m.If(self.i.valid):
                    m.next = "LENGTH"
            with m.State("LENGTH"):
                m.d.sync += pair.eq(found)
                m.next = "NORMALISE"
            with m.State("NORMALISE"):
                # The first digit (b = 15) is always set: r*r*m and r*m << 15 are both m << 30.
                m.d.sync += [
                    root.eq(1),
                    digits.eq(_DIGITS - 1),
                    rest.eq(Cat(Const(-1, 2 * _DIGITS - 2), ~mantissa)),
                    product.eq(Cat(Const(0, 2 * _DIGITS - 2), mantissa)),
                    square.eq(Cat(Const(0, 2 * _DIGITS - 4), mantissa)),
                ]
                m.next = "DIGITS"
            with m.State("DIGITS"):
                m.d.sync += [
                    root.eq(Cat(fits, root)),
                    digits.eq(digits - 1),
                    rest.eq(Mux(fits, trial, rest)),
                    product.eq(Mux(fits, product + (square << 1), product) >> 1),
                    square.eq(square >> 2),
                ]
                with m.If(digits == 1):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m
