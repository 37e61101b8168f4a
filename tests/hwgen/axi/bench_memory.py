"""The simulation's side: a memory that follows the rules of `MemoryModel`, cycle by cycle.

As in the unit tests, everything is sampled and set at the falling edge in the middle of a cycle.
"""

from __future__ import annotations

import json
import os
from collections import deque
from pathlib import Path

from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge


async def start(dut):
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


class Contents:
    """Bytes by address: a few regions, given in hexadecimal."""

    def __init__(self, regions):
        self.regions = [(int(base), bytearray.fromhex(data)) for base, data in regions]

    def locate(self, address, size):
        for base, data in self.regions:
            if base <= address and address + size <= base + len(data):
                return data, address - base
        return None, 0

    def beat(self, address, size):
        data, offset = self.locate(address, size)
        return int.from_bytes(data[offset : offset + size], "little") if data else 0


class ReadMemory:
    """Drives AR and R of ``dut``; call ``step`` once in each cycle."""

    def __init__(self, dut, rules, contents, *, bad_bursts=()):
        self.latency, self.gap, self.outstanding = rules
        self.dut, self.contents = dut, contents
        self.bytes = len(dut.memory__rdata) // 8
        self.bad_bursts = set(bad_bursts)
        self.pending = deque()  # [cycle of acceptance, address, beats, beats given, index]
        self.last_beat = -(1 << 60)
        self.accepted = []  # (cycle, address, beats)
        self.hung = False
        self.waiting = None
        self.valid = None

    def _put(self, name, value):
        getattr(self.dut, f"memory__{name}").value = value

    def step(self, cycle):
        dut = self.dut
        ready = len(self.pending) < self.outstanding and not self.hung
        self._put("arready", int(ready))
        offered = None
        if int(dut.memory__arvalid.value):
            offered = (int(dut.memory__araddr.value), int(dut.memory__arlen.value) + 1)
        assert self.waiting is None or offered == self.waiting, "AR changed while it waited"
        self.waiting = offered if offered and not ready else None
        burst = self.pending[0] if self.pending else None
        give = (
            burst is not None
            and not self.hung
            and cycle >= burst[0] + self.latency
            and cycle > self.last_beat + self.gap
        )
        if give:
            _, address, beats, given, index = burst
            assert int(dut.memory__rready.value) == 1
            self._put("rdata", self.contents.beat(address + given * self.bytes, self.bytes))
            self._put("rresp", 2 if index in self.bad_bursts and given == beats - 1 else 0)
            self._put("rlast", int(given == beats - 1))
            burst[3] += 1
            self.last_beat = cycle
            if given == beats - 1:
                self.pending.popleft()
        if give != self.valid:
            self._put("rvalid", int(give))
            self.valid = give
        if offered and ready:
            address, beats = offered
            assert address % self.bytes == 0
            assert address // 4096 == (address + beats * self.bytes - 1) // 4096, "4 KB"
            self.pending.append([cycle, address, beats, 0, len(self.accepted)])
            self.accepted.append((cycle, address, beats))


class WriteMemory:
    """Drives AW, W and B of ``dut``; call ``step`` once in each cycle."""

    def __init__(self, dut, rules, contents, *, bad_bursts=()):
        self.latency, self.gap, self.outstanding = rules
        self.dut, self.contents = dut, contents
        self.bytes = len(dut.memory__wdata) // 8
        self.bad_bursts = set(bad_bursts)
        self.pending = deque()  # [address, beats, beats received, cycle of the last one, index]
        self.last_beat = -(1 << 60)
        self.accepted = []  # (cycle, address, beats)
        self.strobed = 0
        self.hung = False
        self.waiting = {"aw": None, "w": None}

    def _put(self, name, value):
        getattr(self.dut, f"memory__{name}").value = value

    def _offer(self, channel, names, ready):
        """What the channel offers, checked to stay until it is taken."""
        dut = self.dut
        self._put(f"{channel}ready", int(ready))
        offered = None
        if int(getattr(dut, f"memory__{channel}valid").value):
            offered = tuple(int(getattr(dut, f"memory__{name}").value) for name in names)
        waiting = self.waiting[channel]
        assert waiting is None or offered == waiting, f"{channel} changed while it waited"
        self.waiting[channel] = offered if offered and not ready else None
        return offered if ready else None

    def step(self, cycle):
        ready = len(self.pending) < self.outstanding and not self.hung
        address = self._offer("aw", ("awaddr", "awlen"), ready)
        ready = cycle > self.last_beat + self.gap and not self.hung
        beat = self._offer("w", ("wdata", "wstrb", "wlast"), ready)
        answered = (
            bool(self.pending)
            and not self.hung
            and self.pending[0][2] == self.pending[0][1]
            and cycle >= self.pending[0][3] + self.latency
        )
        self._put("bvalid", int(answered))
        if beat:
            word, strobes, last = beat
            burst = next(burst for burst in self.pending if burst[2] < burst[1])
            self._write(burst[0] + burst[2] * self.bytes, word, strobes)
            burst[2] += 1
            burst[3] = self.last_beat = cycle
            assert last == (burst[2] == burst[1])
        if answered:
            assert int(self.dut.memory__bready.value) == 1
            self._put("bresp", 3 if self.pending[0][4] in self.bad_bursts else 0)
            self.pending.popleft()
        if address:
            where, beats = address[0], address[1] + 1
            assert where % self.bytes == 0
            assert where // 4096 == (where + beats * self.bytes - 1) // 4096, "4 KB"
            self.pending.append([where, beats, 0, 0, len(self.accepted)])
            self.accepted.append((cycle, where, beats))

    def _write(self, address, word, strobes):
        data, offset = self.contents.locate(address, self.bytes)
        for lane in range(self.bytes):
            if strobes >> lane & 1:
                self.strobed += 1
                data[offset + lane] = word >> 8 * lane & 255
