"""I-LayerNorm: a row's mean and reciprocal root digit by digit, the lane, and a unit of both."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ....models.integer.layernorm import MAX_WIDTH
from ...delay import delayed
from .. import norm_rows
from ..norm_rows import NormRows
from ..norm_scale import CODE_BITS, check_width
from ..rounding import saturated

__all__ = ["ILayerNorm", "INormLane", "RowSpread", "cycles", "spread_layout", "sums_layout"]

_ROOT_BITS = 20
"""The sum of squares around the mean is below ``MAX_WIDTH * 2**30``, which is 2**40."""
_FACTOR_BITS = 31
_RESULT_BITS = 32
_LOW_BITS = 16


def sums_layout(max_width: int = MAX_WIDTH) -> data.StructLayout:
    """What a row's mean and spread follow from: its sum, its sum of squares, its length."""
    return data.StructLayout(
        {
            "total": signed(CODE_BITS + (max_width - 1).bit_length()),
            "squares": range((max_width << (2 * CODE_BITS - 2)) + 1),
            "width": range(max_width + 1),
        }
    )


def spread_layout() -> data.StructLayout:
    """What `INormLane` needs of its row: ``(x - mean) * factor / 2``."""
    return data.StructLayout({"mean": signed(CODE_BITS), "factor": unsigned(_FACTOR_BITS)})


def cycles(*, width: int, lanes: int, rows: int) -> int:
    """Cycles from `ILayerNorm`'s first input transfer to its last output transfer, nothing
    stalling. A row is taken, measured and read back; the next is taken when it has been read.
    """
    return norm_rows.cycles(
        width=width,
        lanes=lanes,
        rows=rows,
        scaling=RowSpread.cycles(),
        lane_latency=INormLane.LATENCY,
    )


