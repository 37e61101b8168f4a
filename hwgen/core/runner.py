"""The part that every engine with a program has: it reads one instruction ahead, and goes round
once for each image.
"""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .instruction import Opcode

__all__ = ["FETCH", "Runner"]

FETCH = 3
"""Cycles from the one in which an instruction is taken to the first in which the next is valid."""


class Runner(wiring.Component):
    """Presents the instructions of a program memory one after another.

    ``run`` starts at address 0 for ``images`` rounds. ``valid``: ``instruction`` is a STEP and
    can be taken (``take``). A LOOP is taken at once (``looping`` for a cycle, with its fields in
    ``instruction``); after the last round ``finished`` stays up until the next ``run``.
    ``address`` -> ``word`` one cycle later is the program memory. ``idle``: nothing has begun yet.

    Parameters
    ----------
    layout : of the instruction's words.
    depth : words of the program memory.
    """

    def __init__(self, layout: data.StructLayout, *, depth: int) -> None:
        self.layout = layout
        super().__init__(
            {
                "run": In(1),
                "images": In(16),
                "address": Out(range(depth)),
                "word": In(self.layout.size),
                "valid": Out(1),
                "looping": Out(1),
                "take": In(1),
                "instruction": Out(self.layout),
                "finished": Out(1),
                "idle": Out(1, init=1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        images = Signal(16)
        held, fresh = Signal(), Signal()
        running = Signal()
        step = Signal()
        m.d.comb += [
            step.eq(self.instruction.opcode == Opcode.STEP),
            self.valid.eq(held & step),
            self.looping.eq(held & ~step),
        ]
        with m.If(running & ~held):
            m.d.sync += fresh.eq(1)
            with m.If(fresh):
                m.d.sync += [self.instruction.as_value().eq(self.word), held.eq(1)]
        with m.If(self.take & self.valid):
            m.d.sync += [held.eq(0), fresh.eq(0), self.address.eq(self.address + 1)]
        with m.Elif(self.looping):
            m.d.sync += [held.eq(0), fresh.eq(0), self.address.eq(0), images.eq(images - 1)]
            with m.If(images == 1):
                m.d.sync += [running.eq(0), self.finished.eq(1)]
        with m.If(self.run):
            m.d.sync += [
                running.eq(1),
                held.eq(0),
                fresh.eq(0),
                self.address.eq(0),
                images.eq(self.images),
                self.finished.eq(0),
                self.idle.eq(0),
            ]
        return m
