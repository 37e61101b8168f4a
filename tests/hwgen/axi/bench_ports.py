"""The simulation's side of the tests of both ports at once: cocotbext-axi is the memory."""

from __future__ import annotations

import random

import cocotb
from bench_side import record, start, stimulus
from cocotb.triggers import FallingEdge
from cocotbext.axi import AxiBus, AxiRam


def paused(rng, share):
    while True:
        yield rng.random() < share


@cocotb.test()
async def traffic(dut):
    """Runs with random pauses of every channel; words written on chip, and the memory after."""
    todo = stimulus()
    rng = random.Random(todo["seed"])
    await start(dut)
    ram = AxiRam(AxiBus.from_prefix(dut, "memory"), dut.clk, dut.rst, size=1 << 16)
    ram.write(0, bytes.fromhex(todo["contents"]))
    edge = FallingEdge(dut.clk)
    await edge
    found = []
    for run in todo["runs"]:
        for channel in (
            ram.write_if.aw_channel,
            ram.write_if.w_channel,
            ram.write_if.b_channel,
            ram.read_if.ar_channel,
            ram.read_if.r_channel,
        ):
            channel.set_pause_generator(paused(rng, run["pauses"]))
        for name, value in run["inputs"].items():
            getattr(dut, name).value = value
        dut.start.value = 1
        await edge
        dut.start.value = 0
        writes, dones = [], 0
        for _ in range(60_000):
            await edge
            assert int(dut.broken.value) == 0, f"rules {int(dut.broken.value):#x}"
            if int(dut.write_enable.value):
                writes.append(hex(int(dut.write_data.value)))
            dones += int(dut.store_done.value)
            if not int(dut.busy.value) and dones:
                break
        assert not int(dut.busy.value), "not over"
        found.append({"writes": writes, "fetches": int(dut.fetches.value), "dones": dones})
    record({"runs": found, "memory": ram.read(0, 1 << 16).hex()})


@cocotb.test()
async def watchdog(dut):
    """A memory that never answers: when the watchdog expires, and with which address."""
    todo = stimulus()
    edge = await start(dut)
    dut.parameters.value = todo["parameters"]
    dut.store_address.value = todo["store_address"]
    dut.store_first.value = 1
    found = []
    for limit, arready, awready, codes in todo["cases"]:
        dut.rst.value = 1
        await edge
        dut.rst.value = 0
        dut.watchdog_limit.value = limit
        dut.store_count.value = codes
        dut.memory_arready.value = arready
        dut.memory_awready.value = awready
        dut.start.value = 1
        await edge
        dut.start.value = 0
        waited = expired = None
        for cycle in range(100):
            if int(dut.waiting.value) and waited is None:
                waited = cycle
            if int(dut.expired.value) and expired is None:
                expired = [cycle - waited, int(dut.expired_address.value)]
            await edge
        assert bool(int(dut.expired.value)) == (expired is not None)
        dut.soft_reset.value = 1
        await edge
        dut.soft_reset.value = 0
        assert not int(dut.expired.value)
        found.append(expired)
    record(found)
