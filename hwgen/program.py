"""A Program: the instructions, memory images and input/output layout of one IntegerModel on one
Machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import VitruviusError
from ..models.integer_model import IntegerModel
from .drain_path import COLUMN_BITS
from .instruction import INSTRUCTION_BITS, Instruction, Opcode, encode
from .loader import Target, beats_per_word
from .machine import Machine
from .registers import DebugMemory

__all__ = ["Boundary", "Program", "Step", "Usage", "check", "violations"]


@dataclass(frozen=True)
class Step:
    """One instruction and what it is for. operator: the IntegerModel operator; macs: useful
    multiply-accumulates.
    """

    name: str
    operator: str
    instruction: Instruction
    macs: int


@dataclass(frozen=True)
class Boundary:
    """A tensor that stands complete in a memory before step ``step`` runs.

    operator: whose codes these are; memory: where; base, pitch: first word of token 0 and words
    from token to token; tokens, features: extent; group, group_pitch: features lie in groups
    (heads) of ``group``, each ``group_pitch`` words after the previous one.
    """

    step: int
    operator: str
    memory: DebugMemory
    base: int
    pitch: int
    tokens: int
    features: int
    group: int
    group_pitch: int


@dataclass(frozen=True)
class Usage:
    """How much of a buffer the program needs: used and capacity in ``unit``."""

    buffer: str
    used: int
    capacity: int
    unit: str


@dataclass(frozen=True)
class Program:
    """What an accelerator needs to run a model.

    weights: uint8 [words, cols * depth]; columns: one integer of cols * 54 bits a word.
    image_tokens,
    image_words, image_features: the image stream is tokens x words beats of ``depth`` bytes.
    results: number of logits; result_scale: value of one logit step.
    """

    model: IntegerModel
    machine: Machine
    steps: tuple[Step, ...]
    weights: Tensor
    columns: tuple[int, ...]
    image_tokens: int
    image_words: int
    image_features: int
    results: int
    boundaries: tuple[Boundary, ...]
    usage: tuple[Usage, ...]

    @property
    def instructions(self) -> list[Instruction]:
        return [step.instruction for step in self.steps]

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates of one image."""
        return sum(step.macs for step in self.steps)

    @property
    def digest(self) -> str:
        """Hash of everything the accelerator loads, and of the machine."""
        state = hashlib.sha256(self.machine.digest.encode())
        for target in Target:
            state.update(self.image_of(target))
        return state.hexdigest()[:16]

    def image_of(self, target: Target) -> bytes:
        """The beats that load a memory, 64 bits little-endian each, lowest bits of a word first."""
        if target is Target.PROGRAM:
            return _beats((encode(item) for item in self.instructions), INSTRUCTION_BITS)
        if target is Target.COLUMN:
            return _beats(iter(self.columns), COLUMN_BITS * self.machine.cols)
        beat_bytes = 8 * beats_per_word(self.weights.shape[1] * 8)
        padded = np.zeros((len(self.weights), beat_bytes), dtype=np.uint8)
        padded[:, : self.weights.shape[1]] = self.weights.numpy()
        return padded.tobytes()

    def image_beats(self, image: Tensor) -> list[int]:
        """The image stream of one float image [C, H, W]: one integer of ``8 * depth`` bits a
        beat.
        """
        codes = self.model.image_codes(image.unsqueeze(0))[0]
        depth = self.machine.depth
        padded = torch.zeros(self.image_tokens, self.image_words * depth, dtype=torch.uint8)
        padded[:, : self.image_features] = (codes & 255).to(torch.uint8)
        data = padded.numpy().tobytes()
        return [
            int.from_bytes(data[start : start + depth], "little")
            for start in range(0, len(data), depth)
        ]


def _beats(words: Iterator[int], width: int) -> bytes:
    count = beats_per_word(width)
    return b"".join(word.to_bytes(8 * count, "little") for word in words)


def check(program: Program) -> None:
    """Raises VitruviusError listing every broken invariant of a Program."""
    broken = violations(program)
    if broken:
        raise VitruviusError(f"program of {program.model.name}: " + "; ".join(broken))


def violations(program: Program) -> list[str]:
    """Every broken invariant, as text: fields fit, the program ends once, extents are within the
    buffers.
    """
    machine = program.machine
    found: list[str] = []
    opcodes = [step.instruction.opcode for step in program.steps]
    if opcodes.count(Opcode.END) != 1 or opcodes[-1] is not Opcode.END:
        found.append("expected exactly one END, as the last step")
    if opcodes.count(Opcode.LOAD) != 1 or opcodes.count(Opcode.STORE) != 1:
        found.append("expected exactly one LOAD and one STORE")
    for usage in program.usage:
        if usage.used > usage.capacity:
            found.append(f"{usage.buffer} needs {usage.used} {usage.unit}, has {usage.capacity}")
    for index, step in enumerate(program.steps):
        item = step.instruction
        where = f"step {index} ({step.name})"
        try:
            encode(item)
        except ValueError as error:
            found.append(f"{where}: {error}")
        if item.opcode is Opcode.PRODUCT:
            if not (item.tokens and item.tiles and item.words and item.group_tiles and item.banks):
                found.append(f"{where}: empty product")
            elif item.tiles % item.group_tiles:
                found.append(f"{where}: {item.tiles} tiles in groups of {item.group_tiles}")
            if not 1 <= item.last_lanes <= machine.depth:
                found.append(f"{where}: last_lanes {item.last_lanes} of {machine.depth}")
            if not 1 <= item.last_count <= machine.cols:
                found.append(f"{where}: last_count {item.last_count} of {machine.cols}")
            if item.words > machine.slot_words:
                found.append(f"{where}: {item.words} words in slots of {machine.slot_words}")
    return found
