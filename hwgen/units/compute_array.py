"""The shared compute unit: rows x cols x depth int8 products a cycle, accumulated and drained row
by row.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..delay import delayed
from .packed_product import SUMMED, PackedDot

__all__ = ["LATENCY", "ComputeArray", "cycles"]

LATENCY = 4
"""Cycles from the cycle in which the last word of a product is at the inputs to its row 0 at the
drain.
"""

_PLANE_BITS = 8


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
    planes : whether a word can be of upper bytes (``upper``).
    packing : two rows share a multiplier of 27 x 18 bits (see `packed_product`): the same results
        in the same cycles from half the multipliers, where the device's are wide enough. Up to four
        products are summed inside the DSPs, the rest of ``depth`` in the stage that accumulates.

    Members
    -------
    a : In, rows x depth signed 9-bit (int8 activations, or unsigned 8-bit softmax weights)
    b : In, cols x depth signed 8-bit
    valid, first, last : In; ``first`` restarts the sums, ``last`` sends them to the drain
    upper : In, with ``planes``; the word's products count 256 times: of 16-bit elements of ``a``
        the upper bytes
    drain_valid, drain_row, drain : Out, one row of ``cols`` 32-bit sums
    """

    def __init__(
        self, *, rows: int, cols: int, depth: int, packing: bool = False, planes: bool = False
    ) -> None:
        for name, extent in (("rows", rows), ("cols", cols), ("depth", depth)):
            if extent < 1:
                raise ValueError(f"{name}: expected at least 1, got {extent}")
        self.rows, self.cols, self.depth = rows, cols, depth
        self.packing, self.planes = packing, planes
        super().__init__(
            {
                "a": In(data.ArrayLayout(data.ArrayLayout(signed(9), depth), rows)),
                "b": In(data.ArrayLayout(data.ArrayLayout(signed(8), depth), cols)),
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                **({"upper": In(1)} if planes else {}),
                "drain_valid": Out(1),
                "drain_row": Out(range(rows)),
                "drain": Out(data.ArrayLayout(signed(32), cols)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
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
        totals = self._packed_totals(m) if self.packing else self._totals(m)
        upper = delayed(m, self.upper, 3, name="upper") if self.planes else None
        for row in range(self.rows):
            for col in range(self.cols):
                total = totals[row, col]
                accumulator = Signal(signed(32), name=f"acc_{row}_{col}")
                following = Signal(signed(32), name=f"next_{row}_{col}")
                if upper is not None:
                    total = Mux(upper, total << _PLANE_BITS, total).as_signed()
                # One adder whose other operand is masked: a LUT per bit does both.
                m.d.comb += following.eq(Mux(first, 0, accumulator) + total)
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

    def _totals(self, m: Module) -> dict[tuple[int, int], Value]:
        """Sums over depth by (row, col), three cycles after the operands: a multiplier each."""
        a, b = Signal.like(self.a), Signal.like(self.b)
        m.d.sync += [a.eq(self.a), b.eq(self.b)]
        totals: dict[tuple[int, int], Value] = {}
        for row in range(self.rows):
            for col in range(self.cols):
                products = []
                for lane in range(self.depth):
                    product = Signal(signed(17), name=f"product_{row}_{col}_{lane}")
                    m.d.sync += product.eq(a[row][lane] * b[col][lane])
                    products.append(product)
                total = Signal(signed(17 + (self.depth - 1).bit_length()), name=f"sum_{row}_{col}")
                m.d.sync += total.eq(_summed(m, products, name=f"partial_{row}_{col}"))
                totals[row, col] = total
        return totals

    def _packed_totals(self, m: Module) -> dict[tuple[int, int], Value]:
        """The same from multipliers that two rows share; an odd last row has zeros beside it."""
        totals: dict[tuple[int, int], Value] = {}
        for low in range(0, self.rows, 2):
            high = low + 1
            for col in range(self.cols):
                lows, highs = [], []
                for begin in range(0, self.depth, SUMMED):
                    lanes = range(begin, min(begin + SUMMED, self.depth))
                    dot = PackedDot(lanes=len(lanes))
                    m.submodules[f"dot_{low}_{col}_{begin}"] = dot
                    for index, lane in enumerate(lanes):
                        m.d.comb += [
                            dot.low[index].eq(self.a[low][lane]),
                            dot.high[index].eq(self.a[high][lane] if high < self.rows else 0),
                            dot.right[index].eq(self.b[col][lane]),
                        ]
                    lows.append(dot.low_sum)
                    highs.append(dot.high_sum)
                totals[low, col] = _summed(m, lows, name=f"partial_{low}_{col}")
                if high < self.rows:
                    totals[high, col] = _summed(m, highs, name=f"partial_{high}_{col}")
        return totals


def _summed(m: Module, terms: Sequence[Value], *, name: str) -> Value:
    """Balanced sum of at least one term: depth log2 of their number, every node a signal.

    Synthesis finds the nodes by name and keeps them apart (see `fpga_targets.synthesis`).
    """
    if len(terms) == 1:
        return terms[0]
    middle = (len(terms) + 1) // 2
    total = _summed(m, terms[:middle], name=f"{name}_l") + _summed(
        m, terms[middle:], name=f"{name}_r"
    )
    node = Signal(total.shape(), name=name)
    m.d.comb += node.eq(total)
    return node
