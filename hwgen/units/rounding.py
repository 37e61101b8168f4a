"""Shifting and narrowing in hardware, as `models/integer/rounding` does it in numbers."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed

__all__ = ["saturated", "shift_parts", "shifted_left"]


def shift_parts(value: Value, shift: Value) -> tuple[Value, Value]:
    """``value / 2**shift`` in two parts: its floor, and 1 where rounding to nearest even adds one.

    ``value`` is signed, ``shift`` unsigned and of any size; their sum is what
    `models.integer.rounding.round_shift` returns. Register both parts and add them a stage later.
    """
    guarded = Cat(Const(0, 1), value).as_signed() >> shift
    floor, guard = guarded[1:].as_signed(), guarded[0]
    # The shift - 1 lowest bits set: ~shift is (all ones) - shift.
    ones = (1 << len(shift)) - 2
    below = (Const((1 << ones) - 1, ones) >> ~shift)[: len(value)]
    return floor, guard & ((value.as_unsigned() & below).any() | floor[0])


def saturated(m: Module, value: Value, bits: int, *, name: str) -> Signal:
    """Signed ``value`` clamped to ``bits`` bits, as a combinational signal called ``name``."""
    result = Signal(signed(bits), name=name)
    above = value[bits - 1 :]
    fits = above.all() | ~above.any()
    limit = Mux(value[-1], -(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    m.d.comb += result.eq(Mux(fits, value, limit))
    return result


def shifted_left(value: Value, amount: Value) -> Value:
    """``value << amount`` in the width of ``value``: what leaves at the top is lost."""
    width = len(value)
    for bit in range(len(amount)):
        distance = min(1 << bit, width)
        value = Mux(amount[bit], Cat(Const(0, distance), value)[:width], value)
    return value
