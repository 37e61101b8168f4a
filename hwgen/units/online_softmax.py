"""Edge-MoE's online softmax: running maximum and rescaled running sum over a stream of scores."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...models.integer.online_softmax import EXP_FRACTION, TABLE_SIZE, online_exponential_table
from ...models.integer.softmax import SCORE_BITS

__all__ = ["OnlineSoftmax", "cycles"]

_INTERVAL = 3


def cycles(length: int) -> int:
    """Cycles from the transfer of a row's first score to its result, scores being always offered.

    A score takes 3: table, multiply, add.
    """
    return _INTERVAL * length


class OnlineSoftmax(wiring.Component):
    """(maximum, sum of exponentials) of one row of scores after another, in one pass.

    A score is taken every third cycle; the result is valid three cycles after the last score's
    transfer and stays until taken. Unlike in `Softmax` a new maximum rescales the sum so far,
    which rounds, so the sum depends on the order. Golden: `models.integer.online_softmax`.

    Parameters
    ----------
    max_length : int
        Most scores in a row, at least 1.

    Members
    -------
    i : In, stream of ``score`` (signed 16, 5 fraction bits), ``first`` and ``last`` of its row
    o : Out, stream of ``maximum`` (signed 16) and ``total`` (unsigned, 15 fraction bits)

    Raises
    ------
    ValueError
        ``max_length`` is less than 1.
    """

    def __init__(self, *, max_length: int) -> None:
        if max_length < 1:
            raise ValueError(f"max_length: expected at least 1, got {max_length!r}")
        self.max_length = max_length
        self.total_bits = (max_length << EXP_FRACTION).bit_length()
        score = data.StructLayout(
            {"score": signed(SCORE_BITS), "first": unsigned(1), "last": unsigned(1)}
        )
        result = data.StructLayout(
            {"maximum": signed(SCORE_BITS), "total": unsigned(self.total_bits)}
        )
        super().__init__({"i": In(stream.Signature(score)), "o": Out(stream.Signature(result))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.table = table = memory.Memory(
            shape=unsigned(EXP_FRACTION + 1), depth=TABLE_SIZE, init=online_exponential_table()
        )
        reader = table.read_port()

        score = self.i.payload.score
        maximum = Signal(signed(SCORE_BITS))
        difference = Signal(signed(SCORE_BITS + 1))
        distance = Signal(SCORE_BITS)
        higher = Signal()
        m.d.comb += [
            difference.eq(score - maximum),
            higher.eq(difference > 0),
            distance.eq(Mux(higher, difference, -difference)),
            reader.addr.eq(distance),
        ]

        first, last, rescale, inside = Signal(), Signal(), Signal(), Signal()
        total = Signal(self.total_bits)
        exponential = Signal(EXP_FRACTION + 1)
        kept, added = Signal(self.total_bits), Signal(EXP_FRACTION + 1)
        one = 1 << EXP_FRACTION
        m.d.comb += [
            exponential.eq(Mux(inside, reader.data, 0)),
            self.o.payload.maximum.eq(maximum),
            self.o.payload.total.eq(total),
        ]
        with m.FSM():
            with m.State("SCORE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [
                    first.eq(self.i.payload.first),
                    last.eq(self.i.payload.last),
                    rescale.eq(higher),
                    inside.eq(distance < TABLE_SIZE),
                ]
                with m.If(self.i.valid):
                    with m.If(self.i.payload.first | higher):
                        m.d.sync += maximum.eq(score)
                    m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                with m.If(first):
                    m.d.sync += [kept.eq(0), added.eq(one)]
                with m.Elif(rescale):
                    m.d.sync += [kept.eq((total * exponential) >> EXP_FRACTION), added.eq(one)]
                with m.Else():
                    m.d.sync += [kept.eq(total), added.eq(exponential)]
                m.next = "ADD"
            with m.State("ADD"):
                m.d.sync += total.eq(kept + added)
                with m.If(last):
                    m.next = "DONE"
                with m.Else():
                    m.next = "SCORE"
            with m.State("DONE"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "SCORE"
        return m
