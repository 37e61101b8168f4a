"""The simulation's side of the on-chip memory's tests."""

from __future__ import annotations

import random

import cocotb
from bench_side import record, start, stimulus
from cocotb.triggers import FallingEdge
from cocotbext.axi import AxiBus, AxiMaster, AxiReadBus, AxiWriteBus


def paused(rng, share):
    while True:
        yield rng.random() < share


async def window_write(dut, edge, address, data):
    dut.window_enable.value = 1
    for offset in range(0, len(data), 4):
        dut.window_address.value = address + offset
        dut.window_write.value = int.from_bytes(data[offset : offset + 4], "little")
        await edge
    dut.window_enable.value = 0


@cocotb.test()
async def traffic(dut):
    """cocotbext-axi's master writes and reads at random; the memory must be a memory."""
    todo = stimulus()
    rng = random.Random(todo["seed"])
    edge = await start(dut)
    bus = AxiBus(AxiWriteBus.from_prefix(dut, "write_"), AxiReadBus.from_prefix(dut, "read_"))
    master = AxiMaster(bus, dut.clk, dut.rst)
    for channel in (
        master.write_if.aw_channel,
        master.write_if.w_channel,
        master.write_if.b_channel,
        master.read_if.ar_channel,
        master.read_if.r_channel,
    ):
        channel.set_pause_generator(paused(rng, todo["pauses"]))
    size = todo["size"]
    held = bytearray(rng.randbytes(size))
    await window_write(dut, edge, 0, held)
    for _ in range(todo["rounds"]):
        length = rng.choice([1, 3, 16, 70, 400])
        at = rng.randrange(size - length)
        data = rng.randbytes(length)
        # Two writes and two reads at once, of parts that do not touch.
        half = length // 2
        parts = [(at, data[:half]), (at + half, data[half:])]
        tasks = [
            cocotb.start_soon(master.write(where, part, awid=0)) for where, part in parts if part
        ]
        for task in tasks:
            await task
        held[at : at + length] = data
        at = rng.randrange(size - 300)
        tasks = [cocotb.start_soon(master.read(at + delta, 150, arid=0)) for delta in (0, 150)]
        for task, delta in zip(tasks, (0, 150), strict=True):
            answer = await task
            assert int(answer.resp) == 0
            assert bytes(answer.data) == held[at + delta : at + delta + 150]
    await edge
    back = bytearray()
    for offset in range(0, size, 4):
        dut.window_address.value = offset
        dut.window_read.value = 1
        await edge
        dut.window_read.value = 0
        await edge
        back += int(dut.window_data.value).to_bytes(4, "little")
    assert back == held
    record("done")


@cocotb.test()
async def engines(dut):
    """A fetch engine boots from the memory and a store writes to it; when, and what."""
    todo = stimulus()
    edge = await start(dut)
    await window_write(dut, FallingEdge(dut.clk), 0, bytes.fromhex(todo["contents"]))
    for name in ("parameters", "images", "image_pitch", "images_count", "products"):
        getattr(dut, name).value = todo[name]
    dut.store_count.value = todo["store_count"]
    dut.store_address.value = todo["store_address"]
    events = {"booted": None, "counted": [], "writes": [], "ended": None, "done": None}
    fetches = 0
    for cycle in range(20_000):
        dut.start.value = int(cycle == 0)
        if cycle:
            if int(dut.write_enable.value):
                events["writes"].append(hex(int(dut.write_data.value)))
            if int(dut.booted.value) and events["booted"] is None:
                events["booted"] = cycle
            if int(dut.fetches.value) != fetches:
                fetches += 1
                events["counted"].append(cycle)
            if int(dut.store_done.value):
                events["done"] = cycle
            if not int(dut.busy.value) and events["ended"] is None:
                events["ended"] = cycle
            if events["ended"] and events["done"]:
                break
        await edge
    back = bytearray()
    for offset in range(0, 2 * todo["store_count"] + 16, 4):
        dut.window_address.value = todo["store_address"] + offset
        dut.window_read.value = 1
        await edge
        dut.window_read.value = 0
        await edge
        back += int(dut.window_data.value).to_bytes(4, "little")
    events["stored"] = back.hex()
    record(events)
