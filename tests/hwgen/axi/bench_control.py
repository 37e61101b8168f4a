"""The simulation's side of the control port's tests: cocotbext-axi is the host."""

from __future__ import annotations

import random
from collections import deque

import cocotb
from bench_side import record, start, stimulus
from cocotb.triggers import FallingEdge, with_timeout
from cocotbext.axi import AxiLiteBus, AxiLiteMaster


def paused(rng, share):
    while True:
        yield rng.random() < share


class Core:
    """What the registers show of a core: debug words and a memory window, exactly as late as they
    may be, and the strobes as they come.
    """

    def __init__(self, dut):
        self.dut = dut
        self.strobes = []
        self.window = {}
        self.cycle = 0
        cocotb.start_soon(self.run())

    async def run(self):
        dut, edge = self.dut, FallingEdge(self.dut.clk)
        asked = deque([0] * 4, maxlen=4)
        read = deque([None] * 2, maxlen=2)
        while True:
            dut.debug_data.value = asked[0]
            memory, word = int(dut.debug_memory.value), int(dut.debug_word.value)
            # Distinct for every memory, word and slice that the test asks for.
            asked.append(memory << 29 | (word & 0xFFFFF) << 8 | int(dut.debug_slice.value))
            address = int(dut.window_address.value)
            if int(dut.window_enable.value):
                self.window[address] = int(dut.window_write.value)
            dut.window_data.value = 0xDEAD if read[0] is None else self.window.get(read[0], 0)
            read.append(address if int(dut.window_read.value) else None)
            for name in ("start", "resume", "soft_reset"):
                if int(getattr(dut, name).value):
                    self.strobes.append(name)
            await edge
            self.cycle += 1


@cocotb.test()
async def operations(dut):
    """A list of writes, reads and settings of inputs; what was read, and the strobes between."""
    todo = stimulus()
    rng = random.Random(todo["seed"])
    for name, value in todo["inputs"].items():
        getattr(dut, name).value = value
    await start(dut)
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "bus_"), dut.clk, dut.rst)
    for channel in (
        master.write_if.aw_channel,
        master.write_if.w_channel,
        master.write_if.b_channel,
        master.read_if.ar_channel,
        master.read_if.r_channel,
    ):
        channel.set_pause_generator(paused(rng, todo["pauses"]))
    core = Core(dut)
    edge = FallingEdge(dut.clk)
    found = []
    for kind, where, value in todo["operations"]:
        if kind == "write":
            answer = await master.write(where, bytes.fromhex(value))
            found.append(int(answer.resp))
        elif kind == "read":
            answer = await master.read(where, 4)
            found.append([int(answer.resp), int.from_bytes(answer.data, "little")])
        elif kind == "set":
            getattr(dut, where).value = value
            await edge
            await edge
            await edge
            found.append(int(dut.interrupt.value))
        elif kind == "get":
            found.append(int(getattr(dut, where).value))
        else:
            found.append(core.strobes)
            core.strobes = []
    record(found)


@cocotb.test()
async def both(dut):
    """Writes and reads at the same time; then the cycles of one read of each kind."""
    await start(dut)
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "bus_"), dut.clk, dut.rst)
    Core(dut)
    edge = FallingEdge(dut.clk)
    found = []

    # All at once: addresses and data of a write come while the answer before it still waits.
    rng = random.Random(stimulus()["seed"])
    master.write_if.b_channel.set_pause_generator(paused(rng, 0.7))
    master.read_if.r_channel.set_pause_generator(paused(rng, 0.7))
    writes = [
        cocotb.start_soon(master.write(0x028, value.to_bytes(4, "little"))) for value in range(20)
    ]
    reads = [cocotb.start_soon(master.read(0x028, 4)) for _ in range(20)]
    for task in writes:
        await with_timeout(task, 20_000, "ns")
    for task in reads:
        answer = await with_timeout(task, 20_000, "ns")
        found.append(int.from_bytes(answer.data, "little"))
    master.write_if.b_channel.set_pause_generator(paused(rng, 0))
    master.read_if.r_channel.set_pause_generator(paused(rng, 0))
    latencies = []

    async def measure():
        taken = None
        while len(latencies) < 4:
            await edge
            if taken is not None:
                taken += 1
                if int(dut.bus__rvalid.value):
                    latencies.append(taken)
                    taken = None
            elif int(dut.bus__arvalid.value) and int(dut.bus__arready.value):
                taken = 0

    watch = cocotb.start_soon(measure())
    for address in (0x028, 0x100, 0x400, 0x05C):
        await master.read(address, 4)
    await watch
    record({"found": found, "latencies": latencies})
