"""The shared compute unit: rows x cols x depth int8 products a cycle, accumulated and drained row
by row.
"""

from __future__ import annotations

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["LATENCY", "ComputeArray", "cycles"]

LATENCY = 4
"""Cycles from the cycle in which the last word of a product is at the inputs to its row 0 at the
drain.
"""


def cycles(words: int, rows: int) -> tuple[int, int]:
    """(first, last) cycle in which a product's rows are at the drain, counted from its first
    word's cycle.

    A product of ``words`` words without gaps: row r leaves in cycle ``words - 1 + LATENCY + r``.
    Products may follow each other every ``max(words, rows)`` cycles.
    """
    first = words - 1 + LATENCY
    return first, first + rows - 1


class ComputeArray(wiring.Component):
    """Dot products of ``rows`` token slots with ``cols`` columns, ``depth`` elements a cycle.

    Four stages: operands, products, sum over depth, accumulate. When a word comes with ``last``
    the finished sums move to the drain registers, which then shift out one row a cycle:
    ``drain_valid`` with ``drain_row`` 0 to rows-1. Sums are 32 bits; the compiler proves that
    they do not overflow.

    Parameters
    ----------
    rows, cols, depth : the array's extents, each at least 1.

    Members
    -------
    a : In, rows x depth signed 9-bit (int8 activations, or unsigned 8-bit softmax weights)
    b : In, cols x depth signed 8-bit
    valid, first, last : In; ``first`` restarts the sums, ``last`` sends them to the drain
    drain_valid, drain_row, drain : Out, one row of ``cols`` 32-bit sums
    """

    def __init__(self, *, rows: int, cols: int, depth: int) -> None:
        for name, extent in (("rows", rows), ("cols", cols), ("depth", depth)):
            if extent < 1:
                raise ValueError(f"{name}: expected at least 1, got {extent}")
        self.rows, self.cols, self.depth = rows, cols, depth
        super().__init__(
            {
                "a": In(data.ArrayLayout(data.ArrayLayout(signed(9), depth), rows)),
                "b": In(data.ArrayLayout(data.ArrayLayout(signed(8), depth), cols)),
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "drain_valid": Out(1),
                "drain_row": Out(range(rows)),
                "drain": Out(data.ArrayLayout(signed(32), cols)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a = Signal.like(self.a)
        b = Signal.like(self.b)
        m.d.sync += [a.eq(self.a), b.eq(self.b)]

        valid, first, last = self.valid, self.first, self.last
        for stage in ("operand", "product", "sum"):
            flags = [Signal(name=f"{stage}_{name}") for name in ("valid", "first", "last")]
            m.d.sync += [
                flags[0].eq(valid),
                flags[1].eq(first),
                flags[2].eq(last),
            ]
            valid, first, last = flags

        drain = [
            [Signal(signed(32), name=f"drain_{row}_{col}") for col in range(self.cols)]
            for row in range(self.rows)
        ]
        remaining = Signal(range(self.rows + 1))
        capture = Signal()
        m.d.comb += capture.eq(valid & last)
        for row in range(self.rows):
            for col in range(self.cols):
                products = []
                for lane in range(self.depth):
                    product = Signal(signed(17), name=f"product_{row}_{col}_{lane}")
                    m.d.sync += product.eq(a[row][lane] * b[col][lane])
                    products.append(product)
                total = Signal(signed(17 + (self.depth - 1).bit_length()), name=f"sum_{row}_{col}")
                m.d.sync += total.eq(_tree(products))
                accumulator = Signal(signed(32), name=f"acc_{row}_{col}")
                following = Signal(signed(32), name=f"next_{row}_{col}")
                with m.If(first):
                    m.d.comb += following.eq(total)
                with m.Else():
                    m.d.comb += following.eq(accumulator + total)
                with m.If(valid):
                    m.d.sync += accumulator.eq(following)
                with m.If(capture):
                    m.d.sync += drain[row][col].eq(following)
                if row + 1 < self.rows:
                    with m.Elif(remaining != 0):
                        m.d.sync += drain[row][col].eq(drain[row + 1][col])

        with m.If(capture):
            m.d.sync += [remaining.eq(self.rows), self.drain_row.eq(0)]
        with m.Elif(remaining != 0):
            m.d.sync += remaining.eq(remaining - 1)
            with m.If(remaining != 1):
                m.d.sync += self.drain_row.eq(self.drain_row + 1)
        m.d.comb += self.drain_valid.eq(remaining != 0)
        m.d.comb += [self.drain[col].eq(drain[0][col]) for col in range(self.cols)]
        return m


def _tree(terms: list[Signal]) -> object:
    """Balanced sum, so that the adder depth is log2 of the number of terms."""
    level: list[object] = list(terms)
    while len(level) > 1:
        level = [
            level[index] + level[index + 1] if index + 1 < len(level) else level[index]  # type: ignore[operator]
            for index in range(0, len(level), 2)
        ]
    return level[0]
