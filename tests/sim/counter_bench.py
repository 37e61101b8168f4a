"""The simulation's side of test_bench: a counter that counts, and a test that fails on purpose."""

from __future__ import annotations

import os

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge


async def count(dut, cycles):
    Clock(dut.clk, 10, "ns", impl="gpi").start()
    dut.rst.value = 1
    await ClockCycles(dut.clk, 2)
    dut.rst.value = 0
    await ClockCycles(dut.clk, cycles)
    await FallingEdge(dut.clk)
    return int(dut.count.value)


@cocotb.test()
async def counts(dut):
    expected = int(os.environ["EXPECTED"])
    assert await count(dut, expected) == expected


@cocotb.test()
async def fails(dut):
    assert await count(dut, 3) == 4, "three is not four"
