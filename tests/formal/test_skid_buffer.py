"""The skid buffer, for any payloads and any pauses of either side."""

from __future__ import annotations

from amaranth.hdl import Assert, Cover, Module, Mux, Signal

from vitruvius.hwgen.units.skid_buffer import SkidBuffer

from .prove import Proof, prove, refuted

WIDTH = 2  # the buffer never looks at a payload


class Slice(Proof):
    """One payload, any of those taken, is followed until it leaves."""

    def __init__(self, unit):
        super().__init__()
        self.unit = unit

    def state(self, m: Module) -> None:
        m.submodules.unit = unit = self.unit
        i, o = unit.i, unit.o
        m.d.comb += [
            i.valid.eq(self.free(1, "valid")),
            i.payload.eq(self.free(WIDTH, "payload")),
            o.ready.eq(self.free(1, "ready")),
        ]
        taken, given = i.valid & i.ready, o.valid & o.ready

        # Nothing lost, nothing doubled: what is inside is what came less what went.
        inside = Signal(2)
        m.d.sync += inside.eq(inside + taken - given)
        m.d.comb += [
            Assert(inside <= 2),
            Assert(o.valid == (inside != 0)),
            Assert(i.ready == (inside != 2)),
        ]

        # Order and content: the followed payload leaves behind those that were ahead of it.
        followed, value, ahead = Signal(), Signal(WIDTH), Signal(2)
        begin = taken & ~followed & self.free(1, "follow")
        with m.If(begin):
            m.d.sync += [followed.eq(1), value.eq(i.payload), ahead.eq(inside - given)]
        with m.If(followed & given):
            m.d.sync += ahead.eq(ahead - 1)
            with m.If(ahead == 0):
                m.d.comb += Assert(o.payload == value)
                m.d.sync += followed.eq(0)
        with m.If(followed):
            m.d.comb += [
                Assert(ahead < inside),
                Assert(Mux(ahead == 0, o.payload, unit._aside) == value),
            ]

        # Stable while it waits; and no pause of the buffer's own.
        waited, offered, could = Signal(), Signal(WIDTH), Signal(init=1)
        m.d.sync += [waited.eq(o.valid & ~o.ready), offered.eq(o.payload), could.eq(o.ready)]
        with m.If(waited):
            m.d.comb += Assert(o.valid & (o.payload == offered))
        with m.If(could):
            m.d.comb += Assert(i.ready)

        m.d.comb += [
            Cover((inside == 2) & followed & (ahead == 1)),
            Cover(taken & given & followed & (value == 3)),
        ]


class Doubling(SkidBuffer):
    """Forgets that the payload kept aside has left."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.o.ready & ~self.i.ready):
            m.d.sync += self.o.payload.eq(self.o.payload)
        return m


def test_no_loss_no_double_order_kept_and_stable(tmp_path):
    prove(Slice(SkidBuffer(WIDTH)), tmp_path, depth=3)


def test_a_buffer_that_gives_a_payload_twice_fails(tmp_path):
    refuted(Slice(Doubling(WIDTH)), tmp_path, depth=8)
