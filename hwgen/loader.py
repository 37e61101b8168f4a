"""Fills the on-chip memories before the first image: program, weights and column constants, 64
bits a beat.
"""

from __future__ import annotations

from enum import IntEnum

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BEAT_BITS", "Loader", "Target", "beats_per_word"]

BEAT_BITS = 64


class Target(IntEnum):
    """Which memory a beat is for."""

    PROGRAM = 0
    WEIGHT = 1
    COLUMN = 2


def beats_per_word(width: int) -> int:
    """Beats that one memory word of ``width`` bits takes; the lowest bits come first.

    >>> beats_per_word(384)
    6
    """
    return -(-width // BEAT_BITS)


class Loader(wiring.Component):
    """Assembles beats into memory words and writes them at rising addresses.

    ``beats``: always ready; a beat with ``first`` restarts at address 0 of its target. ``enable``
    has one bit per `Target`; ``address`` and ``word`` are shared, a memory takes the low bits it
    needs.

    Parameters
    ----------
    widths : bits per word of each target, in the order of `Target`.
    depth : words of the deepest target.
    """

    def __init__(self, *, widths: tuple[int, int, int], depth: int) -> None:
        if min(widths) < 1:
            raise ValueError(f"widths: expected at least 1 bit each, got {widths}")
        self.widths = widths
        self.most = max(beats_per_word(width) for width in widths)
        payload = data.StructLayout(
            {"data": unsigned(BEAT_BITS), "target": unsigned(2), "first": unsigned(1)}
        )
        super().__init__(
            {
                "beats": In(stream.Signature(payload)),
                "enable": Out(len(Target)),
                "address": Out(range(depth)),
                "word": Out(unsigned(self.most * BEAT_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = self.beats.payload
        held = [Signal(BEAT_BITS, name=f"beat{index}") for index in range(self.most)]
        index = Signal(range(self.most + 1))
        address = Signal.like(self.address)
        here, word_address = Signal.like(index), Signal.like(address)
        m.d.comb += [
            self.beats.ready.eq(1),
            here.eq(index),
            word_address.eq(address),
        ]
        with m.If(beat.first):
            m.d.comb += [here.eq(0), word_address.eq(0)]
        with m.If(self.beats.valid):
            for number in range(self.most):
                with m.If(here == number):
                    m.d.sync += held[number].eq(beat.data)
            m.d.sync += [index.eq(here + 1), address.eq(word_address)]
        parts = []
        for number in range(self.most):
            part = Signal(BEAT_BITS, name=f"part{number}")
            m.d.comb += part.eq(held[number])
            with m.If(here == number):
                m.d.comb += part.eq(beat.data)
            parts.append(part)
        m.d.comb += [self.word.eq(Cat(*parts)), self.address.eq(word_address)]
        for target, width in zip(Target, self.widths, strict=True):
            with m.If(
                self.beats.valid & (beat.target == target) & (here == beats_per_word(width) - 1)
            ):
                m.d.comb += self.enable[target].eq(1)
                m.d.sync += [index.eq(0), address.eq(word_address + 1)]
        return m
