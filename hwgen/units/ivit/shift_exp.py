"""ShiftExp in hardware: three additions, a short division by comparing, a shift."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ....models.integer.ivit.shiftmax import OCTAVES
from ...delay import delayed
from ..rounding import shifted_left

__all__ = ["DISTANCE_BITS", "STEP_BITS", "ShiftExp", "check_octaves", "cycles", "latency"]

DISTANCE_BITS = 8
STEP_BITS = 9
_FARTHEST = 367
"""``d + d/2 - d/16`` for the largest distance d of 8 bits."""
_TOP_BITS = 31


def check_octaves(octaves: int, step_bits: int = STEP_BITS) -> None:
    """Raise ValueError unless the result for 0 has at most 31 bits, and one octave at least."""
    if not 1 <= octaves <= _TOP_BITS - step_bits:
        raise ValueError(f"octaves: expected 1 to {_TOP_BITS - step_bits}, got {octaves!r}")


def latency(octaves: int = OCTAVES, *, above: bool = False) -> int:
    """Cycles from a distance to its result: octaves, one for each bit of the quotient, shift."""
    return 2 + (_TOP_BITS - 1 if above else octaves).bit_length()


def cycles(values: int, octaves: int = OCTAVES) -> int:
    """Cycles from the first of ``values`` inputs, one a cycle, to the last result."""
    return latency(octaves) + values - 1


class ShiftExp(wiring.Component):
    """``shift_exp(-distance, step, octaves)``: a power of two by a shift, a fixed pipeline.

    No flow control: the result of the distance in cycle t stands at the output in cycle
    t + `latency`. The quotient by ``step`` is at most ``octaves`` and has only that number's bits,
    each found by a comparison with ``step << bit``: no multiplier, no reciprocal to prepare. The
    quotient of a distance beyond the last octave comes out as ``octaves`` or more; then the result
    is ``step``. Golden: `models.integer.ivit.shift_exp.shift_exp`.

    With ``above``, codes above 0 are taken as well. What comes in is lowered by whole octaves and
    shifted farther in the end, and the result saturates at 2**31 - 1.

    Parameters
    ----------
    octaves : int
        Where the argument is cut, 1 to 31 - ``step_bits``.
    step_bits : int
        Width of the step, 1 to 30.
    above : bool
        Whether distances may be negative.

    Members
    -------
    distance : In, unsigned 8, how far the code lies below 0; if ``above``, signed 9, -128 or more
    step : In, unsigned, at least 1; constant while distances are inside
    result : Out, unsigned, ``step_bits`` + ``octaves`` bits; if ``above``, 31

    Raises
    ------
    ValueError
        ``octaves`` or ``step_bits`` is out of range.
    """

    def __init__(
        self, *, octaves: int = OCTAVES, step_bits: int = STEP_BITS, above: bool = False
    ) -> None:
        if not 1 <= step_bits < _TOP_BITS:
            raise ValueError(f"step_bits: expected 1 to {_TOP_BITS - 1}, got {step_bits!r}")
        check_octaves(octaves, step_bits)
        self.octaves, self.step_bits, self.above = octaves, step_bits, above
        distance = signed(DISTANCE_BITS + 1) if above else unsigned(DISTANCE_BITS)
        super().__init__(
            {
                "distance": In(distance),
                "step": In(unsigned(step_bits)),
                "result": Out(unsigned(_TOP_BITS if above else step_bits + octaves)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Codes above 0 by so many octaves, or more, reach 2**31 whatever the step.
        lift = _TOP_BITS - 1 - self.octaves if self.above else 0
        octaves = self.octaves + lift
        rest_bits = (_FARTHEST + lift * ((1 << self.step_bits) - 1)).bit_length()
        # The golden's shifts of a negative code round down: of its magnitude they round up.
        half, sixteenth = (self.distance + 1) >> 1, (self.distance + 15) >> 4
        lowered = Signal(signed(rest_bits + 1))
        rest = Signal(rest_bits, name="rest")
        m.d.comb += lowered.eq(self.distance + half - sixteenth + lift * self.step)
        m.d.sync += rest.eq(lowered)

        places = octaves.bit_length()
        whole: Signal | None = None
        for bit in reversed(range(places)):
            trial = Signal(rest_bits + 1, name=f"trial_{bit}")
            too_far = self.step[max(0, rest_bits - bit) :].any()
            fits = Signal(name=f"fits_{bit}")
            m.d.comb += [
                trial.eq(rest - (self.step << bit)[:rest_bits]),
                fits.eq(~trial[-1] & ~too_far),
            ]
            next_rest = Signal(rest_bits, name=f"rest_{bit}")
            next_whole = Signal(places - bit, name=f"whole_{bit}")
            m.d.sync += [
                next_rest.eq(Mux(fits, trial, rest)),
                next_whole.eq(fits if whole is None else Cat(fits, whole)),
            ]
            rest, whole = next_rest, next_whole
        assert whole is not None

        line = Signal(self.step_bits + 1)
        left = Signal(range(octaves + 1))
        shifted = shifted_left(Cat(line, Const(0, octaves - 1)), left)
        m.d.comb += line.eq((self.step << 1) - rest)
        with m.If(whole >= octaves):
            m.d.sync += self.result.eq(self.step)
        with m.Else():
            m.d.comb += left.eq(octaves - 1 - whole)
            m.d.sync += self.result.eq(shifted)
        if self.above:
            higher = Signal()
            m.d.comb += higher.eq(lowered[-1])
            beyond = delayed(m, higher, 1 + places, name="beyond")
            with m.If(beyond | ((whole < octaves) & shifted[_TOP_BITS:].any())):
                m.d.sync += self.result.eq((1 << _TOP_BITS) - 1)
        return m
