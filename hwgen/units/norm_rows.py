"""Rows that are normalised in two passes: a sum over each, then a lane for each value."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Cat, Module, Mux, ShapeLike, Signal, signed
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..delay import delayed
from .norm_scale import CODE_BITS, RowMoments, check_width

__all__ = ["NormRows", "cycles"]


def cycles(*, width: int, lanes: int, rows: int, scaling: int, lane_latency: int) -> int:
    """Cycles from the first input transfer to the last output transfer, nothing stalling.

    A row is taken, scaled and read back; the next is taken when it has been read. ``scaling``:
    cycles from a row's sums to its scale.
    """
    chunks = -(-width // lanes)
    period = chunks + RowMoments.LATENCY + 1 + scaling + chunks
    return rows * period - 1 + NormRows.tail(lane_latency)


class NormRows(wiring.Component):
    """Rows of 16-bit codes, ``lanes`` a cycle, through a scale and a lane, with back-pressure.

    A row comes in as ceil(width / lanes) chunks and leaves as as many. Void lanes of the last chunk
    are ignored, and leave as 0. Two classes say what is computed; their ports find their sources by
    name:

    * ``scale`` has a stream ``i`` with ``total`` and ``squares`` of a row, whose other fields are
      ports here, and a stream ``o``;
    * ``lane`` has a value ``x`` and a ``result`` after its ``LATENCY``; its other inputs are fields
      of the stream ``o``, of ``affine``, or ports here.

    Parameters
    ----------
    lanes : int
        Values per chunk, at least 1.
    max_width : int
        Longest row, 1 to 1024.
    scale, lane : type
        Of the unit of a row (it takes ``max_width``), and of a value.
    affine : StructLayout
        The constants of a value.
    parameters : Mapping
        Shapes of ports that are constant while rows are inside.
    result_bits : int
        Width of the signed results.

    Members
    -------
    width, and the names of ``parameters`` : In
        Row length, 1 to ``max_width``; constant while rows are inside.
    affine : In
        Writes the constants of the chunk ``address``.
    i : In, stream of chunks of signed 16-bit codes
    o : Out, stream of chunks of signed results

    Raises
    ------
    ValueError
        ``lanes`` or ``max_width`` is out of range.
    """

    def __init__(
        self,
        *,
        lanes: int,
        max_width: int,
        scale: type[wiring.Component],
        lane: type[wiring.Component],
        affine: data.StructLayout,
        parameters: Mapping[str, ShapeLike],
        result_bits: int,
    ) -> None:
        check_width(max_width)
        if lanes < 1:
            raise ValueError(f"lanes: expected at least 1, got {lanes!r}")
        self.lanes, self.max_width = lanes, max_width
        self.scale, self.lane, self.result_bits = scale, lane, result_bits
        self.chunks = -(-max_width // lanes)
        self.affine_layout = data.ArrayLayout(affine, lanes)
        write = {
            "enable": Out(1),
            "address": Out(range(self.chunks)),
            "data": Out(self.affine_layout),
        }
        super().__init__(
            {
                "width": In(range(max_width + 1)),
                **{name: In(shape) for name, shape in parameters.items()},
                "affine": In(wiring.Signature(write)),
                "i": In(stream.Signature(data.ArrayLayout(signed(CODE_BITS), lanes))),
                "o": Out(stream.Signature(data.ArrayLayout(signed(result_bits), lanes))),
            }
        )

    @staticmethod
    def tail(lane_latency: int) -> int:
        """Cycles from the address of a stored chunk to its result: buffer, lanes, output queue."""
        return 1 + lane_latency + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.moments = moments = RowMoments(lanes=self.lanes)
        m.submodules.scale = scale = self.scale(max_width=self.max_width)
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

        sums = {
            name: Signal(field.shape, name=name)
            for name, field in scale.i.payload.shape()
            if name in ("total", "squares")
        }
        m.d.comb += [
            scale.i.payload[name].eq(sums[name] if name in sums else getattr(self, name))
            for name, _ in scale.i.payload.shape()
        ]
        with m.If(delayed(m, row_writer.en, RowMoments.LATENCY, name="gathered")):
            m.d.sync += [total.eq(total + getattr(moments, name)) for name, total in sums.items()]

        tail = self.tail(self.lane.LATENCY)
        issued, taken = Signal(), Signal()
        places = Signal(range(tail + 2), init=tail + 1)
        m.d.comb += taken.eq(self.o.valid & self.o.ready)
        m.d.sync += places.eq(places + taken - issued)
        current = Signal(scale.o.payload.shape())
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
                m.d.sync += [total.eq(0) for total in sums.values()]
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

        late = tail - 1
        m.submodules.results = results = fifo.SyncFIFO(
            width=self.o.payload.shape().size, depth=tail + 1
        )
        valid_lanes = delayed(m, count, late, name="count")
        codes = []
        for index in range(self.lanes):
            m.submodules[f"lane{index}"] = lane = self.lane()
            constants = affine_reader.data[index]
            m.d.comb += lane.x.eq(row_reader.data[index])
            for name, member in lane.signature.members.items():
                if member.flow == In and name != "x":
                    for fields in (current, constants):
                        if name in dict(fields.shape()):
                            m.d.comb += getattr(lane, name).eq(fields[name])
                            break
                    else:
                        m.d.comb += getattr(lane, name).eq(getattr(self, name))
            codes.append(Mux(valid_lanes > index, lane.result, 0)[: self.result_bits])
        m.d.comb += [
            results.w_data.eq(Cat(codes)),
            results.w_en.eq(delayed(m, issued, late, name="issued")),
            results.r_en.eq(taken),
            self.o.valid.eq(results.r_rdy),
            self.o.payload.as_value().eq(results.r_data),
        ]
        return m
