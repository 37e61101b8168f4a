"""The cycle simulator: executes a Program's instructions in cycles, without data.

It reads what the sequencer reads, the encoded instructions, and adds up the cycle contracts that
stand beside the RTL. Its counters are those of the accelerator's registers and must equal them,
for streams that never wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..hwgen.drain_path import REQUANTIZED, tail_cycles
from ..hwgen.instruction import Destination, Instruction, Opcode, Source, decode, encode
from ..hwgen.machine import Machine
from ..hwgen.norm_engine import cycles as norm_cycles
from ..hwgen.product_engine import Schedule, schedule
from ..hwgen.program import Program
from ..hwgen.sequencer import END_CYCLES, OVERHEAD
from ..hwgen.stream_engines import init_cycles, load_cycles, store_cycles
from ..hwgen.units.compute_array import LATENCY as ARRAY_LATENCY
from ..hwgen.units.softmax import cycles as softmax_cycles
from ..hwgen.weight_source import START_LATENCY

__all__ = ["CycleReport", "StepCycles", "simulate"]


@dataclass(frozen=True)
class StepCycles:
    """One step: cycles in all, cycles in which the compute unit took a word, words read from the
    token side.

    stalled: cycles lost at the start of a weight stream. macs: useful products.
    """

    name: str
    kind: str
    cycles: int
    product_cycles: int
    token_words: int
    weight_stalled: int
    macs: int


@dataclass(frozen=True)
class CycleReport:
    """Predicted counters of one image on one machine."""

    steps: tuple[StepCycles, ...]
    multipliers: int

    @property
    def total(self) -> int:
        """The CYCLES register."""
        return sum(step.cycles for step in self.steps)

    @property
    def product_cycles(self) -> int:
        """The PRODUCT_CYCLES and OTHER_WORDS registers."""
        return sum(step.product_cycles for step in self.steps)

    @property
    def token_words(self) -> int:
        """The TOKEN_WORDS register."""
        return sum(step.token_words for step in self.steps)

    @property
    def weight_stalled(self) -> int:
        """The WEIGHT_STALLED register."""
        return sum(step.weight_stalled for step in self.steps)

    @property
    def macs(self) -> int:
        """Useful products."""
        return sum(step.macs for step in self.steps)

    @property
    def utilisation(self) -> float:
        """Useful products per product that the array could have done in the time."""
        return self.macs / (self.total * self.multipliers)


def simulate(program: Program) -> CycleReport:
    """The counters of one image of ``program``."""
    machine = program.machine
    steps = []
    for step in program.steps:
        item = decode(encode(step.instruction))
        plan = None
        if item.opcode is Opcode.PRODUCT:
            plan = schedule(
                tokens=item.tokens, tiles=item.tiles, words=item.words, rows=machine.rows
            )
        steps.append(
            StepCycles(
                name=step.name,
                kind=_kind(item),
                cycles=_cycles(item, plan, machine),
                product_cycles=plan.steps * item.words if plan else 0,
                token_words=item.tokens * item.words if plan else 0,
                weight_stalled=_weight_stall(item) if plan else 0,
                macs=step.macs,
            )
        )
    return CycleReport(tuple(steps), machine.multipliers)


def _kind(item: Instruction) -> str:
    if item.opcode is Opcode.PRODUCT:
        return f"product:{item.destination.name.lower()}"
    return item.opcode.name.lower()


def _weight_stall(item: Instruction) -> int:
    return START_LATENCY - 1 if item.b_source is Source.WEIGHT else 0


def _cycles(item: Instruction, plan: Schedule | None, machine: Machine) -> int:
    if plan is not None:
        return _product(item, plan, machine)
    if item.opcode is Opcode.END:
        return END_CYCLES
    if item.opcode is Opcode.LOAD:
        busy = load_cycles(tokens=item.tokens, words=item.words)
    elif item.opcode is Opcode.INIT:
        busy = init_cycles(tokens=item.tokens, tiles=item.tiles)
    elif item.opcode is Opcode.NORM:
        busy = norm_cycles(tokens=item.tokens, tiles=item.tiles)
    else:
        busy = store_cycles(results=item.results, cols=machine.cols)
    return OVERHEAD + busy


def _product(item: Instruction, plan: Schedule, machine: Machine) -> int:
    busy = _weight_stall(item) + plan.issue_cycles
    ends = OVERHEAD + busy + tail_cycles(machine.rows)
    if item.destination is not Destination.SCORE:
        return ends
    # Cycle 0 of the arrivals is the first cycle in which the product engine is busy.
    arrivals = [
        plan.finish_step(row, machine.rows, item.tiles) * plan.step_cycles
        + item.words
        - 1
        + 1
        + ARRAY_LATENCY
        + row % machine.rows
        + REQUANTIZED
        for row in range(item.tokens)
    ]
    return max(ends, OVERHEAD + softmax_cycles(arrivals, item.tiles)[-1] + 1)
