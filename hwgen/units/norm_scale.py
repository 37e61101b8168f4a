"""What LayerNorm needs to know of a row: its moments, and the scale that follows from them."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...models.integer.layernorm import MAX_WIDTH, NORMAL_FRACTION
from . import inverse_sqrt
from .inverse_sqrt import InverseSqrt
from .tree import summed

__all__ = [
    "CODE_BITS",
    "EPSILON_BITS",
    "NormScale",
    "RowMoments",
    "check_width",
    "moments_layout",
    "scale_layout",
]

CODE_BITS = 16
EPSILON_BITS = 52


def moments_layout(max_width: int = MAX_WIDTH) -> data.StructLayout:
    """What a row's scale is computed from: sum, sum of squares, length, and epsilon * length**2."""
    return data.StructLayout(
        {
            "total": signed(CODE_BITS + (max_width - 1).bit_length()),
            "squares": range((max_width << (2 * CODE_BITS - 2)) + 1),
            "width": range(max_width + 1),
            "epsilon": unsigned(EPSILON_BITS),
        }
    )


def scale_layout(max_width: int = MAX_WIDTH) -> data.StructLayout:
    """What `NormLane` needs of its row: ``z = (width * x - total) * mantissa / 2**shift``."""
    return data.StructLayout(
        {
            "total": signed(CODE_BITS + (max_width - 1).bit_length()),
            "mantissa": unsigned(16),
            "shift": unsigned(6),
        }
    )


class RowMoments(wiring.Component):
    """Sum and sum of squares over the lanes of a chunk, one chunk a cycle, a fixed pipeline.

    No flow control: the sums of the chunk in cycle t stand at the output in cycle t + ``LATENCY``.

    Parameters
    ----------
    lanes : int
        Values per chunk, at least 1.

    Members
    -------
    values : In, ``lanes`` signed 16-bit codes
    count : In, the first ``count`` of them are valid
    total : Out, signed
    squares : Out, unsigned

    Raises
    ------
    ValueError
        ``lanes`` is less than 1.
    """

    LATENCY = 2

    def __init__(self, *, lanes: int) -> None:
        if lanes < 1:
            raise ValueError(f"lanes: expected at least 1, got {lanes!r}")
        self.lanes = lanes
        super().__init__(
            {
                "values": In(data.ArrayLayout(signed(CODE_BITS), lanes)),
                "count": In(range(lanes + 1)),
                "total": Out(signed(CODE_BITS + (lanes - 1).bit_length())),
                "squares": Out(range((lanes << (2 * CODE_BITS - 2)) + 1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        values, squares = [], []
        for lane in range(self.lanes):
            value = Signal(signed(CODE_BITS), name=f"value_{lane}")
            square = Signal(2 * CODE_BITS - 1, name=f"square_{lane}")
            used = Mux(self.count > lane, self.values[lane], 0).as_signed()
            m.d.sync += [value.eq(used), square.eq(used * used)]
            values.append(value)
            squares.append(square)
        m.d.sync += [self.total.eq(summed(values)), self.squares.eq(summed(squares))]
        return m


class NormScale(wiring.Component):
    """The scale of a row from its moments: ``V = width*squares - total**2 + epsilon``, 1/sqrt(V).

    One row at a time: the result is valid `cycles` cycles after the transfer of the moments and
    stays until taken; the next moments are accepted from the cycle after that on.
    ``shift`` is the shift of `NormLane`'s first rounding (half + 13).

    Parameters
    ----------
    max_width : int
        Longest row, 1 to 1024.

    Members
    -------
    i : In, stream of `moments_layout`; epsilon at least 1
    o : Out, stream of `scale_layout`

    Raises
    ------
    ValueError
        ``max_width`` is out of range.
    """

    def __init__(self, *, max_width: int = MAX_WIDTH) -> None:
        check_width(max_width)
        self.max_width = max_width
        super().__init__(
            {
                "i": In(stream.Signature(moments_layout(max_width))),
                "o": Out(stream.Signature(scale_layout(max_width))),
            }
        )

    @staticmethod
    def cycles() -> int:
        """Cycles from the transfer of moments to the scale: products, difference, offer, root."""
        return 3 + inverse_sqrt.cycles()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        variance_bits = EPSILON_BITS + 1
        m.submodules.inverse_sqrt = root = InverseSqrt(width=variance_bits)
        moments = Signal(moments_layout(self.max_width))
        mean_square = Signal(2 * len(moments.total))
        second = Signal(len(moments.squares) + len(moments.width))
        variance = Signal(variance_bits)
        m.d.comb += [
            root.i.payload.eq(variance),
            self.o.payload.total.eq(moments.total),
            self.o.payload.mantissa.eq(root.o.payload.mantissa),
            self.o.payload.shift.eq(root.o.payload.half + (23 - NORMAL_FRACTION)),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += moments.eq(self.i.payload)
                with m.If(self.i.valid):
                    m.next = "PRODUCTS"
            with m.State("PRODUCTS"):
                m.d.sync += [
                    mean_square.eq(moments.total * moments.total),
                    second.eq(moments.width * moments.squares),
                ]
                m.next = "DIFFERENCE"
            with m.State("DIFFERENCE"):
                m.d.sync += variance.eq(second - mean_square + moments.epsilon)
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += root.i.valid.eq(1)
                m.next = "ROOT"
            with m.State("ROOT"):
                m.d.comb += [self.o.valid.eq(root.o.valid), root.o.ready.eq(self.o.ready)]
                with m.If(root.o.valid & self.o.ready):
                    m.next = "IDLE"
        return m


def check_width(max_width: int) -> None:
    """Raise ValueError unless 1 <= max_width <= 1024."""
    if not 1 <= max_width <= MAX_WIDTH:
        raise ValueError(f"max_width: expected 1 to {MAX_WIDTH}, got {max_width!r}")
