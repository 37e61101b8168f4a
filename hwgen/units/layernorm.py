"""LayerNorm: the lane that normalises, and a unit made of moments, scale and lanes.

The accelerator uses the parts: it gathers moments while the residual stream is written and lets
scales run ahead of the rows. `LayerNorm` is the plain composition.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...models.integer.layernorm import MAX_WIDTH
from ..delay import delayed
from .norm_scale import (
    CODE_BITS,
    EPSILON_BITS,
    NormScale,
    RowMoments,
    check_width,
    moments_layout,
    scale_layout,
)
from .rounding import saturated, shift_parts

__all__ = [
    "LayerNorm",
    "NormLane",
    "NormScale",
    "RowMoments",
    "cycles",
    "moments_layout",
    "scale_layout",
]


def cycles(*, width: int, lanes: int, rows: int) -> int:
    """Cycles from `LayerNorm`'s first input transfer to its last output transfer, nothing stalling.

    A row is taken, scaled and read back; the next is taken when it has been read.
    """
    chunks = -(-width // lanes)
    period = chunks + RowMoments.LATENCY + 1 + NormScale.cycles() + chunks
    return rows * period - 1 + LayerNorm.TAIL


class NormLane(wiring.Component):
    """One value normalised and scaled to int8, one a cycle, a fixed pipeline.

    ``z = saturate16(round((width * x - total) * mantissa / 2**shift))``, then
    ``result = saturate8(round((z * gain + offset) / 2**affine_shift))``; both round to even.
    No flow control: the result of the inputs in cycle t stands at the output in cycle
    t + ``LATENCY``. Stages: centre, multiply, shift, saturate, affine, shift, saturate.
    Golden: `models.integer.layernorm`.

    Members
    -------
    x : In, signed 16
    width, total, mantissa, shift : In, of the row: length, sum, and scale
    gain, offset, affine_shift : In, signed 16, signed 32 and unsigned 5
    result : Out, signed 8
    """

    LATENCY = 7

    def __init__(self) -> None:
        scale = scale_layout()
        super().__init__(
            {
                "x": In(signed(CODE_BITS)),
                "width": In(range(MAX_WIDTH + 1)),
                "total": In(scale["total"].shape),
                "mantissa": In(scale["mantissa"].shape),
                "shift": In(scale["shift"].shape),
                "gain": In(signed(16)),
                "offset": In(signed(32)),
                "affine_shift": In(unsigned(5)),
                "result": Out(signed(8)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        centred = Signal(signed(len(self.width) + CODE_BITS + 1))
        mantissa, shift1, shift2 = Signal(16), Signal(6), Signal(6)
        product = Signal(signed(len(centred) + 16))
        m.d.sync += [
            centred.eq(self.width * self.x - self.total),
            mantissa.eq(self.mantissa),
            shift1.eq(self.shift),
            product.eq(centred * mantissa),
            shift2.eq(shift1),
        ]
        normal = self._rounded(m, product, shift2, bits=16, name="normal")
        z = Signal(signed(16))
        m.d.sync += z.eq(normal)

        gain, offset, affine_shift = self.gain, self.offset, self.affine_shift
        for stage in range(4):
            held = (
                Signal.like(self.gain, name=f"gain_{stage}"),
                Signal.like(self.offset, name=f"offset_{stage}"),
                Signal.like(self.affine_shift, name=f"affine_shift_{stage}"),
            )
            m.d.sync += [held[0].eq(gain), held[1].eq(offset), held[2].eq(affine_shift)]
            gain, offset, affine_shift = held
        affine, shift5 = Signal(signed(34)), Signal(5)
        m.d.sync += [affine.eq(z * gain + offset), shift5.eq(affine_shift)]
        m.d.sync += self.result.eq(self._rounded(m, affine, shift5, bits=8, name="scaled"))
        return m

    @staticmethod
    def _rounded(m: Module, value: Value, shift: Value, *, bits: int, name: str) -> Signal:
        """``value / 2**shift`` rounded and saturated: a register after the shift, none after."""
        floor = Signal(signed(len(value)), name=f"{name}_floor")
        increment = Signal(name=f"{name}_increment")
        parts = shift_parts(value, shift)
        m.d.sync += [floor.eq(parts[0]), increment.eq(parts[1])]
        rounded = Signal(signed(len(value) + 1), name=f"{name}_rounded")
        m.d.comb += rounded.eq(floor + increment)
        return saturated(m, rounded, bits, name=name)


class LayerNorm(wiring.Component):
    """LayerNorm of rows of 16-bit codes to int8, ``lanes`` values a cycle, with back-pressure.

    A row comes in as ceil(width / lanes) chunks and leaves as as many. Void lanes of the last chunk
    are ignored, and leave as 0. Golden: `models.integer.layernorm.layernorm`.

    Parameters
    ----------
    lanes : int
        Values per chunk, at least 1.
    max_width : int
        Longest row, 1 to 1024.

    Members
    -------
    width, epsilon, affine_shift : In
        Row length (1 to ``max_width``), epsilon * length**2 (at least 1) and the second rounding's
        shift; constant while rows are inside.
    affine : In
        Writes ``gain`` (signed 16) and ``offset`` (signed 32) of the chunk ``address``.
    i : In, stream of chunks of signed 16-bit codes
    o : Out, stream of chunks of signed 8-bit codes

    Raises
    ------
    ValueError
        A parameter is out of range.
    """

    TAIL = 1 + NormLane.LATENCY + 1
    """Cycles from the address of a stored chunk to its result: buffer, lanes, output queue."""

    def __init__(self, *, lanes: int, max_width: int = MAX_WIDTH) -> None:
        check_width(max_width)
        if lanes < 1:
            raise ValueError(f"lanes: expected at least 1, got {lanes!r}")
        self.lanes, self.max_width = lanes, max_width
        self.chunks = -(-max_width // lanes)
        self.affine_layout = data.ArrayLayout(
            data.StructLayout({"gain": signed(16), "offset": signed(32)}), lanes
        )
        affine = {
            "enable": Out(1),
            "address": Out(range(self.chunks)),
            "data": Out(self.affine_layout),
        }
        super().__init__(
            {
                "width": In(range(max_width + 1)),
                "epsilon": In(unsigned(EPSILON_BITS)),
                "affine_shift": In(unsigned(5)),
                "affine": In(wiring.Signature(affine)),
                "i": In(stream.Signature(data.ArrayLayout(signed(CODE_BITS), lanes))),
                "o": Out(stream.Signature(data.ArrayLayout(signed(8), lanes))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.moments = moments = RowMoments(lanes=self.lanes)
        m.submodules.scale = scale = NormScale(max_width=self.max_width)
        m.submodules.row = row = memory.Memory(
            shape=self.i.payload.shape(), depth=self.chunks, init=[]
        )
        m.submodules.affine = affine = memory.Memory(
            shape=self.affine_layout, depth=self.chunks, init=[]
        )
        row_writer, row_reader = row.write_port(), row.read_port()
        affine_writer, affine_reader = affine.write_port(), affine.read_port()

        # Both passes over a row count its chunks and the values before the present one.
        chunk, before = Signal(range(self.chunks)), Signal.like(self.width)
        count, final, advance = Signal(range(self.lanes + 1)), Signal(), Signal()
        m.d.comb += [
            final.eq(before + self.lanes >= self.width),
            count.eq(Mux(final, self.width - before, self.lanes)),
        ]
        with m.If(advance):
            m.d.sync += [
                chunk.eq(Mux(final, 0, chunk + 1)),
                before.eq(Mux(final, 0, before + self.lanes)),
            ]
        m.d.comb += [
            row_writer.addr.eq(chunk),
            row_writer.data.eq(self.i.payload),
            row_reader.addr.eq(chunk),
            affine_reader.addr.eq(chunk),
            affine_writer.addr.eq(self.affine.address),
            affine_writer.data.eq(self.affine.data),
            affine_writer.en.eq(self.affine.enable),
            moments.values.eq(self.i.payload),
            moments.count.eq(count),
        ]

        sums = Signal(moments_layout(self.max_width))
        m.d.comb += [
            scale.i.payload.eq(sums),
            scale.i.payload.width.eq(self.width),
            scale.i.payload.epsilon.eq(self.epsilon),
        ]
        with m.If(delayed(m, row_writer.en, RowMoments.LATENCY, name="gathered")):
            m.d.sync += [
                sums.total.eq(sums.total + moments.total),
                sums.squares.eq(sums.squares + moments.squares),
            ]

        issued, taken = Signal(), Signal()
        places = Signal(range(self.TAIL + 2), init=self.TAIL + 1)
        m.d.comb += taken.eq(self.o.valid & self.o.ready)
        m.d.sync += places.eq(places + taken - issued)
        current = Signal(scale_layout(self.max_width))
        wait = Signal(range(RowMoments.LATENCY))
        with m.FSM():
            with m.State("GATHER"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.comb += [row_writer.en.eq(1), advance.eq(1)]
                    with m.If(final):
                        m.next = "SUM"
            with m.State("SUM"):
                m.d.sync += wait.eq(wait + 1)
                with m.If(wait == RowMoments.LATENCY - 1):
                    m.d.sync += wait.eq(0)
                    m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += scale.i.valid.eq(1)
                m.d.sync += [sums.total.eq(0), sums.squares.eq(0)]
                m.next = "SCALE"
            with m.State("SCALE"):
                m.d.comb += scale.o.ready.eq(1)
                m.d.sync += current.eq(scale.o.payload)
                with m.If(scale.o.valid):
                    m.next = "NORMALISE"
            with m.State("NORMALISE"):
                m.d.comb += [issued.eq(places != 0), advance.eq(issued)]
                with m.If(issued & final):
                    m.next = "GATHER"

        late = 1 + NormLane.LATENCY
        m.submodules.results = results = fifo.SyncFIFO(
            width=self.o.payload.shape().size, depth=self.TAIL + 1
        )
        valid_lanes = delayed(m, count, late, name="count")
        codes = []
        for index in range(self.lanes):
            m.submodules[f"lane{index}"] = lane = NormLane()
            m.d.comb += [
                lane.x.eq(row_reader.data[index]),
                lane.width.eq(self.width),
                lane.total.eq(current.total),
                lane.mantissa.eq(current.mantissa),
                lane.shift.eq(current.shift),
                lane.gain.eq(affine_reader.data[index].gain),
                lane.offset.eq(affine_reader.data[index].offset),
                lane.affine_shift.eq(self.affine_shift),
            ]
            codes.append(Mux(valid_lanes > index, lane.result, 0)[:8])
        m.d.comb += [
            results.w_data.eq(Cat(codes)),
            results.w_en.eq(delayed(m, issued, late, name="issued")),
            results.r_en.eq(taken),
            self.o.valid.eq(results.r_rdy),
            self.o.payload.as_value().eq(results.r_data),
        ]
        return m