class RowSpread(wiring.Component):
    """A row's mean, half to even, and ``(2**31 - 1) // root`` of its squares around the mean.

    One row at a time: the result is valid `cycles` cycles after the transfer of the sums and stays
    until taken; the next sums are accepted from the cycle after that on. Two divisions and the root
    go digit by digit, one a cycle; ``squares - mean * (2 * total - width * mean)`` takes two.
    Golden: `models.integer.ivit.layernorm.mean_half_even` and `integer_root`, in its mode
    ``exact``.

    Parameters
    ----------
    max_width : int
        Longest row, 1 to 1024.

    Members
    -------
    i : In, stream of `sums_layout`
    o : Out, stream of `spread_layout`

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
                "i": In(stream.Signature(sums_layout(max_width))),
                "o": Out(stream.Signature(spread_layout())),
            }
        )

    @staticmethod
    def cycles() -> int:
        """Cycles from a row's sums to its result: mean, its rounding, two for the squares around
        it, root, reciprocal, output.
        """
        return CODE_BITS + 3 + _ROOT_BITS + _FACTOR_BITS + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sums = Signal(sums_layout(self.max_width))
        width = sums.width
        mean, factor = Signal(signed(CODE_BITS)), Signal(_FACTOR_BITS)
        m.d.comb += [self.o.payload.mean.eq(mean), self.o.payload.factor.eq(factor)]
        left = Signal(range(_FACTOR_BITS))

        # The codes' mean plus 2**15, which is not negative and rounds the same way.
        raised = Signal(len(sums.total) + 1)
        m.d.comb += raised.eq(self.i.payload.total + (self.i.payload.width << (CODE_BITS - 1)))
        rest, digits = Signal(range(self.max_width)), Signal(CODE_BITS)
        mean_trial = Signal(signed(len(width) + 2))
        mean_shifted = Cat(digits[-1], rest)
        m.d.comb += mean_trial.eq(mean_shifted - width)
        mean_fits = ~mean_trial[-1]
        twice = Cat(Const(0, 1), rest)
        up = (twice > width) | ((twice == width) & digits[0])

        difference = Signal(signed(len(sums.total) + 2))
        squares = Signal(2 * _ROOT_BITS)
        root, root_rest = Signal(_ROOT_BITS), Signal(_ROOT_BITS + 1)
        root_trial = Signal(signed(_ROOT_BITS + 4))
        root_shifted = Cat(squares[-2:], root_rest)
        m.d.comb += root_trial.eq(root_shifted - Cat(Const(1, 2), root))
        root_fits = ~root_trial[-1]

        # A row of equal codes divides by 0, which gives all ones: what dividing by 1 would.
        factor_rest = Signal(_ROOT_BITS)
        factor_trial = Signal(signed(_ROOT_BITS + 2))
        factor_shifted = Cat(Const(1, 1), factor_rest)
        m.d.comb += factor_trial.eq(factor_shifted - root)
        factor_fits = ~factor_trial[-1]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [
                    sums.eq(self.i.payload),
                    rest.eq(raised >> CODE_BITS),
                    digits.eq(raised),
                    left.eq(CODE_BITS - 1),
                ]
                with m.If(self.i.valid):
                    m.next = "MEAN"
            with m.State("MEAN"):
                m.d.sync += [
                    rest.eq(Mux(mean_fits, mean_trial, mean_shifted)),
                    digits.eq(Cat(mean_fits, digits)),
                    left.eq(left - 1),
                ]
                with m.If(left == 0):
                    m.next = "ROUND"
            with m.State("ROUND"):
                m.d.sync += mean.eq((digits + up) ^ (1 << (CODE_BITS - 1)))
                m.next = "DIFFERENCE"
            with m.State("DIFFERENCE"):
                m.d.sync += difference.eq((sums.total << 1) - width * mean)
                m.next = "SQUARES"
            with m.State("SQUARES"):
                m.d.sync += [
                    squares.eq(sums.squares - mean * difference),
                    root.eq(0),
                    root_rest.eq(0),
                    left.eq(_ROOT_BITS - 1),
                ]
                m.next = "ROOT"
            with m.State("ROOT"):
                m.d.sync += [
                    root_rest.eq(Mux(root_fits, root_trial, root_shifted)),
                    root.eq(Cat(root_fits, root)),
                    squares.eq(squares << 2),
                    factor_rest.eq(0),
                    left.eq(left - 1),
                ]
                with m.If(left == 0):
                    m.d.sync += left.eq(_FACTOR_BITS - 1)
                    m.next = "FACTOR"
            with m.State("FACTOR"):
                m.d.sync += [
                    factor_rest.eq(Mux(factor_fits, factor_trial, factor_shifted)),
                    factor.eq(Cat(factor_fits, factor)),
                    left.eq(left - 1),
                ]
                with m.If(left == 0):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m


class INormLane(wiring.Component):
    """``saturate32((x - mean) * factor >> 1, or 0 for a dead channel, + bias)``, one a cycle.

    No flow control: the result of the inputs in cycle t stands at the output in cycle
    t + ``LATENCY``. No code lies farther from the mean than the root, so the product has 32 bits.
    Golden: `models.integer.ivit.layernorm.layernorm`.

    Members
    -------
    x : In, signed 16
    mean : In, as `RowSpread` gives it
    factor : In, as `RowSpread` gives it; read in the cycle after that of ``x``
    bias, alive : In, signed 32, and whether the channel has a gamma
    result : Out, signed 32
    """

    LATENCY = 4

    def __init__(self) -> None:
        spread = spread_layout()
        super().__init__(
            {
                "x": In(signed(CODE_BITS)),
                "mean": In(spread["mean"].shape),
                "factor": In(spread["factor"].shape),
                "bias": In(signed(_RESULT_BITS)),
                "alive": In(1),
                "result": Out(signed(_RESULT_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        centred = Signal(signed(CODE_BITS + 1))
        low = Signal(signed(len(centred) + _LOW_BITS))
        high = Signal(signed(len(centred) + _FACTOR_BITS - _LOW_BITS))
        product, normal = Signal(signed(_RESULT_BITS)), Signal(signed(_RESULT_BITS - 1))
        m.d.comb += product.eq((high << _LOW_BITS) + low)
        m.d.sync += [
            centred.eq(self.x - self.mean),
            low.eq(centred * self.factor[:_LOW_BITS]),
            high.eq(centred * self.factor[_LOW_BITS:]),
            normal.eq(product >> 1),
        ]
        bias = delayed(m, self.bias, 3, name="bias")
        alive = delayed(m, self.alive, 3, name="alive")
        total = Signal(signed(_RESULT_BITS + 1))
        m.d.comb += total.eq(Mux(alive, normal, 0).as_signed() + bias)
        m.d.sync += self.result.eq(saturated(m, total, _RESULT_BITS, name="limited"))
        return m


class ILayerNorm(NormRows):
    """I-LayerNorm of rows of 16-bit codes to 32 bits, ``lanes`` values a cycle, with back-pressure.

    A row comes in as ceil(width / lanes) chunks and leaves as as many. Void lanes of the last chunk
    are ignored, and leave as 0. Golden: `models.integer.ivit.layernorm.layernorm`, in its mode
    ``exact``.

    Parameters
    ----------
    lanes : int
        Values per chunk, at least 1.
    max_width : int
        Longest row, 1 to 1024.

    Members
    -------
    width : In
        Row length, 1 to ``max_width``; constant while rows are inside.
    affine : In
        Writes ``bias`` (signed 32) and ``alive`` of the chunk ``address``.
    i : In, stream of chunks of signed 16-bit codes
    o : Out, stream of chunks of signed 32-bit codes

    Raises
    ------
    ValueError
        A parameter is out of range.
    """

    TAIL = NormRows.tail(INormLane.LATENCY)
    """Cycles from the address of a stored chunk to its result: buffer, lanes, output queue."""

    def __init__(self, *, lanes: int, max_width: int = MAX_WIDTH) -> None:
        super().__init__(
            lanes=lanes,
            max_width=max_width,
            scale=RowSpread,
            lane=INormLane,
            affine=data.StructLayout({"bias": signed(_RESULT_BITS), "alive": unsigned(1)}),
            parameters={},
            result_bits=_RESULT_BITS,
        )
