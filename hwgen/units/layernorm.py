"""LayerNorm: the lane that normalises, and a unit made of moments, scale and lanes.

The accelerator uses the parts: it gathers moments while the residual stream is written and lets
scales run ahead of the rows. `LayerNorm` is the plain composition.
"""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...models.integer.layernorm import MAX_WIDTH
from . import norm_rows
from .norm_rows import NormRows
from .norm_scale import (
    CODE_BITS,
    EPSILON_BITS,
    NormScale,
    RowMoments,
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
    return norm_rows.cycles(
        width=width,
        lanes=lanes,
        rows=rows,
        scaling=NormScale.cycles(),
        lane_latency=NormLane.LATENCY,
    )


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


class LayerNorm(NormRows):
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

    TAIL = NormRows.tail(NormLane.LATENCY)
    """Cycles from the address of a stored chunk to its result: buffer, lanes, output queue."""

    def __init__(self, *, lanes: int, max_width: int = MAX_WIDTH) -> None:
        super().__init__(
            lanes=lanes,
            max_width=max_width,
            scale=NormScale,
            lane=NormLane,
            affine=data.StructLayout({"gain": signed(16), "offset": signed(32)}),
            parameters={"epsilon": unsigned(EPSILON_BITS), "affine_shift": unsigned(5)},
            result_bits=8,
        )
