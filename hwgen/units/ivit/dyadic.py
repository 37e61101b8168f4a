"""Requantizer of I-ViT: a signed 31-bit multiplier, a shift with ties to even, saturation."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..rounding import saturated, shift_parts

__all__ = ["Requantizer31", "cycles"]

_CODE_BITS = 32
_MULTIPLIER_BITS = 32
_SHIFT_BITS = 6
_LOW_BITS = 16
_NARROW_BITS = 8


def cycles(values: int) -> int:
    """Cycles from the first of ``values`` inputs, one a cycle, to the last result."""
    return Requantizer31.LATENCY + values - 1


class Requantizer31(wiring.Component):
    """``saturate(round_half_even(code * multiplier / 2**shift))``, a fixed pipeline.

    No flow control: the result of the inputs in cycle t stands at the output in cycle
    t + ``LATENCY``. Stages: two products with halves of the multiplier, their sum, shift, round and
    saturate. Golden: `models.integer.ivit.dyadic.requantize31`, in its mode ``half-even``.

    Parameters
    ----------
    out_bits : int
        Width of the signed result, 8 to 32.

    Members
    -------
    code : In, signed 32
    multiplier : In, signed 32; a `Dyadic31` has at most 31 bits and the sign
    shift : In, unsigned 6; a `Dyadic31` has 1 to 63
    narrow : In, saturate to 8 bits in the place of ``out_bits``
    result : Out, signed

    Raises
    ------
    ValueError
        ``out_bits`` is out of range.
    """

    LATENCY = 4

    def __init__(self, *, out_bits: int = 16) -> None:
        if not _NARROW_BITS <= out_bits <= _CODE_BITS:
            raise ValueError(f"out_bits: expected 8 to 32, got {out_bits!r}")
        self.out_bits = out_bits
        super().__init__(
            {
                "code": In(signed(_CODE_BITS)),
                "multiplier": In(signed(_MULTIPLIER_BITS)),
                "shift": In(unsigned(_SHIFT_BITS)),
                "narrow": In(1),
                "result": Out(signed(out_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        low = Signal(signed(_CODE_BITS + _LOW_BITS))
        high = Signal(signed(_CODE_BITS + _MULTIPLIER_BITS - _LOW_BITS))
        product = Signal(signed(_CODE_BITS + _MULTIPLIER_BITS))
        shifts = [Signal(_SHIFT_BITS, name=f"shift_{stage}") for stage in (1, 2)]
        narrows = [Signal(name=f"narrow_{stage}") for stage in (1, 2, 3)]
        m.d.sync += [
            low.eq(self.code * self.multiplier[:_LOW_BITS]),
            high.eq(self.code * self.multiplier[_LOW_BITS:].as_signed()),
            product.eq((high << _LOW_BITS) + low),
            *(
                after.eq(before)
                for held, first in ((shifts, self.shift), (narrows, self.narrow))
                for after, before in zip(held, [first, *held], strict=False)
            ),
        ]

        floor, increment = Signal(signed(len(product))), Signal()
        parts = shift_parts(product, shifts[-1])
        m.d.sync += [floor.eq(parts[0]), increment.eq(parts[1])]

        rounded = Signal(signed(len(product) + 1))
        m.d.comb += rounded.eq(floor + increment)
        wide = saturated(m, rounded, self.out_bits, name="limited")
        narrow = saturated(m, rounded, _NARROW_BITS, name="narrow_limited")
        m.d.sync += self.result.eq(Mux(narrows[-1], narrow, wide))
        return m
