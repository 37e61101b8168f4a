"""The simulation's side of a unit's tests: reset, stimuli from a file, a record of what came out.

Everything is sampled and set at the falling clock edge in the middle of a cycle. An output of cycle
c is thus what registers show after that cycle's rising edge, an input of cycle c is what they take
at its end. (Outputs that depend on inputs of the same cycle cannot be tested this way.)
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge


async def start(dut):
    """Clock and reset; returns the edge to await, having awaited the first."""
    Clock(dut.clk, 10, "ns", impl="gpi").start()
    dut.rst.value = 1
    await ClockCycles(dut.clk, 2)
    dut.rst.value = 0
    edge = FallingEdge(dut.clk)
    await edge
    return edge


def stimulus():
    return json.loads(Path(os.environ["BENCH_STIMULUS"]).read_text())


def record(result):
    Path(os.environ["BENCH_RECORD"]).write_text(json.dumps(result))
