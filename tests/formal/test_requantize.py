"""Shifting, rounding and saturating for every input: what they say, not how they compute it.

A shifted value is right if it is the nearest integer, and the even one of two that are as near.
The multiplication itself is taken for granted: the same product stands on both sides.
"""

from __future__ import annotations

import pytest
from amaranth.hdl import Assert, Cat, Const, Cover, Module, Signal, Value, signed, unsigned

from vitruvius.hwgen.units import requantize
from vitruvius.hwgen.units.requantize import Requantizer
from vitruvius.hwgen.units.rounding import saturated, shift_parts

from .prove import Proof, prove, refuted


def limits(bits: int) -> tuple[int, int]:
    return -(1 << bits - 1), (1 << bits - 1) - 1


def nearest_even(m: Module, value: Value, shift: Value, result: Value) -> Value:
    """Whether the signed ``result`` is ``value / 2**shift``, rounded to nearest even.

    Twice the error, ``2 * value - result * 2**(shift + 1)``, is at most 2**shift in size, and where
    it is just that the result is even.
    """
    room = len(result) + (1 << len(shift)) + 2
    error, half = Signal(signed(room)), Signal(signed(room))
    m.d.comb += [error.eq((value << 1) - (result << shift << 1)), half.eq(Const(1) << shift)]
    near = (error <= half) & (error >= -half)
    tie = (error == half) | (error == -half)
    return near & ~(tie & result[0])


class Saturation(Proof):
    """``saturated`` of every value: itself where it fits, otherwise the limit on its side."""

    def __init__(self, bits: int, out_bits: int, narrow=saturated) -> None:
        super().__init__()
        self.bits, self.out_bits, self.narrow = bits, out_bits, narrow

    def state(self, m: Module) -> None:
        value = self.free(signed(self.bits), "value")
        result = self.narrow(m, value, self.out_bits, name="result")
        low, high = limits(self.out_bits)
        with m.If(value > high):
            m.d.comb += Assert(result == high)
        with m.Elif(value < low):
            m.d.comb += Assert(result == low)
        with m.Else():
            m.d.comb += Assert(result == value)
        m.d.comb += [
            Cover(value == limits(self.bits)[0]),
            Cover(value == limits(self.bits)[1]),
            Cover(result == -1),
        ]


class Shifting(Proof):
    """``shift_parts`` of every value and every amount: floor, and one more where nearest."""

    def __init__(self, bits: int, shift_bits: int, parts=shift_parts) -> None:
        super().__init__()
        self.bits, self.shift_bits, self.parts = bits, shift_bits, parts

    def state(self, m: Module) -> None:
        value = self.free(signed(self.bits), "value")
        shift = self.free(unsigned(self.shift_bits), "shift")
        floor, increment = self.parts(value, shift)
        result = Signal(signed(self.bits + 1))
        m.d.comb += [
            result.eq(floor + increment),
            Assert(nearest_even(m, value, shift, result)),
            Cover((shift == (1 << self.shift_bits) - 1) & (value != 0)),
            Cover((value == 6) & (shift == 2) & (result == 2)),  # 1.5: up to the even one
            Cover((value == 10) & (shift == 2) & (result == 2)),  # 2.5: down to it
            Cover((value == -10) & (shift == 2) & (result == -2)),
        ]


class Pipeline(Proof):
    """The whole requantizer: its result is of the inputs three cycles before, and never wraps."""

    def __init__(self, accumulator_bits: int, out_bits: int) -> None:
        super().__init__()
        self.accumulator_bits, self.out_bits = accumulator_bits, out_bits

    def state(self, m: Module) -> None:
        m.submodules.unit = unit = Requantizer(
            accumulator_bits=self.accumulator_bits, out_bits=self.out_bits
        )
        m.d.comb += [
            unit.accumulator.eq(self.free(signed(self.accumulator_bits), "accumulator")),
            unit.multiplier.eq(self.free(len(unit.multiplier), "multiplier")),
            unit.shift.eq(self.free(len(unit.shift), "shift")),
        ]
        product = Signal(signed(self.accumulator_bits + len(unit.multiplier)))
        shift = Signal.like(unit.shift)
        m.d.comb += [product.eq(unit.accumulator * unit.multiplier), shift.eq(unit.shift)]
        age = Signal(range(Requantizer.LATENCY + 1))
        with m.If(age != Requantizer.LATENCY):
            m.d.sync += age.eq(age + 1)
        for _ in range(Requantizer.LATENCY):
            later = Signal.like(product), Signal.like(shift)
            m.d.sync += [later[0].eq(product), later[1].eq(shift)]
            product, shift = later

        low, high = limits(self.out_bits)
        rounded = nearest_even(m, product, shift, unit.result)
        # Beyond a limit: the exact value is at least half a step past the last that rounds to less.
        above = (product << 1) >= (Const(2 * high - 1) << shift)
        below = (product << 1) <= (Const(2 * low + 1) << shift)
        with m.If(age == Requantizer.LATENCY):
            m.d.comb += [
                Assert(rounded | ((unit.result == high) & above) | ((unit.result == low) & below)),
                Cover((unit.result == high) & ~rounded),
                Cover((unit.result == low) & ~rounded),
                Cover((unit.result == 1) & (shift == 3)),
            ]


def wrapped(m, value, bits, *, name):
    """``value`` with its upper bits cut off."""
    result = Signal(signed(bits), name=name)
    m.d.comb += result.eq(value[:bits].as_signed())
    return result


def half_up(value, shift):
    """Ties towards plus infinity."""
    guarded = Cat(Const(0, 1), value).as_signed() >> shift
    return guarded[1:].as_signed(), guarded[0]


@pytest.mark.parametrize(
    ("bits", "out_bits"),
    [
        (49, 8),
        pytest.param(49, 16, marks=pytest.mark.slow),
        pytest.param(9, 9, marks=pytest.mark.slow),
    ],
)
def test_saturation(tmp_path, bits, out_bits):
    prove(Saturation(bits, out_bits), tmp_path, depth=1)


@pytest.mark.parametrize(
    ("bits", "shift_bits"),
    [(48, 6), pytest.param(10, 3, marks=pytest.mark.slow)],
)
def test_shifts_are_rounded_to_nearest_even(tmp_path, bits, shift_bits):
    """48 bits by up to 63 are the widths in use."""
    prove(Shifting(bits, shift_bits), tmp_path, depth=1)


@pytest.mark.parametrize("out_bits", [8, pytest.param(16, marks=pytest.mark.slow)])
def test_the_pipeline_never_wraps(tmp_path, out_bits):
    prove(Pipeline(32, out_bits), tmp_path, depth=5)


@pytest.mark.parametrize(
    "broken",
    [Saturation(12, 8, wrapped), Shifting(8, 3, half_up)],
    ids=["wraps", "rounds half up"],
)
def test_other_rules_fail(tmp_path, broken):
    refuted(broken, tmp_path, depth=2)


@pytest.mark.slow
def test_a_pipeline_that_wraps_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(requantize, "saturated", wrapped)
    refuted(Pipeline(32, 8), tmp_path, depth=5)
