"""The words of a fetch program, and the header in front of a parameter image.

One layout serves the RTL, the compiler and the cycle simulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from amaranth.hdl import unsigned
from amaranth.lib import data

__all__ = [
    "DESCRIPTOR_BITS",
    "DESCRIPTOR_LAYOUT",
    "HEADER_BYTES",
    "HEADER_LAYOUT",
    "MAGIC",
    "TASKS",
    "Descriptor",
    "Header",
    "Opcode",
    "Space",
    "Target",
    "beats_per_word",
    "decode",
    "encode",
]

DESCRIPTOR_BITS = 160
HEADER_BYTES = 64
MAGIC = int.from_bytes(b"VITR", "little")
TASKS = 16
"""How many tasks ``by_task`` can tell apart."""


class Opcode(IntEnum):
    """What a descriptor asks of the fetch engine."""

    STOP = 0
    """Boot is over: `booted` rises; the program of an image begins behind it."""
    FETCH = 1
    LOOP = 2
    """The image's fetches are all issued: the next image from behind STOP, or the end."""


class Target(IntEnum):
    """The memory that the words of a fetch are for."""

    FETCH_PROGRAM = 0
    PRODUCT_PROGRAM = 1
    NORM_PROGRAM = 2
    COLUMN = 3
    CONSTANT = 4
    WEIGHT = 5
    IMAGE = 6


class Space(IntEnum):
    """What a fetch's offset counts from."""

    PARAMETERS = 0
    IMAGE = 1


DESCRIPTOR_LAYOUT = data.StructLayout(
    {
        "opcode": unsigned(3),
        "target": unsigned(4),
        "space": unsigned(1),
        "wait": unsigned(1),
        "offset": unsigned(32),
        "beats": unsigned(24),
        "destination": unsigned(24),
        "threshold": unsigned(24),
        "by_task": unsigned(1),
        "expert": unsigned(8),
        "routed_threshold": unsigned(24),
        "last_task": unsigned(4),
        "rest": unsigned(10),
    }
)
assert DESCRIPTOR_LAYOUT.size == DESCRIPTOR_BITS

HEADER_LAYOUT = data.StructLayout(
    {
        "magic": unsigned(32),
        "machine": unsigned(32),
        "program": unsigned(32),
        "beats": unsigned(32),
        "offset": unsigned(32),
        "rest": unsigned(8 * HEADER_BYTES - 160),
    }
)


@dataclass(frozen=True)
class Descriptor:
    """One word of a fetch program. Fields that an opcode does not read are zero.

    target, space: where to, and what offset counts from; offset, beats: first beat and number of
    beats, a multiple of the target's beats per word; destination: first word in the target.
    wait, threshold: FETCH waits until products issued >= the image's base + threshold; LOOP adds
    threshold, the products of an image, to the base.
    expert, routed_threshold: 0, or a FETCH for expert ``expert - 1``: it also waits until tokens
    routed >= the image's base of these + routed_threshold, and is skipped if that expert's queue is
    empty then. LOOP adds routed_threshold, the tokens routed in an image, to that base.
    by_task: offset counts for task 0; the beats of the other tasks lie behind, one after the other,
    up to those of last_task.
    """

    opcode: Opcode
    target: int = Target.FETCH_PROGRAM
    space: Space = Space.PARAMETERS
    wait: bool = False
    offset: int = 0
    beats: int = 0
    destination: int = 0
    threshold: int = 0
    by_task: bool = False
    expert: int = 0
    routed_threshold: int = 0
    last_task: int = 0


@dataclass(frozen=True)
class Header:
    """The first `HEADER_BYTES` of a parameter image; digests are first 32 bits.

    beats, offset: length of the fetch program and where it begins, in beats of the machine's port.
    """

    machine: int
    program: int
    beats: int
    offset: int
    magic: int = MAGIC

    def to_bytes(self) -> bytes:
        words = (self.magic, self.machine, self.program, self.beats, self.offset)
        return b"".join(word.to_bytes(4, "little") for word in words).ljust(HEADER_BYTES, b"\0")


# The layout works its widths out again whenever it is asked.
_FIELDS = [(str(name), field.width, field.offset) for name, field in DESCRIPTOR_LAYOUT]


def encode(descriptor: Descriptor) -> int:
    """The descriptor as an integer of `DESCRIPTOR_BITS`; ValueError if a field does not fit."""
    word = 0
    for name, width, offset in _FIELDS:
        value = int(getattr(descriptor, name, 0))
        if not 0 <= value < 1 << width:
            raise ValueError(f"descriptor field {name}: expected {width} bits, got {value}")
        word |= value << offset
    return word


def decode(word: int) -> Descriptor:
    """The inverse of `encode`; ValueError for an opcode or a space that is none."""
    values = {
        name: (word >> offset) & ((1 << width) - 1)
        for name, width, offset in _FIELDS
        if name != "rest"
    }
    return Descriptor(
        opcode=Opcode(values.pop("opcode")),
        space=Space(values.pop("space")),
        wait=bool(values.pop("wait")),
        by_task=bool(values.pop("by_task")),
        **values,
    )


def beats_per_word(width: int, port_bits: int) -> int:
    """Beats that one memory word of ``width`` bits takes; the lowest bits come first.

    >>> beats_per_word(280, 64)
    5
    """
    return -(-width // port_bits)
