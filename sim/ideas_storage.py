"""Bits of memory on the chip, of an accelerator and of a design in its place."""

from __future__ import annotations

from ..hwgen.core.core import Target, target_depths, target_widths
from ..hwgen.core.machine import Machine
from ..models.integer.gelu import WIDTH
from ..models.integer.softmax import SCORE_BITS
from .ideas_design import Design

__all__ = ["GELU_TABLE_BITS", "storage_bits"]

GELU_TABLE_BITS = WIDTH << WIDTH
"""Of a table with a result for every code; a memory has two ports, so it serves two lanes."""
_HEADS = 2
"""Heads whose scores are there at a time: those of one are weighed while the next one's arrive."""


def storage_bits(machine: Machine, design: Design) -> dict[str, int]:
    """Capacity of each memory that grows with the machine, as it is described; blocks of a device
    are larger. Left out are what has the same few words in every machine, and the tables of
    exponentials and of delta, which fit into LUTs.
    """
    rows, cols, depth = machine.rows, machine.cols, machine.depth
    widths, depths = target_widths(machine), target_depths(machine)
    row = 8 * machine.lanes
    copies = machine.loads
    of_attention = rows if design.attention == "copies" else copies
    scores = 2 * rows if design.softmax == "single" else _HEADS * machine.token_slots
    bits = {
        **{target.name.lower(): widths[target] * depths[target] for target in widths},
        "token": of_attention * machine.token_rows * row,
        "normal": copies * machine.normal_rows * row,
        "attention": of_attention * machine.attention_rows * row,
        "image": copies * widths[Target.IMAGE] * depths[Target.IMAGE],
        "key": cols * machine.key_rows * row,
        "value": depth * machine.value_rows * 8 * cols,
        "residual": 2 * machine.residual_rows * 16 * cols,
        "result": machine.result_words * 16 * cols,
        "slots": rows * machine.slot_words * 8 * depth,
        "scores": scores * machine.score_tiles * cols * SCORE_BITS,
        "on-chip memory": machine.memory * 8192,
    }
    if design.gelu == "table":
        bits["GELU"] = -(-cols // 2) * GELU_TABLE_BITS
    return bits
