"""Fetch engine, store, watchdog and monitor together on one port, against cocotbext-axi's memory.

Expected words and bytes come from the memory's contents alone.
"""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vitruvius.hwgen.axi.bus import ReadSignature, WriteSignature, connect_flat, flat_members
from vitruvius.hwgen.axi.descriptor import (
    DESCRIPTOR_BITS,
    Descriptor,
    Header,
    Opcode,
    Space,
    Target,
    beats_per_word,
    encode,
)
from vitruvius.hwgen.axi.fetch import FetchEngine
from vitruvius.hwgen.axi.protocol import ProtocolMonitor
from vitruvius.hwgen.axi.store import ResultStore
from vitruvius.hwgen.axi.watchdog import Watchdog

MACHINE = 0x600DF00D
COLS = 6
INPUTS = ("parameters", "images", "image_pitch", "count", "products", "reload")


class Bench(wiring.Component):
    """Row r of the results holds r * 6 + column; a start starts both engines."""

    def __init__(self, port_bits):
        self.port_bits = port_bits
        self.engine = FetchEngine(
            port_bits=port_bits,
            widths={5: 280},
            depths={0: 64, 5: 256},
            machine_digest=MACHINE,
            outstanding=5,
        )
        self.store = ResultStore(port_bits=port_bits, cols=COLS, rows=256)
        super().__init__(
            {
                **flat_members("memory", ReadSignature(port_bits), WriteSignature(port_bits)),
                **{name: self.engine.signature.members[name] for name in INPUTS},
                "start": In(1),
                "soft_reset": In(1),
                "store_address": In(64),
                "store_pitch": In(32),
                "store_count": In(24),
                "store_first": In(1, init=1),
                "watchdog_limit": In(32),
                "write_enable": Out(6),
                "write_data": Out(self.engine.parts * port_bits),
                "fetches": Out(24),
                "busy": Out(1),
                "store_done": Out(1),
                "broken": Out(10),
                "waiting": Out(1),
                "expired": Out(1),
                "expired_address": Out(64),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = engine = self.engine
        m.submodules.store = store = self.store
        m.submodules.monitor = monitor = ProtocolMonitor(port_bits=self.port_bits)
        m.submodules.watchdog = watchdog = Watchdog()
        connect_flat(m, self, "memory", engine.memory)
        connect_flat(m, self, "memory", store.memory)
        monitor.watch(m, "read", engine.memory)
        monitor.watch(m, "write", store.memory)
        for name in INPUTS:
            m.d.comb += getattr(engine, name).eq(getattr(self, name))
        for name in ("write_enable", "write_data", "fetches"):
            m.d.comb += getattr(self, name).eq(getattr(engine, name))
        m.d.comb += [
            engine.start.eq(self.start),
            engine.soft_reset.eq(self.soft_reset),
            store.start.eq(self.start),
            store.soft_reset.eq(self.soft_reset),
            store.first.eq(self.store_first),
            store.results_address.eq(self.store_address),
            store.pitch.eq(self.store_pitch),
            store.count.eq(self.store_count),
            self.store_done.eq(store.done),
            self.busy.eq(engine.busy | store.busy),
            watchdog.limit.eq(self.watchdog_limit),
            watchdog.clear.eq(self.soft_reset),
            self.expired.eq(watchdog.expired),
            self.expired_address.eq(watchdog.address),
            self.waiting.eq(engine.outstanding | store.outstanding),
        ]
        for side, unit in (("read", engine), ("write", store)):
            m.d.comb += [
                getattr(watchdog, f"{side}_outstanding").eq(unit.outstanding),
                getattr(watchdog, f"{side}_beat").eq(unit.beat),
                getattr(watchdog, f"{side}_address").eq(unit.waiting_address),
            ]
        with m.If(store.row_enable):
            for lane in range(COLS):
                word = store.row_data.word_select(lane, 16)
                m.d.sync += word.eq(store.row_address * COLS + lane)
        for rule in range(10):
            with m.If(monitor.violations[rule]):
                m.d.sync += self.broken[rule].eq(1)
        return m


@pytest.mark.parametrize("port_bits", [64, 512])
def test_a_foreign_memory_with_random_pauses(bench, rng, port_bits):
    size = port_bits // 8
    per_word = -(-280 // port_bits)
    body = [
        Descriptor(
            Opcode.FETCH, Target.WEIGHT, Space.IMAGE, wait=True, threshold=rng.randrange(5),
            offset=rng.randrange(100), beats=per_word * rng.choice([1, 2, 30]),
        )
        for _ in range(4)
    ]  # fmt: skip
    boot = [Descriptor(Opcode.FETCH, Target.WEIGHT, offset=3, beats=50 * per_word)]
    program = [*boot, Descriptor(Opcode.STOP), *body, Descriptor(Opcode.LOOP)]
    word = beats_per_word(DESCRIPTOR_BITS, port_bits) * size
    code = b"".join(encode(item).to_bytes(word, "little") for item in program)
    contents = bytearray(rng.randbytes(40_960))
    contents[:64] = Header(MACHINE, 1, len(code) // size, 64).to_bytes()
    contents[64 * size : 64 * size + len(code)] = code
    expected = bytearray(contents) + bytearray(65536 - len(contents))
    runs = []
    for index, pauses in enumerate((0.0, 0.3, 0.8)):
        count = rng.choice([7, 150, 601])
        base, pitch = 49152, 40 * size
        inputs = {
            "parameters": 0, "images": 8192, "image_pitch": 48 * size, "count": index + 1,
            "products": 5, "store_address": base, "store_pitch": pitch, "store_count": count,
            "store_first": int(index == 0),
        }  # fmt: skip
        runs.append({"pauses": pauses, "inputs": inputs})
        codes = b"".join(code.to_bytes(2, "little") for code in range(count))
        at = base + index * pitch
        expected[at : at + len(codes)] = codes
    job = {"seed": rng.randrange(1 << 30), "contents": contents.hex(), "runs": runs}
    result = bench(Bench(port_bits), "bench_ports", "traffic", job)

    mask = (1 << 280) - 1
    for index, seen in enumerate(result["runs"]):
        addresses = []
        if index == 0:
            addresses += [(3 + word * per_word) * size for word in range(50)]
        for image in range(index + 1):
            for item in body:
                at = 8192 + (image * 48 + item.offset) * size
                addresses += [at + word for word in range(0, item.beats * size, per_word * size)]
        words = [
            int.from_bytes(contents[at : at + per_word * size], "little") & mask for at in addresses
        ]
        fetched = [int(word, 16) & mask for word in seen["writes"]]
        assert fetched[len(fetched) - len(words) :] == words
        assert len(fetched) - len(words) == (len(program) if index == 0 else 0)
        assert seen["fetches"] == (index + 1) * len(body)
        assert seen["dones"] == 1
    assert bytes.fromhex(result["memory"]) == expected


def test_a_memory_that_never_answers(bench):
    """The store asks for its first burst one cycle before the fetch engine does. An accepted
    address is a step forward for a write; for a read only a beat is.
    """
    cases = [
        # limit, arready, awready, codes to store; cycles of waiting, address
        (37, 0, 0, 9, [37, 0x9000]),
        (37, 1, 0, 9, [37, 0x9000]),
        (37, 0, 1, 9, [38, 0x7000]),
        (37, 0, 0, 0, [37, 0x7000]),
        (1, 1, 0, 0, [1, 0x7000]),
        (0, 0, 0, 9, None),
    ]
    job = {
        "parameters": 0x7000,
        "store_address": 0x9000,
        "cases": [case[:4] for case in cases],
    }
    assert bench(Bench(64), "bench_ports", "watchdog", job) == [case[4] for case in cases]
