"""ShiftExp in hardware: three additions, a short division by comparing, a shift."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ....models.integer.ivit.shiftmax import OCTAVES
from ..rounding import shifted_left

__all__ = ["DISTANCE_BITS", "STEP_BITS", "ShiftExp", "check_octaves", "cycles", "latency"]

DISTANCE_BITS = 8
STEP_BITS = 9
_OCTAVE_BITS = 9
"""Of ``d + d/2 - d/16`` for a distance d of 8 bits: at most 367."""
_TOP_BITS = 31


def check_octaves(octaves: int) -> None:
    """Raise ValueError unless the largest result has at most 31 bits, and one octave at least."""
    if not 1 <= octaves <= _TOP_BITS - STEP_BITS:
        raise ValueError(f"octaves: expected 1 to {_TOP_BITS - STEP_BITS}, got {octaves!r}")


def latency(octaves: int = OCTAVES) -> int:
    """Cycles from a distance to its result: octaves, one for each bit of the quotient, shift."""
    return 2 + octaves.bit_length()


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

    Parameters
    ----------
    octaves : int
        Where the argument is cut, 1 to 22.

    Members
    -------
    distance : In, unsigned 8, how far the code lies below 0
    step : In, unsigned 9, at least 1; constant while distances are inside
    result : Out, unsigned, 9 + ``octaves`` bits

    Raises
    ------
    ValueError
        ``octaves`` is out of range.
    """

    def __init__(self, *, octaves: int = OCTAVES) -> None:
        check_octaves(octaves)
        self.octaves = octaves
        super().__init__(
            {
                "distance": In(unsigned(DISTANCE_BITS)),
                "step": In(unsigned(STEP_BITS)),
                "result": Out(unsigned(STEP_BITS + octaves)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # The golden's shifts of a negative code round down: of its magnitude they round up.
        half, sixteenth = (self.distance + 1) >> 1, (self.distance + 15) >> 4
        rest = Signal(_OCTAVE_BITS, name="rest")
        m.d.sync += rest.eq(self.distance + half - sixteenth)

        places = self.octaves.bit_length()
        whole: Signal | None = None
        for bit in reversed(range(places)):
            trial = Signal(_OCTAVE_BITS + 1, name=f"trial_{bit}")
            too_far = self.step[max(0, _OCTAVE_BITS - bit) :].any()
            fits = Signal(name=f"fits_{bit}")
            m.d.comb += [
                trial.eq(rest - (self.step << bit)[:_OCTAVE_BITS]),
                fits.eq(~trial[-1] & ~too_far),
            ]
            next_rest = Signal(_OCTAVE_BITS, name=f"rest_{bit}")
            next_whole = Signal(places - bit, name=f"whole_{bit}")
            m.d.sync += [
                next_rest.eq(Mux(fits, trial, rest)),
                next_whole.eq(fits if whole is None else Cat(fits, whole)),
            ]
            rest, whole = next_rest, next_whole
        assert whole is not None

        line = Signal(STEP_BITS + 1)
        left = Signal(range(self.octaves + 1))
        shifted = shifted_left(Cat(line, Const(0, self.octaves - 1)), left)
        m.d.comb += line.eq((self.step << 1) - rest)
        with m.If(whole >= self.octaves):
            m.d.sync += self.result.eq(self.step)
        with m.Else():
            m.d.comb += left.eq(self.octaves - 1 - whole)
            m.d.sync += self.result.eq(shifted)
        return m
