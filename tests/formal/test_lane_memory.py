"""The lane aligner, for every row, offset, count and chunk: each byte is written once, in place."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from amaranth.hdl import Array, Assert, Assume, Cover, Module, Mux, Signal

from vitruvius.hwgen import lane_memory
from vitruvius.hwgen.lane_memory import LaneAligner

from .prove import Proof, prove, refuted

ROWS = 8


class Alignment(Proof):
    """Byte ``index`` of a chunk goes to byte ``lane + index`` after the start of ``row``."""

    def __init__(self, cols: int, lanes: int) -> None:
        super().__init__()
        self.cols, self.lanes = cols, lanes

    def state(self, m: Module) -> None:
        cols, lanes = self.cols, self.lanes
        m.submodules.unit = unit = LaneAligner(cols=cols, lanes=lanes, rows=ROWS)
        write = unit.write
        m.d.comb += [
            unit.valid.eq(self.free(1, "valid")),
            unit.row.eq(self.free(range(ROWS), "row")),
            unit.lane.eq(self.free(range(lanes), "lane")),
            unit.count.eq(self.free(range(cols + 1), "count")),
            unit.chunk.as_value().eq(self.free(8 * cols, "chunk")),
            Assume(unit.count <= cols),
            # What the unit asks for.
            Assume(unit.lane.matches(*range(0, lanes, math.gcd(cols, lanes)))),
        ]

        # Any byte that is to be written: it lies where it belongs.
        index, place = Signal(range(cols)), Signal(range(2 * lanes))
        m.d.comb += [index.eq(self.free(range(cols), "index")), place.eq(unit.lane + index)]
        beyond = place >= lanes
        target = Signal(range(lanes))
        m.d.comb += target.eq(Mux(beyond, place - lanes, place))
        chunk = Array(unit.chunk[byte] for byte in range(cols))
        data = Array(write.data[lane] for lane in range(lanes))
        with m.If(unit.valid & (index < unit.count)):
            m.d.comb += [
                Assert(write.row == unit.row),
                Assert(write.enable.bit_select(target, 1)),
                Assert(write.next_row.bit_select(target, 1) == beyond),
                Assert(data[target] == chunk[index]),
                Cover(~beyond & (unit.count == 1)),
            ]
            if cols < lanes:  # otherwise every chunk is a row
                m.d.comb += Cover(beyond & (unit.count == cols))
        # And nothing else is written: as many lanes as bytes.
        count = Signal(range(lanes + 1))
        m.d.comb += [
            count.eq(sum(write.enable[lane] for lane in range(lanes))),
            Assert(count == Mux(unit.valid, unit.count, 0)),
            Cover(~unit.valid & (unit.count != 0)),
        ]


@pytest.mark.parametrize(
    ("cols", "lanes"),
    [
        (6, 8),
        pytest.param(3, 8, marks=pytest.mark.slow),
        pytest.param(5, 7, marks=pytest.mark.slow),
        pytest.param(8, 8, marks=pytest.mark.slow),
    ],
)
def test_each_byte_is_written_once_where_it_belongs(tmp_path, cols, lanes):
    prove(Alignment(cols, lanes), tmp_path, depth=1)


def test_a_missing_rotation_is_found(tmp_path, monkeypatch):
    """Built for offsets that are multiples of 4, used with multiples of 2."""
    monkeypatch.setattr(lane_memory, "math", SimpleNamespace(gcd=lambda a, b: 4))
    refuted(Alignment(6, 8), tmp_path, depth=2)
