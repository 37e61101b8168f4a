"""The simulation's side of the runs in Icarus Verilog: `vitruvius.sim.cocotb_bus`, from known pins.

In four values a pin that nobody has set yet is Z, which the bus models cannot read.
"""

from __future__ import annotations

import os
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import Timer

from vitruvius.sim.cocotb_bus import PERIOD_NS, CocotbHost
from vitruvius.sim.host import follow


@cocotb.test()
async def run_script(dut):
    """Follows the script in the folder that VITRUVIUS_JOB names."""
    for name in os.environ["ICARUS_INPUTS"].split():
        getattr(dut, name).value = 0
    await Timer(1, "ns")
    Clock(dut.clk, PERIOD_NS, "ns", impl="gpi").start()
    await follow(CocotbHost(dut), Path(os.environ["VITRUVIUS_JOB"]))
