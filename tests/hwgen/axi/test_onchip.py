"""The on-chip memory: a memory to a foreign master, and the cycles that the timelines assume."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

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
from vitruvius.hwgen.axi.fetch_timeline import FetchTimeline
from vitruvius.hwgen.axi.onchip import ON_CHIP_MODEL, OnChipMemory
from vitruvius.hwgen.axi.store import ResultStore, StoreTimeline

MACHINE = 0x600DF00D
COLS = 8


@pytest.mark.parametrize(("port_bits", "pauses"), [(64, 0.4), (256, 0.0)])
def test_is_a_memory_to_a_foreign_master(bench, rng, port_bits, pauses):
    memory = OnChipMemory(size=8192, port_bits=port_bits)
    job = {"seed": rng.randrange(1 << 30), "size": 8192, "pauses": pauses, "rounds": 25}
    assert bench(memory, "bench_onchip", "traffic", job) == "done"


class Bench(wiring.Component):
    """Fetch engine and store on an on-chip memory; row r of the results holds r * 8 + column."""

    def __init__(self):
        self.engine = FetchEngine(
            port_bits=128,
            widths={5: 280},
            depths={0: 32, 5: 256},
            machine_digest=MACHINE,
            outstanding=4,
        )
        self.memory = OnChipMemory(size=16384, port_bits=128)
        self.store = ResultStore(port_bits=128, cols=COLS, rows=256)
        super().__init__(
            {
                **{name: In(64) for name in ("parameters", "images", "store_address")},
                **{name: In(32) for name in ("image_pitch", "images_count", "store_count")},
                "start": In(1),
                "products": In(24),
                "window_address": In(32),
                "window_write": In(32),
                "window_enable": In(1),
                "window_read": In(1),
                "window_data": Out(32),
                "write_enable": Out(6),
                "write_data": Out(512),
                "fetches": Out(24),
                "booted": Out(1),
                "busy": Out(1),
                "store_done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = engine = self.engine
        m.submodules.memory = memory = self.memory
        m.submodules.store = store = self.store
        wiring.connect(m, engine.memory, memory.read)
        wiring.connect(m, store.memory, memory.write)
        for name in ("start", "parameters", "images", "image_pitch", "products"):
            m.d.comb += getattr(engine, name).eq(getattr(self, name))
        for name in ("window_address", "window_write", "window_enable", "window_read"):
            m.d.comb += getattr(memory, name).eq(getattr(self, name))
        for name in ("write_enable", "write_data", "fetches", "booted", "busy"):
            m.d.comb += getattr(self, name).eq(getattr(engine, name))
        m.d.comb += [
            engine.count.eq(self.images_count),
            self.window_data.eq(memory.window_data),
            store.start.eq(self.start),
            store.first.eq(1),
            store.results_address.eq(self.store_address),
            store.count.eq(self.store_count),
            self.store_done.eq(store.done),
        ]
        for lane in range(COLS):
            word = store.row_data.word_select(lane, 16)
            with m.If(store.row_enable):
                m.d.sync += word.eq(store.row_address * COLS + lane)
        return m


def test_engines_see_the_memory_model(bench, rng):
    body = [
        Descriptor(
            Opcode.FETCH, Target.WEIGHT, Space.IMAGE, offset=rng.randrange(200),
            beats=3 * rng.choice([1, 2, 10, 60]), destination=0,
        )
        for _ in range(12)
    ]  # fmt: skip
    boot = [Descriptor(Opcode.FETCH, Target.WEIGHT, offset=3, beats=300)]
    program = [*boot, Descriptor(Opcode.STOP), *body, Descriptor(Opcode.LOOP)]
    contents = bytearray(rng.randbytes(12288))
    word = beats_per_word(DESCRIPTOR_BITS, 128) * 16
    code = b"".join(encode(item).to_bytes(word, "little") for item in program)
    contents[:64] = Header(MACHINE, 1, len(code) // 16, 20).to_bytes()
    contents[320 : 320 + len(code)] = code
    job = {
        "contents": contents.hex(), "parameters": 0, "images": 4096, "image_pitch": 1024,
        "images_count": 3, "products": 0, "store_address": 12288, "store_count": 601,
    }  # fmt: skip
    seen = bench(Bench(), "bench_onchip", "engines", job)

    timeline = FetchTimeline(ON_CHIP_MODEL, port_bits=128, outstanding=4)
    assert seen["booted"] == timeline.boot(0, 0, 20, len(code) // 16, boot)
    counted, ended, words = [], None, []
    for image in range(3):
        for item in body:
            at = 4096 + 1024 * image + 16 * item.offset
            counted.append(timeline.fetch(-1, at, item.beats))
            words += [(at + 48 * index) for index in range(item.beats // 3)]
        ended = timeline.loop()
    assert seen["counted"] == counted
    assert seen["ended"] == ended
    words = [3 * 16 + 48 * index for index in range(100)] + words
    mask = (1 << 280) - 1
    fetched = [int(word, 16) & mask for word in seen["writes"][len(program) :]]
    assert fetched == [int.from_bytes(contents[at : at + 48], "little") & mask for at in words]

    store = StoreTimeline(ON_CHIP_MODEL, port_bits=128, cols=COLS)
    assert seen["done"] == store.store(0, 12288, 601)
    stored = bytes.fromhex(seen["stored"])
    assert stored[: 2 * 601] == b"".join(code.to_bytes(2, "little") for code in range(601))


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match=r"size: expected a multiple of 16 bytes, .*, got 40"):
        OnChipMemory(size=40, port_bits=128)
    with pytest.raises(ValueError, match=r"size: expected a multiple of 64 bytes, .*, got 64"):
        OnChipMemory(size=64, port_bits=512)
