"""The simulation's side: a memory that follows the rules of `MemoryModel`, cycle by cycle."""

from __future__ import annotations

from collections import deque


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


class Channels:
    """What both sides of the memory have. Bursts in ``bad_bursts`` (by index) end with an error;
    ``hung``: takes and gives nothing while it is set. ``accepted``: (cycle, address, beats).
    """

    def __init__(self, dut, rules, contents, *, data, bad_bursts):
        self.latency, self.gap, self.outstanding = rules
        self.dut, self.contents = dut, contents
        self.bytes = len(getattr(dut, f"memory__{data}")) // 8
        self.bad_bursts = set(bad_bursts)
        self.pending = deque()
        self.last_beat = -(1 << 60)
        self.accepted = []
        self.hung = False
        self.waiting = {}

    def put(self, name, value):
        getattr(self.dut, f"memory__{name}").value = value

    def get(self, name):
        return int(getattr(self.dut, f"memory__{name}").value)

    def offer(self, channel, names, ready):
        """What is taken at ``channel`` in this cycle; an offer must stay until it is."""
        self.put(f"{channel}ready", int(ready))
        offered = tuple(map(self.get, names)) if self.get(f"{channel}valid") else None
        waiting = self.waiting.get(channel)
        assert waiting is None or offered == waiting, f"{channel} changed while it waited"
        self.waiting[channel] = None if ready else offered
        return offered if ready else None

    def burst(self, channel):
        """(address, beats) of a burst that is taken at an address channel in this cycle."""
        ready = len(self.pending) < self.outstanding and not self.hung
        return self.offer(channel, (f"{channel}addr", f"{channel}len"), ready)

    def accept(self, cycle, burst):
        """Writes a burst down; its address and beats."""
        address, beats = burst[0], burst[1] + 1
        assert address % self.bytes == 0
        assert address // 4096 == (address + beats * self.bytes - 1) // 4096, "4 KB"
        self.accepted.append((cycle, address, beats))
        return address, beats


class ReadMemory(Channels):
    """Drives AR and R of ``dut``; call ``step`` once in each cycle.

    ``pending``: [cycle of acceptance, address, beats, beats given, index] of each burst.
    """

    def __init__(self, dut, rules, contents, *, bad_bursts=()):
        super().__init__(dut, rules, contents, data="rdata", bad_bursts=bad_bursts)
        self.valid = None

    def step(self, cycle):
        offered = self.burst("ar")
        burst = self.pending[0] if self.pending else None
        give = (
            burst is not None
            and not self.hung
            and cycle >= burst[0] + self.latency
            and cycle > self.last_beat + self.gap
        )
        if give:
            _, address, beats, given, index = burst
            assert self.get("rready") == 1
            self.put("rdata", self.contents.beat(address + given * self.bytes, self.bytes))
            self.put("rresp", 2 if index in self.bad_bursts and given == beats - 1 else 0)
            self.put("rlast", int(given == beats - 1))
            burst[3] += 1
            self.last_beat = cycle
            if given == beats - 1:
                self.pending.popleft()
        if give != self.valid:
            self.put("rvalid", int(give))
            self.valid = give
        if offered:
            index = len(self.accepted)
            self.pending.append([cycle, *self.accept(cycle, offered), 0, index])


class WriteMemory(Channels):
    """Drives AW, W and B of ``dut``; call ``step`` once in each cycle.

    ``pending``: [address, beats, beats received, cycle of the last one, index] of each burst;
    ``strobed``: bytes written.
    """

    def __init__(self, dut, rules, contents, *, bad_bursts=()):
        super().__init__(dut, rules, contents, data="wdata", bad_bursts=bad_bursts)
        self.strobed = 0

    def step(self, cycle):
        offered = self.burst("aw")
        ready = cycle > self.last_beat + self.gap and not self.hung
        beat = self.offer("w", ("wdata", "wstrb", "wlast"), ready)
        answered = (
            bool(self.pending)
            and not self.hung
            and self.pending[0][2] == self.pending[0][1]
            and cycle >= self.pending[0][3] + self.latency
        )
        self.put("bvalid", int(answered))
        if beat:
            word, strobes, last = beat
            burst = next(burst for burst in self.pending if burst[2] < burst[1])
            self._write(burst[0] + burst[2] * self.bytes, word, strobes)
            burst[2] += 1
            burst[3] = self.last_beat = cycle
            assert last == (burst[2] == burst[1])
        if answered:
            assert self.get("bready") == 1
            self.put("bresp", 3 if self.pending[0][4] in self.bad_bursts else 0)
            self.pending.popleft()
        if offered:
            index = len(self.accepted)
            self.pending.append([*self.accept(cycle, offered), 0, 0, index])

    def _write(self, address, word, strobes):
        data, offset = self.contents.locate(address, self.bytes)
        for lane in range(self.bytes):
            if strobes >> lane & 1:
                self.strobed += 1
                data[offset + lane] = word >> 8 * lane & 255
