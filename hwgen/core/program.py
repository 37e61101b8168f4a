"""A Program: the instructions, memory images and input/output layout of one IntegerModel on one
Machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from ...errors import VitruviusError
from ...models.integer_model import IntegerModel
from .core import DebugMemory, Target, target_widths
from .counters import Counter
from .instruction import Norm, Opcode, Product, encode
from .machine import Machine

__all__ = [
    "Boundary",
    "Fetch",
    "Mixture",
    "NormStep",
    "Program",
    "Step",
    "Usage",
    "check",
    "violations",
]


@dataclass(frozen=True)
class Step:
    """One product and what it is for. operator: the IntegerModel operator; macs: useful
    multiply-accumulates, of a product with an expert those of each of its rows. gate: the Gate that
    says how many rows it has, if it has an expert.
    """

    name: str
    operator: str
    instruction: Product
    macs: int
    gate: str = ""


@dataclass(frozen=True)
class NormStep:
    """One normalisation and the IntegerModel operator that it is."""

    operator: str
    instruction: Norm


@dataclass(frozen=True)
class Fetch:
    """One transfer from memory: ``words`` words of ``target`` from word ``destination`` on.

    source: first word of what is fetched, in the image of its target. threshold: products issued
    before what it overwrites is free, None if nothing is. expert: 0, or one more than the expert
    without whose tokens nothing is fetched; routed: tokens that must have been routed before.
    tasks: how many tasks have ``words`` words of their own, one task's behind the other's from
    ``source`` on.
    """

    target: Target
    source: int
    words: int
    destination: int
    threshold: int | None = None
    expert: int = 0
    routed: int = 0
    tasks: int = 1


@dataclass(frozen=True)
class Boundary:
    """A tensor that stands complete in a memory before product ``product`` begins.

    operator: whose codes these are; memory: where; base, pitch: first word of token 0 and words
    from token to token; tokens, features: extent; group, group_pitch: features lie in groups
    (heads) of ``group``, each ``group_pitch`` words after the previous one.
    """

    product: int
    operator: str
    memory: DebugMemory
    base: int
    pitch: int
    tokens: int
    features: int
    group: int
    group_pitch: int


@dataclass(frozen=True)
class Mixture:
    """A mixture of experts. gate: the Gate that chooses ``top`` of ``experts`` experts for each of
    ``tokens`` tokens; parts: products of each expert. product: index of the product behind it,
    before which the queues are still there.
    """

    gate: str
    tokens: int
    top: int
    experts: int
    parts: int
    product: int

    @property
    def rows(self) -> int:
        """Entries in all queues."""
        return self.top * self.tokens

    @property
    def drained(self) -> int:
        """Rows that the products of all experts drain, whoever has which."""
        return self.rows * self.parts


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

    steps, norms: what the two engines do for one image, in order. boot, fetches: transfers before
    the first image, and those of each image.
    weights: uint8 [words, cols * depth]; columns, norm_columns, tables, constants: one integer a
    word.
    image_tokens, image_words, image_features: an image is tokens x words of ``depth`` bytes.
    results: codes that are sent; they are result_tokens rows of result_features each, in
    rows of whole chunks. totals: what one image adds to each counter. mixtures: in order.
    """

    model: IntegerModel
    machine: Machine
    steps: tuple[Step, ...]
    norms: tuple[NormStep, ...]
    boot: tuple[Fetch, ...]
    fetches: tuple[Fetch, ...]
    weights: Tensor
    columns: tuple[int, ...]
    norm_columns: tuple[int, ...]
    tables: tuple[int, ...]
    constants: tuple[int, ...]
    image_tokens: int
    image_words: int
    image_features: int
    results: int
    result_tokens: int
    result_features: int
    totals: Mapping[Counter, int]
    mixtures: tuple[Mixture, ...]
    boundaries: tuple[Boundary, ...]
    usage: tuple[Usage, ...]

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates of one image; of experts, those of as many rows as all queues
        hold, spread over them evenly.
        """
        rows = {mixture.gate: Fraction(mixture.rows, mixture.experts) for mixture in self.mixtures}
        return int(sum(step.macs * rows.get(step.gate, 1) for step in self.steps))

    def product_words(self) -> list[int]:
        """The product program."""
        totals = self.totals
        loop = Product(
            Opcode.LOOP,
            a_base=totals[Counter.DRAINED],
            b_base=totals[Counter.WEIGHED],
            dst_base=totals[Counter.NORMALISED],
            column_base=totals[Counter.FETCHED],
            row_threshold=totals[Counter.ROUTED],
        )
        words = (*(step.instruction for step in self.steps), loop)
        return [encode(word, self.machine.scheme) for word in words]

    def norm_words(self) -> list[int]:
        """The norm program."""
        totals = self.totals
        loop = Norm(
            Opcode.LOOP,
            row_threshold=totals[Counter.DRAINED],
            start_threshold=totals[Counter.ISSUED],
        )
        return [encode(step.instruction) for step in self.norms] + [encode(loop)]

    def words_of(self, target: Target) -> list[int]:
        """The words of a memory that does not change from image to image."""
        if target is Target.WEIGHT:
            return [int.from_bytes(row.tobytes(), "little") for row in self.weights.numpy()]
        if target is Target.PRODUCT_PROGRAM:
            return self.product_words()
        if target is Target.NORM_PROGRAM:
            return self.norm_words()
        columns = {
            Target.COLUMN: self.columns,
            Target.NORM_COLUMN: self.norm_columns,
            Target.CONSTANT: self.constants,
            Target.TABLE: self.tables,
        }
        return list(columns[target])

    @property
    def digest(self) -> str:
        """Hash of everything the accelerator loads, and of the machine."""
        state = hashlib.sha256(self.machine.digest.encode())
        state.update(repr((self.boot, self.fetches)).encode())
        state.update(self.weights.numpy().tobytes())
        for target, width in target_widths(self.machine).items():
            if target not in (Target.WEIGHT, Target.IMAGE):
                state.update(_packed(self.words_of(target), width))
        return state.hexdigest()[:16]


def _packed(words: Iterable[int], width: int) -> bytes:
    return b"".join(word.to_bytes((width + 7) // 8, "little") for word in words)


def check(program: Program) -> None:
    """Raises VitruviusError listing every broken invariant of a Program."""
    broken = violations(program)
    if broken:
        raise VitruviusError(f"program of {program.model.name}: " + "; ".join(broken))


def violations(program: Program) -> list[str]:
    """Every broken invariant, as text: fields fit, extents are within the buffers."""
    machine = program.machine
    found: list[str] = []
    for usage in program.usage:
        if usage.used > usage.capacity:
            found.append(f"{usage.buffer} needs {usage.used} {usage.unit}, has {usage.capacity}")
    for index, step in enumerate(program.steps):
        item = step.instruction
        where = f"product {index} ({step.name})"
        try:
            encode(item, machine.scheme)
        except ValueError as error:
            found.append(f"{where}: {error}")
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
        if item.final != (index == len(program.steps) - 1):
            found.append(f"{where}: expected the last product, and only it, to be final")
    for index, norm in enumerate(program.norms):
        try:
            encode(norm.instruction)
        except ValueError as error:
            found.append(f"normalisation {index} ({norm.operator}): {error}")
    return found
