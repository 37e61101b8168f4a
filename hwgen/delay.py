"""Delay lines: control that travels beside a data pipeline of known latency."""

from __future__ import annotations

from amaranth.hdl import Module, Signal

__all__ = ["delayed"]


def delayed(m: Module, signal: Signal, cycles: int, *, name: str) -> Signal:
    """``signal`` as it was ``cycles`` clock edges ago (``signal`` itself for 0)."""
    for stage in range(cycles):
        register = Signal.like(signal, name=f"{name}_{stage + 1}")
        m.d.sync += register.eq(signal)
        signal = register
    return signal
