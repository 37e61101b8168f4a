"""Integer reciprocal as a 16-bit mantissa and an exponent; one value a cycle, no multiplier."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...models.integer.reciprocal import MANTISSA_BITS
from .rounding import shifted_left

__all__ = ["Reciprocal", "cycles"]


def cycles(values: int) -> int:
    """Cycles from the first of ``values`` inputs, one a cycle, to the last result."""
    return Reciprocal.LATENCY + values - 1


class Reciprocal(wiring.Component):
    """``1 / value ~ mantissa / 2**(15 + length)`` by restoring division, a fixed pipeline.

    No flow control: the result of the input in cycle t stands at the output in cycle
    t + ``LATENCY``. Stages: length, normalise (the first quotient bit is always 1), then one
    quotient bit each. Golden: `models.integer.reciprocal.reciprocal`.

    Parameters
    ----------
    width : int
        Width of the value, 1 to 62.

    Members
    -------
    value : In, unsigned; 0 has no reciprocal, its result means nothing
    mantissa : Out, unsigned 16, top bit set
    length : Out, bit length of the value

    Raises
    ------
    ValueError
        ``width`` is out of range.
    """

    LATENCY = 2 + MANTISSA_BITS - 1

    def __init__(self, *, width: int) -> None:
        if not 1 <= width <= 62:
            raise ValueError(f"width: expected 1 to 62, got {width!r}")
        self.width = width
        super().__init__(
            {
                "value": In(unsigned(width)),
                "mantissa": Out(unsigned(MANTISSA_BITS)),
                "length": Out(range(width + 1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value, length = Signal(self.width), Signal.like(self.length)
        found = Signal.like(self.length)
        for bit in range(self.width):
            with m.If(self.value[bit]):
                m.d.comb += found.eq(bit + 1)
        m.d.sync += [value.eq(self.value), length.eq(found)]

        # The value with its top bit moved to the end of a field of max(width, 16) bits.
        field = max(self.width, MANTISSA_BITS)
        aligned, gap = Signal(field), Signal(range(field + 1))
        m.d.comb += [
            gap.eq(field - length),
            aligned.eq(shifted_left(Cat(value, Const(0, field - self.width)), gap)),
        ]
        top = aligned[field - MANTISSA_BITS :]
        divisor, rest = Signal(MANTISSA_BITS), Signal(MANTISSA_BITS)
        quotient, tag = Signal(MANTISSA_BITS, init=1), Signal.like(length)
        m.d.sync += [
            divisor.eq(top),
            rest.eq(~top),  # 2**16 - 1 - top: the numerator's upper half less the first product
            quotient.eq(1),
            tag.eq(length),
        ]

        for stage in range(MANTISSA_BITS - 1):
            trial = Signal(MANTISSA_BITS + 2, name=f"trial{stage}")
            shifted = Cat(1, rest)  # the numerator is all ones
            m.d.comb += trial.eq(shifted - divisor)
            fits = ~trial[-1]
            last = stage == MANTISSA_BITS - 2
            next_quotient = self.mantissa if last else Signal(MANTISSA_BITS, name=f"q{stage}")
            next_tag = self.length if last else Signal.like(tag, name=f"length{stage}")
            m.d.sync += [
                next_quotient.eq(Cat(fits, quotient)),
                next_tag.eq(tag),
            ]
            if not last:
                next_rest = Signal(MANTISSA_BITS, name=f"rest{stage}")
                next_divisor = Signal(MANTISSA_BITS, name=f"divisor{stage}")
                m.d.sync += [next_rest.eq(Mux(fits, trial, shifted)), next_divisor.eq(divisor)]
                rest, divisor = next_rest, next_divisor
            quotient, tag = next_quotient, next_tag
        return m
