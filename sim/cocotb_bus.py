"""Co-simulation under cocotb: the pins of an accelerator, and the test that runs a job on them.

This module is loaded inside the simulator. Pins change and are read at falling clock edges, half
a period away from the edge at which the design samples them. While the accelerator computes,
Python sleeps until `done`, `paused` or a logit wakes it, and the compiled clock runs alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, First, RisingEdge
from cocotb.utils import get_sim_time

from ..hwgen.loader import Target
from ..hwgen.manifest import read_manifest
from .host import load_program, run_image
from .job import Job, Outcome

PERIOD_NS = 10
LogicDesign: TypeAlias = Any
"""cocotb gives the design's pins as attributes that exist at run time only."""


class CocotbBus:
    """A `Bus` on the handles of a cocotb design under test."""

    def __init__(self, dut: LogicDesign) -> None:
        self.dut = dut
        self._logits: list[int] = []

    async def reset(self) -> None:
        """Holds reset for two cycles with all inputs low and the logit receiver ready."""
        dut = self.dut
        for pin in (dut.load__valid, dut.image__valid, dut.write, dut.write_data, dut.address):
            pin.value = 0
        dut.load__payload.value = 0
        dut.image__payload.value = 0
        dut.logits__ready.value = 1
        dut.rst.value = 1
        for _ in range(2):
            await FallingEdge(dut.clk)
        dut.rst.value = 0
        await FallingEdge(dut.clk)

    async def load(self, target: Target, image: bytes) -> None:
        dut = self.dut
        dut.load__valid.value = 1
        for start in range(0, len(image), 8):
            beat = int.from_bytes(image[start : start + 8], "little")
            dut.load__payload.value = beat | target << 64 | int(start == 0) << 66
            await FallingEdge(dut.clk)
        dut.load__valid.value = 0

    async def write(self, address: int, value: int) -> None:
        dut = self.dut
        dut.address.value = address
        dut.write_data.value = value
        dut.write.value = 1
        await FallingEdge(dut.clk)
        dut.write.value = 0

    async def read(self, address: int) -> int:
        self.dut.address.value = address
        await FallingEdge(self.dut.clk)
        return int(self.dut.read_data.value)

    async def send_image(self, beats: list[int]) -> None:
        dut = self.dut
        dut.image__valid.value = 1
        for beat in beats:
            dut.image__payload.value = beat
            while not int(dut.image__ready.value):
                await RisingEdge(dut.image__ready)
                await FallingEdge(dut.clk)
            await FallingEdge(dut.clk)
        dut.image__valid.value = 0

    async def settle(self) -> None:
        dut = self.dut
        while not (int(dut.done.value) or int(dut.paused.value)):
            if int(dut.logits__valid.value):
                value = int(dut.logits__payload.value) & 0xFFFF
                self._logits.append(value - (1 << 16) if value & 0x8000 else value)
            else:
                await First(
                    RisingEdge(dut.done), RisingEdge(dut.paused), RisingEdge(dut.logits__valid)
                )
            await FallingEdge(dut.clk)

    def done(self) -> bool:
        return bool(int(self.dut.done.value))

    def take_logits(self) -> list[int]:
        taken, self._logits = self._logits, []
        return taken

    @property
    def cycles(self) -> int:
        return int(get_sim_time("ns")) // PERIOD_NS


@cocotb.test()
async def run_job(dut: LogicDesign) -> None:
    """Runs the job in the folder that VITRUVIUS_JOB names on the accelerator of
    VITRUVIUS_DESIGN.
    """
    folder, design = Path(os.environ["VITRUVIUS_JOB"]), Path(os.environ["VITRUVIUS_DESIGN"])
    job = Job.read(folder)
    manifest = read_manifest(design)
    Clock(dut.clk, PERIOD_NS, "ns", impl="gpi").start()
    bus = CocotbBus(dut)
    await bus.reset()
    await load_program(bus, design, manifest)
    outcome = Outcome(folder, first_cycle=bus.cycles)
    for image in job.images:
        tensors = [tensor for tensor in manifest.tensors if tensor.operator in image.tensors]
        outcome.add(await run_image(bus, manifest, image.beats, tensors), bus.cycles)
    outcome.save()
