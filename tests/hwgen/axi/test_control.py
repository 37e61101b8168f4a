"""The registers, driven by cocotbext-axi; expectations are written from the table alone."""

import pytest

from vitruvius.hwgen.axi.control import DEBUG_LATENCY, ControlPort

MACHINE = 0x89ABCDEF
COUNTERS = [f"count_{number}" for number in range(5)]
WRITABLE = {
    "parameters": (0x010, 0x014), "images": (0x018, 0x01C), "results": (0x020, 0x024),
    "count": (0x028,), "image_pitch": (0x02C,), "result_pitch": (0x030,), "task": (0x034,),
    "watchdog": (0x040,), "break_product": (0x04C,), "options": (0x054,),
}  # fmt: skip


def port():
    return ControlPort(counters=COUNTERS, machine_digest=MACHINE, memory_window=True)


def word(value):
    return value.to_bytes(4, "little").hex()


class Script:
    """Operations and what each must give."""

    def __init__(self):
        self.operations, self.expected = [], []

    def add(self, kind, where=None, value=None, *, gives):
        self.operations.append((kind, where, value))
        self.expected.append(gives)

    def write(self, address, value):
        self.add("write", address, word(value), gives=0)

    def read(self, address, value):
        self.add("read", address, gives=[0, value])

    def get(self, name, value):
        self.add("get", name, gives=value)

    def set(self, name, value, interrupt):
        self.add("set", name, value, gives=interrupt)

    def strobes(self, *names):
        self.add("strobes", gives=list(names))

    def play(self, bench, rng, inputs=None, pauses=0.5):
        job = {
            "seed": rng.randrange(1 << 30),
            "inputs": inputs or {},
            "pauses": pauses,
            "operations": self.operations,
        }
        found = bench(port(), "bench_control", "operations", job)
        for operation, got, wanted in zip(self.operations, found, self.expected, strict=True):
            assert got == wanted, operation


def test_registers_hold_what_is_written(bench, rng):
    script = Script()
    values = {address: 0 for addresses in WRITABLE.values() for address in addresses}
    values |= {0x050: 0, 0x058: 0}
    for _ in range(150):
        address = rng.choice(sorted(values))
        if rng.random() < 0.5:
            values[address] = rng.randrange(1 << 32)
            script.write(address, values[address])
        elif rng.random() < 0.3:
            # Some bytes only: cocotbext-axi strobes those.
            first, size = rng.choice([(0, 1), (1, 1), (1, 2), (2, 2), (3, 1)])
            part = rng.randbytes(size)
            script.add("write", address + first, part.hex(), gives=0)
            old = bytearray(values[address].to_bytes(4, "little"))
            old[first : first + size] = part
            values[address] = int.from_bytes(old, "little")
        else:
            script.read(address, values[address])
    for name, addresses in WRITABLE.items():
        value = sum(values[address] << 32 * high for high, address in enumerate(addresses))
        script.get(name, value)
    script.strobes()
    script.play(bench, rng)


def test_what_the_core_shows_is_read(bench, rng):
    counts = [rng.randrange(1 << 32) for _ in COUNTERS]
    inputs = {
        "counters": sum(value << 32 * index for index, value in enumerate(counts)),
        "program_digest": 0xCAFE0123,
        "error_address": 0xFEDCBA9876543210,
        "busy": 1,
        "paused": 1,
        "product": 0xBEEF,
    }
    script = Script()
    script.read(0x004, 0xBEEF0005)
    for index, value in enumerate(counts):
        script.read(0x100 + 4 * index, value)
    script.read(0x044, MACHINE)
    script.read(0x048, 0xCAFE0123)
    script.read(0x008, 0x76543210)
    script.read(0x00C, 0xFEDCBA98)
    # Read-only registers stay; addresses without a register read 0 and take everything.
    for address in (0x004, 0x044, 0x100, 0x07C, 0x114, 0x200, 0x3FC, 0x800, 0xFFFC):
        script.write(address, 0xFFFFFFFF)
    for address in (0x000, 0x07C, 0x114, 0x1FC, 0x200, 0x3FC, 0x800, 0x1028, 0xFFFC):
        script.read(address, 0)
    script.read(0x044, MACHINE)
    script.strobes()
    for _ in range(12):
        memory, address, part = rng.randrange(8), rng.randrange(1 << 20), rng.randrange(256)
        script.write(0x050, memory << 24 | address)
        script.read(0x400 + 4 * part, memory << 29 | address << 8 | part)
    script.play(bench, rng, inputs)


def test_strobes_and_a_start_while_busy(bench, rng):
    script = Script()
    script.write(0x000, 1)
    script.strobes("start")
    script.set("busy", 1, 0)
    script.read(0x004, 0x001)
    script.write(0x000, 1)
    script.strobes()
    script.read(0x004, 0x051)
    script.write(0x000, 2)
    script.strobes("resume")
    script.read(0x004, 0x051)
    script.set("error", 1, 0)
    script.read(0x004, 0x011)
    script.set("error", 0, 0)
    script.set("busy", 0, 0)
    script.write(0x000, 1)
    script.strobes("start")
    script.read(0x004, 0x000)
    script.set("busy", 1, 0)
    script.write(0x000, 1)
    script.read(0x004, 0x051)
    script.write(0x000, 4)
    script.strobes("soft_reset")
    script.read(0x004, 0x001)
    script.write(0x000, 5)
    script.strobes("start", "soft_reset")
    # A write of the other bytes of CONTROL gives no strobe.
    script.add("write", 0x001, "ff", gives=0)
    script.strobes()
    script.play(bench, rng)


@pytest.mark.parametrize("event", ["done", "paused", "error"])
def test_interrupt(bench, rng, event):
    level = 3 if event == "error" else 1
    script = Script()
    script.set(event, level, 0)
    script.read(0x038, 1)
    script.write(0x03C, 1)
    script.get("interrupt", 1)
    script.write(0x038, 0)
    script.get("interrupt", 1)
    script.write(0x038, 1)
    script.get("interrupt", 0)
    script.read(0x038, 0)
    script.set(event, level, 0)
    script.set(event, 0, 0)
    script.set(event, level, 1)
    script.write(0x03C, 0)
    script.get("interrupt", 0)
    script.play(bench, rng, pauses=0.2)


def test_the_window_advances(bench, rng):
    script = Script()
    values = [rng.randrange(1 << 32) for _ in range(12)]
    script.write(0x058, 64)
    for value in values:
        script.write(0x05C, value)
    script.read(0x058, 64 + 4 * len(values))
    script.write(0x058, 64)
    for value in values:
        script.read(0x05C, value)
    script.read(0x058, 64 + 4 * len(values))
    script.play(bench, rng)


def test_reads_and_writes_at_once_and_the_cycles_of_a_read(bench, rng):
    result = bench(port(), "bench_control", "both", {"seed": rng.randrange(1 << 30)})
    assert result["found"] == sorted(result["found"])
    assert result["found"][-1] > 10
    assert result["latencies"] == [2, 2, 2 + DEBUG_LATENCY, 4]


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="counters: expected at most 64, got 65"):
        ControlPort(counters=[f"c{number}" for number in range(65)], machine_digest=0)
    with pytest.raises(ValueError, match="counters: expected names of their own, got COUNT twice"):
        ControlPort(counters=["count"], machine_digest=0)
    with pytest.raises(ValueError, match="machine_digest: expected 32 bits, got -1"):
        ControlPort(counters=[], machine_digest=-1)
