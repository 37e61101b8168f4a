"""Co-simulation under cocotb: cocotbext-axi's memory and AXI4-Lite master drive the accelerator.

Both are a bus-functional model that nobody here wrote. This module is also loaded inside the
simulator, where its test follows the script in the folder that VITRUVIUS_JOB names.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge
from cocotb.utils import get_sim_time
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam

from ..hwgen.generate import TOP
from .bench import build_cocotb, cocotb_environment
from .host import follow
from .native.engine import ScriptRun

__all__ = ["CocotbHost", "CocotbRun"]

PERIOD_NS = 10
_MEMORY_BYTES = 1 << 40
LogicDesign: TypeAlias = Any
"""cocotb gives the design's pins as attributes that exist at run time only."""


class CocotbRun(ScriptRun):
    """Runs scripts on Verilog text under cocotb."""

    def __init__(self, verilog: str) -> None:
        self.build = build_cocotb(verilog, TOP)

    def command(self, folder: Path) -> tuple[list[str], Mapping[str, str] | None]:
        environment = cocotb_environment(TOP, __name__, folder / "results.xml")
        environment["VITRUVIUS_JOB"] = str(folder)
        return [str(self.build.executable)], environment


class CocotbHost:
    """A `Host` on the handles of a cocotb design under test."""

    def __init__(self, dut: LogicDesign) -> None:
        self.dut = dut
        self.answers: list[int] = []
        dut.rst.value = 1
        for name in ("memory", "control"):
            logging.getLogger(f"cocotb.{dut._name}.{name}").setLevel(logging.WARNING)
        self.memory = AxiRam(
            AxiBus.from_prefix(dut, "memory"), dut.clk, dut.rst, size=_MEMORY_BYTES
        )
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "control"), dut.clk, dut.rst)
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        """Notes when memory acknowledges a write burst; ready is always 1."""
        while True:
            await RisingEdge(self.dut.memory_bvalid)
            await FallingEdge(self.dut.clk)
            while int(self.dut.memory_bvalid.value):
                self.answers.append(self.cycles)
                await FallingEdge(self.dut.clk)

    async def reset(self, cycles: int) -> None:
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, cycles)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 2)

    async def write(self, address: int, value: int) -> None:
        await self.master.write_dword(address, value)

    async def read(self, address: int) -> int:
        return int(await self.master.read_dword(address))

    async def sleep(self, cycles: int) -> None:
        await ClockCycles(self.dut.clk, cycles)

    def timing(self, latency: int, gap: int, outstanding: int) -> None:
        """The memory has a timing of its own."""

    def store(self, address: int, data: bytes) -> None:
        self.memory.write(address, data)

    def load(self, address: int, length: int) -> bytes:
        return bytes(self.memory.read(address, length))

    @property
    def cycles(self) -> int:
        return int(get_sim_time("ns")) // PERIOD_NS


@cocotb.test()
async def run_script(dut: LogicDesign) -> None:
    """Follows the script in the folder that VITRUVIUS_JOB names."""
    Clock(dut.clk, PERIOD_NS, "ns", impl="gpi").start()
    await follow(CocotbHost(dut), Path(os.environ["VITRUVIUS_JOB"]))
