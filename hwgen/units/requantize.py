"""Dyadic requantizer: multiply, shift with ties to even, saturate; one value a cycle."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...models.integer.requantize import MULTIPLIER_BITS, SHIFT_BITS
from .rounding import saturated, shift_parts

__all__ = ["Requantizer", "cycles"]


def cycles(values: int) -> int:
    """Cycles from the first of ``values`` inputs, one a cycle, to the last result."""
    return Requantizer.LATENCY + values - 1


class Requantizer(wiring.Component):
    """``saturate(round_half_even(accumulator * multiplier / 2**shift))``, a fixed pipeline.

    No flow control: the result of the inputs in cycle t stands at the output in cycle
    t + ``LATENCY``. Three stages: multiply, shift, round and saturate.
    Golden: `models.integer.requantize.requantize`.

    Parameters
    ----------
    accumulator_bits : int
        Width of the signed accumulator, 2 to 48.
    out_bits : int
        Width of the signed result, 2 to ``accumulator_bits`` + 16.

    Members
    -------
    accumulator : In, signed
    multiplier : In, unsigned 16
    shift : In, unsigned 6
    result : Out, signed

    Raises
    ------
    ValueError
        A width is out of range.
    """

    LATENCY = 3

    def __init__(self, *, accumulator_bits: int = 32, out_bits: int) -> None:
        if not 2 <= accumulator_bits <= 48:
            raise ValueError(f"accumulator_bits: expected 2 to 48, got {accumulator_bits!r}")
        product_bits = accumulator_bits + MULTIPLIER_BITS
        if not 2 <= out_bits <= product_bits:
            raise ValueError(f"out_bits: expected 2 to {product_bits}, got {out_bits!r}")
        self.accumulator_bits, self.out_bits = accumulator_bits, out_bits
        super().__init__(
            {
                "accumulator": In(signed(accumulator_bits)),
                "multiplier": In(unsigned(MULTIPLIER_BITS)),
                "shift": In(unsigned(SHIFT_BITS)),
                "result": Out(signed(out_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        product_bits = self.accumulator_bits + MULTIPLIER_BITS
        product, shift = Signal(signed(product_bits)), Signal(SHIFT_BITS)
        m.d.sync += [product.eq(self.accumulator * self.multiplier), shift.eq(self.shift)]

        floor, increment = Signal(signed(product_bits)), Signal()
        parts = shift_parts(product, shift)
        m.d.sync += [floor.eq(parts[0]), increment.eq(parts[1])]

        rounded = Signal(signed(product_bits + 1))
        m.d.comb += rounded.eq(floor + increment)
        m.d.sync += self.result.eq(saturated(m, rounded, self.out_bits, name="limited"))
        return m
