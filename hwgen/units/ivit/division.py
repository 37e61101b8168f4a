"""A step of a division, for units that divide digit by digit."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value

__all__ = ["restoring_digit"]


def restoring_digit(m: Module, shifted: Value, divisor: Value, *, name: str) -> tuple[Value, Value]:
    """The rest after a restoring division's next digit, and the digit."""
    width = len(shifted)
    trial = Signal(width + 1, name=f"{name}_trial")
    fits = Signal(name=f"{name}_fits")
    m.d.comb += [
        trial.eq(shifted - divisor[:width]),
        fits.eq(~trial[-1] & ~divisor[width:].any()),
    ]
    return Mux(fits, trial, shifted), fits
