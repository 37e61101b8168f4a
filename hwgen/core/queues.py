"""The queues of experts' tokens: the router between the drain path, softmax and product engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data

from ..units.router import Router
from .instruction import Destination

if TYPE_CHECKING:
    from .attention_buffer import AttentionBuffer
    from .core import Core
    from .product_engine import ProductEngine

__all__ = ["connect_router", "queue_word"]

_INDEX_BITS = 12


def queue_word(expert: int, index: int) -> int:
    """The word of `DebugMemory.QUEUE` that shows entry ``index`` of an expert's queue."""
    return expert << _INDEX_BITS | index


def connect_router(
    m: Module,
    core: Core,
    product: ProductEngine,
    attention: AttentionBuffer,
    wide: data.View,
    valid: Value,
    resting: Value,
) -> Value:
    """Adds the router of ``core`` to its module: from a gate's scores, ``wide`` of the drain path
    while ``valid``, to the queues. Returns what the debug window shows of them while the engine is
    ``resting``.
    """
    machine = core.machine
    index, expert = core.debug_word[:_INDEX_BITS], core.debug_word[_INDEX_BITS:]
    experts = machine.buffers.experts
    m.submodules.router = router = Router(
        lanes=machine.cols, experts=experts, tokens=machine.token_slots
    )
    instruction = product.instruction
    begin = product.opening & (instruction.destination == Destination.GATE)
    with m.If(begin):
        m.d.sync += [
            router.tiles.eq(instruction.tiles),
            router.last_count.eq(instruction.last_count),
            router.top.eq(instruction.top),
        ]
    with m.If(core.clear):
        m.d.sync += core.routed.eq(0)
    with m.Elif(router.routed):
        m.d.sync += core.routed.eq(core.routed + 1)
    m.d.comb += [
        router.clear.eq(begin),
        router.valid.eq(valid),
        router.row.eq(wide.token),
        router.tile.eq(wide.tile),
        router.scores.eq(wide.chunk),
        router.scale_valid.eq(attention.row_complete & attention.routing),
        router.scale_row.eq(attention.scale_row),
        router.mantissa.eq(attention.scale_mantissa),
        router.length.eq(attention.scale_length),
        router.read_expert.eq(Mux(resting, expert, product.queue_expert)),
        router.read_index.eq(Mux(resting, index, product.queue_index)),
        product.queue_token.eq(router.read_token),
        product.queue_weight.eq(router.read_weight),
        product.length.eq(router.lengths[product.length_expert]),
        core.queue_used.eq(Cat(router.lengths[each] != 0 for each in range(experts))),
    ]
    entry = Signal(data.StructLayout({"token": 16, "weight": 16, "length": 16}))
    m.d.comb += [
        entry.token.eq(router.read_token),
        entry.weight.eq(router.read_weight),
        entry.length.eq(router.lengths[expert]),
    ]
    return entry.as_value()
