"""Amaranth's queues, as softmax, LayerNorm and the bus side use them: any traffic, any pauses."""

from __future__ import annotations

import pytest
from amaranth.hdl import Assert, Cover, Module, Mux, Signal, Value
from amaranth.lib import fifo

from .prove import Proof, prove, refuted

WIDTH = 2  # a queue never looks at what it holds


class Opened(fifo.SyncFIFO):
    """A queue that shows its memory: ``held`` is the word at ``place``, counted from the oldest."""

    def __init__(self, depth: int) -> None:
        super().__init__(width=WIDTH, depth=depth)
        self.words = depth
        self.inner_level = self.level
        self.place, self.held = Signal(range(depth)), Signal(WIDTH)
        self.oldest, self.newest = Signal(range(depth)), Signal(range(depth))

    def elaborate(self, platform: object) -> Module:
        m = super().elaborate(platform)
        return opened(self, m)


class OpenedBuffered(fifo.SyncFIFOBuffered):
    """The same with an output register, behind a memory of one word less."""

    def __init__(self, depth: int) -> None:
        super().__init__(width=WIDTH, depth=depth)
        self.words = depth - 1
        self.inner_level = Signal(range(depth + 1))
        self.place, self.held = Signal(range(depth)), Signal(WIDTH)
        self.oldest, self.newest = Signal(range(depth)), Signal(range(depth))

    def elaborate(self, platform: object) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self.inner_level.eq(self.level - self.r_rdy)
        return opened(self, m)


def opened(queue: Opened | OpenedBuffered, m: Module) -> Module:
    storage = m.submodules.storage
    m.d.comb += [
        queue.oldest.eq(storage.read_ports[0].addr),
        queue.newest.eq(storage.write_ports[0].addr),
    ]
    probe = storage.read_port(domain="comb")
    m.d.comb += [probe.addr.eq(around(queue.oldest + queue.place, queue.words))]
    m.d.comb += queue.held.eq(probe.data)
    return m


def around(value: Value, words: int) -> Value:
    return Mux(value >= words, value - words, value)


class Queue(Proof):
    """One word, any of those written, is followed until it is read."""

    def __init__(self, queue: Opened | OpenedBuffered) -> None:
        super().__init__()
        self.queue = queue

    def state(self, m: Module) -> None:
        m.submodules.queue = queue = self.queue
        buffered = isinstance(queue, OpenedBuffered)
        m.d.comb += [
            queue.w_en.eq(self.free(1, "write")),
            queue.w_data.eq(self.free(WIDTH, "data")),
            queue.r_en.eq(self.free(1, "read")),
        ]
        written, read = queue.w_en & queue.w_rdy, queue.r_en & queue.r_rdy

        # Nothing lost, nothing doubled: the level is what was written less what was read.
        count = Signal(range(queue.depth + 2))
        m.d.sync += count.eq(count + written - read)
        m.d.comb += [
            Assert(count <= queue.depth),
            Assert(queue.level == count),
            Assert(~queue.r_rdy | (count != 0)),
            Assert(queue.w_rdy | (count >= queue.words)),
            # What the memory's addresses say of its level.
            Assert(queue.inner_level <= queue.words),
            Assert(queue.oldest < queue.words),
            Assert(queue.newest == around(queue.oldest + queue.inner_level, queue.words)),
        ]
        # A word that is there can be read: at once, or a cycle later from an output register.
        waited = Signal()
        m.d.sync += waited.eq((count != 0) & ~queue.r_rdy)
        if buffered:
            m.d.comb += Assert(~waited | queue.r_rdy)
        else:
            m.d.comb += Assert(queue.r_rdy == (count != 0))

        # Order and content: the followed word is read behind those that were ahead of it.
        followed, value = Signal(), Signal(WIDTH)
        ahead = Signal(range(queue.depth + 1))
        with m.If(written & ~followed & self.free(1, "follow")):
            m.d.sync += [followed.eq(1), value.eq(queue.w_data), ahead.eq(count - read)]
        at_output = queue.r_rdy if buffered else 0
        m.d.comb += queue.place.eq(ahead - at_output)
        with m.If(followed):
            m.d.comb += Assert(ahead < count)
            with m.If(at_output & (ahead == 0)):
                m.d.comb += Assert(queue.r_data == value)
            with m.Else():
                m.d.comb += Assert(queue.held == value)
            with m.If(read):
                m.d.sync += ahead.eq(ahead - 1)
                with m.If(ahead == 0):
                    m.d.comb += Assert(queue.r_data == value)
                    m.d.sync += followed.eq(0)

        # A word waits unchanged.
        held, waiting = Signal(WIDTH), Signal()
        m.d.sync += [waiting.eq(queue.r_rdy & ~queue.r_en), held.eq(queue.r_data)]
        with m.If(waiting):
            m.d.comb += Assert(queue.r_rdy & (queue.r_data == held))

        full = Signal()
        with m.If(count == queue.depth):
            m.d.sync += full.eq(1)
        m.d.comb += Cover(full & followed & read & (ahead == 0) & (value == 3))


@pytest.mark.parametrize(
    ("kind", "depth"),
    [
        (Opened, 3),
        (OpenedBuffered, 4),
        pytest.param(Opened, 4, marks=pytest.mark.slow),
        pytest.param(OpenedBuffered, 3, marks=pytest.mark.slow),
        pytest.param(OpenedBuffered, 5, marks=pytest.mark.slow),
    ],
)
def test_a_queue_keeps_every_word_once_and_in_order(tmp_path, kind, depth):
    prove(Queue(kind(depth)), tmp_path, depth=12)


@pytest.mark.parametrize(("kind", "depth"), [(Opened, 3), (OpenedBuffered, 4)])
def test_an_address_that_does_not_go_around_is_found(tmp_path, monkeypatch, kind, depth):
    """Of a memory of three words, the addresses count to four."""
    monkeypatch.setattr(fifo, "_incr", lambda signal, modulo: signal + 1)
    refuted(Queue(kind(depth)), tmp_path, depth=12)
