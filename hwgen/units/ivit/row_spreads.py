"""Several `RowSpread` in turn: rows go in and come out in their order, closer to each other."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ....models.integer.layernorm import MAX_WIDTH
from .layernorm import RowSpread, spread_layout, sums_layout

__all__ = ["RowSpreads", "cycles"]


def cycles(offers: Sequence[int], copies: int) -> list[int]:
    """The cycle in which each row's result is taken, by a reader that is always ready, given the
    cycle from which its sums are offered.

    >>> cycles([0, 0, 0], copies=2)
    [71, 72, 143]
    """
    taken: list[int] = []
    begun = -1
    for index, offer in enumerate(offers):
        begun = max(offer, begun + 1)
        if index >= copies:
            begun = max(begun, taken[index - copies] + 1)
        done = begun + RowSpread.cycles()
        taken.append(max(done, taken[-1] + 1) if taken else done)
    return taken


class RowSpreads(wiring.Component):
    """``copies`` units `RowSpread`, each of which takes every ``copies``-th row.

    A row's sums are accepted when its unit has nothing in work, from the cycle after its result
    before was taken; the result is valid ``RowSpread.cycles()`` cycles later, or once the rows
    before are taken, if that is later.

    Parameters
    ----------
    copies : int
        At least 1.
    max_width : int
        Longest row, 1 to 1024.

    Members
    -------
    i, o : as of `RowSpread`

    Raises
    ------
    ValueError
        A parameter is out of range.
    """

    def __init__(self, *, copies: int, max_width: int = MAX_WIDTH) -> None:
        if copies < 1:
            raise ValueError(f"copies: expected at least 1, got {copies!r}")
        self.units = [RowSpread(max_width=max_width) for _ in range(copies)]
        super().__init__(
            {
                "i": In(stream.Signature(sums_layout(max_width))),
                "o": Out(stream.Signature(spread_layout())),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        copies = len(self.units)
        entry, leave = Signal(range(copies)), Signal(range(copies))
        for index, unit in enumerate(self.units):
            m.submodules[f"spread{index}"] = unit
            m.d.comb += [
                unit.i.payload.eq(self.i.payload),
                unit.i.valid.eq(self.i.valid & (entry == index)),
                unit.o.ready.eq(self.o.ready & (leave == index)),
            ]
        m.d.comb += [
            self.i.ready.eq(Array(unit.i.ready for unit in self.units)[entry]),
            self.o.valid.eq(Array(unit.o.valid for unit in self.units)[leave]),
            self.o.payload.as_value().eq(
                Array(unit.o.payload.as_value() for unit in self.units)[leave]
            ),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += entry.eq(Mux(entry == copies - 1, 0, entry + 1))
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += leave.eq(Mux(leave == copies - 1, 0, leave + 1))
        return m
