"""Tells when memory has not gone on for too long."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Watchdog"]


class Watchdog(wiring.Component):
    """Counts the cycles in a row in which a port waits for memory and nothing arrives.

    With ``limit`` L > 0 and a port waiting (``outstanding`` and not ``beat``) in L cycles in a row,
    ``expired`` rises in the cycle after the last of them, with the address that the port waits for,
    and stays until ``clear``. Each port is counted on its own; if both expire at once it is the
    reading one's address. While ``expired`` nothing is counted.

    Members
    -------
    limit (32 bits; 0: never), clear (strobe) : In
    read_outstanding, read_beat, read_address, write_outstanding, write_beat, write_address : In
    expired, address : Out
    """

    def __init__(self) -> None:
        port = {"outstanding": In(1), "beat": In(1), "address": In(64)}
        super().__init__(
            {
                "limit": In(32),
                "clear": In(1),
                **{f"read_{name}": member for name, member in port.items()},
                **{f"write_{name}": member for name, member in port.items()},
                "expired": Out(1),
                "address": Out(64),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        over = []
        for port in ("read", "write"):
            waited, waits = Signal(32, name=f"{port}_waited"), Signal(name=f"{port}_waits")
            m.d.comb += waits.eq(
                getattr(self, f"{port}_outstanding") & ~getattr(self, f"{port}_beat")
            )
            m.d.sync += waited.eq(Mux(waits & ~self.clear & ~self.expired, waited + 1, 0))
            over.append(waits & (waited + 1 == self.limit))
        with m.If(self.clear):
            m.d.sync += self.expired.eq(0)
        with m.Elif(~self.expired & (over[0] | over[1])):
            m.d.sync += [
                self.expired.eq(1),
                self.address.eq(Mux(over[0], self.read_address, self.write_address)),
            ]
        return m
