"""Edge-MoE's six ideas (arXiv 2305.18691) on this accelerator, with and without each.

Each `Idea` has one or several alternatives: what stands in its place. `compare` builds the design
up from none of them, and takes each one alone away from the accelerator as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import VitruviusError
from ..hwgen.axi.memory_model import DEFAULT_MEMORY, MemoryModel
from ..hwgen.core.compiler import compile_model
from ..hwgen.core.image import ParameterImage
from ..hwgen.core.instruction import Destination
from ..hwgen.core.machine import Machine
from ..hwgen.core.program import Program
from ..models.integer_model import IntegerModel
from .cycle import CycleReport, simulate
from .ideas_design import EVALUATION, Design, OtherHardware
from .ideas_storage import storage_bits
from .routing import even_routing
from .token_order import token_by_token

__all__ = [
    "IDEAS",
    "Alternative",
    "Comparison",
    "Idea",
    "Row",
    "Source",
    "compare",
    "product_kinds",
]

Source = Literal["RTL", "simulated", "formula"]
"""Whose cycles these are: the hardware has the switch, and its counters equal the simulation; the
cycle simulator's, of a design that no RTL exists of; the accelerator's own, as the part that is
replaced keeps its cycles.
"""


@dataclass(frozen=True)
class Alternative:
    """What a design has in an idea's place, in words; ``take`` gives the design that has it."""

    text: str
    take: Callable[[Design], Design]
    source: Source = "simulated"


@dataclass(frozen=True)
class Idea:
    """An idea of Edge-MoE; ``add`` gives the design that has it. without: its alternatives; the
    first is that of a design without the ideas.
    """

    name: str
    add: Callable[[Design], Design]
    without: tuple[Alternative, ...]


IDEAS: tuple[Idea, ...] = (
    Idea(
        "expert-by-expert order",
        lambda design: replace(design, experts="expert"),
        (
            Alternative(
                "each token loads its own experts' weights",
                lambda design: replace(design, experts="token"),
            ),
        ),
    ),
    Idea(
        "single-pass softmax",
        lambda design: replace(design, softmax="single"),
        (
            Alternative(
                "three passes over stored scores",
                lambda design: replace(design, softmax="passes"),
            ),
            Alternative(
                f"three passes, and {EVALUATION} cycles a score in each lane",
                lambda design: replace(design, softmax="evaluators"),
            ),
        ),
    ),
    Idea(
        "GELU table",
        lambda design: replace(design, gelu="delta"),
        (
            Alternative(
                "a table of all 65,536 codes",
                lambda design: replace(design, gelu="table"),
                "formula",
            ),
            Alternative(
                f"{EVALUATION} cycles a value in each lane",
                lambda design: replace(design, gelu="evaluators"),
            ),
        ),
    ),
    Idea(
        "shared unit",
        lambda design: replace(design, unit="shared"),
        (
            Alternative(
                "a share of the multipliers for each kind of product",
                lambda design: replace(design, unit="shares"),
            ),
            Alternative(
                "a whole unit for each kind of product",
                lambda design: replace(design, unit="copies"),
                "formula",
            ),
        ),
    ),
    Idea(
        "attention order",
        lambda design: replace(design, attention="reordered"),
        (
            Alternative(
                "one query at a time meets all keys",
                lambda design: replace(design, attention="query"),
            ),
            Alternative(
                "slots are filled in turn, then begin together",
                lambda design: replace(design, attention="turns"),
            ),
            Alternative(
                "slots begin together, a copy of memory each",
                lambda design: replace(design, attention="copies"),
            ),
        ),
    ),
    Idea(
        "prefetch",
        lambda design: replace(design, prefetch=True),
        (
            Alternative(
                "a transfer begins when its product is next",
                lambda design: replace(design, prefetch=False),
                "RTL",
            ),
        ),
    ),
)
"""In the order of Edge-MoE's ablation; prefetch, which that has not, last."""


@dataclass(frozen=True)
class Row:
    """A configuration and what it costs. idea: the one that is added or taken away, "" for none of
    them and for all; text: what the design has.

    cycles, port_words: of the whole run, as the registers CYCLES and READ_BEATS count.
    query_words, key_value_words: read from the memories on the chip; peak_query_words: most queries
    in a cycle. storage_bits: memory on the chip; multipliers: of all units.
    """

    idea: str
    text: str
    design: Design
    cycles: int
    port_words: int
    query_words: int
    peak_query_words: int
    key_value_words: int
    storage_bits: int
    multipliers: int
    source: Source


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. kinds: of products, each with a unit of its own where none is shared.
    ladder: none of the ideas, then one more each, all of them last. alone: each taken away from all
    of them, every alternative. without: ideas that the model has no use for, and why.
    """

    model: str
    machine: Machine
    memory: MemoryModel
    images: int
    kinds: tuple[str, ...]
    ladder: tuple[Row, ...]
    alone: tuple[Row, ...]
    without: tuple[tuple[str, str], ...]

    @property
    def full(self) -> Row:
        """The accelerator as it is."""
        return self.ladder[-1]


def product_kinds(model: IntegerModel) -> tuple[str, ...]:
    """The kinds of products of a model, in the order in which they come first: as many units would
    do what the shared one does.
    """
    readers = {name: operator for operator in model.operators for name in operator.inputs}
    experts = {
        name
        for operator in model.operators
        if operator.kind == "Mixture"
        for name in operator.inputs[2:]
    }
    kinds: dict[str, None] = {}
    for operator in model.operators:
        if operator.kind == "Attention":
            kinds |= {"scores": None, "weighted values": None}
        if operator.kind != "Linear":
            continue
        reader = readers.get(operator.name)
        if operator.name in experts:
            kind = "expert's second"
        elif reader is None:
            kind = "head"
        elif reader.kind == "Attention":
            kind = ("query", "key", "value")[reader.inputs.index(operator.name)]
        elif reader.kind == "Gelu":
            after = readers[reader.name].name
            kind = "expert's first" if after in experts else "MLP's first"
        elif reader.kind == "Add":
            before = {item.name: item.kind for item in model.operators}[operator.inputs[0]]
            kind = "projection" if before == "Attention" else "MLP's second"
        else:
            kind = {"Embed": "patch embedding", "Gate": "gate"}[reader.kind]
        kinds[kind] = None
    return tuple(kinds)


class _Runs:
    """Simulates designs of one model; programs are compiled once."""

    def __init__(
        self, model: IntegerModel, machine: Machine, images: int, memory: MemoryModel
    ) -> None:
        self.model, self.machine, self.images, self.memory = model, machine, images, memory
        self.kinds = product_kinds(model)
        self._programs: dict[tuple[str, bool], Program] = {}
        self._reports: dict[Design, CycleReport] = {}

    def program(self, design: Design) -> Program:
        key = (design.experts, design.prefetch)
        if key not in self._programs:
            made = compile_model(self.model, self.machine, prefetch=design.prefetch)
            if design.experts == "token":
                made = token_by_token(made, even_routing(made), prefetch=design.prefetch)
            self._programs[key] = made
        return self._programs[key]

    def row(self, idea: str, text: str, design: Design, source: Source) -> Row:
        """What ``design`` costs. The naive order is the hardware's own where it has it."""
        machine = self.machine
        if design == Design(attention="copies") and not self.program(Design()).mixtures:
            machine = _naive(machine)
            program = compile_model(self.model, machine)
            report = simulate(program, images=self.images, memory=self.memory)
            source, text = "RTL", f"{text}, in every product"
            cycles, beats = 0, 0
        else:
            report = self._report(design)
            cycles, beats = self._longer_boot(design)
        counters = report.counters
        copies = len(self.kinds) if design.unit == "copies" else 1
        return Row(
            idea,
            text,
            design,
            cycles=report.cycles - cycles,
            port_words=counters["READ_BEATS"] - beats,
            query_words=counters["QUERY_WORDS"],
            peak_query_words=counters["PEAK_QUERY_WORDS"],
            key_value_words=counters["KEY_WORDS"] + counters["VALUE_WORDS"],
            storage_bits=sum(storage_bits(machine, design).values()),
            multipliers=copies * machine.multipliers,
            source=source,
        )

    def _longer_boot(self, design: Design) -> tuple[int, int]:
        """Cycles and words by which the boot is longer than the accelerator's: those of a list of
        transfers token by token, which no hardware would load.
        """
        report, full = self._report(design), self._report(Design())
        beats = [ParameterImage(each.program).header.beats for each in (report, full)]
        return report.begun - full.begun, beats[0] - beats[1]

    def _report(self, design: Design) -> CycleReport:
        if design not in self._reports:
            self._reports[design] = simulate(
                self.program(design),
                images=self.images,
                memory=self.memory,
                contracts=OtherHardware(design, len(self.kinds)),
            )
        return self._reports[design]


def compare(
    model: IntegerModel,
    machine: Machine,
    *,
    images: int = 1,
    memory: MemoryModel = DEFAULT_MEMORY,
) -> Comparison:
    """What each idea is worth to ``model`` on ``machine``, for a run of ``images`` images that
    begins with nothing loaded. Tokens are spread evenly over experts.

    Raises VitruviusError for a model without attention, a machine whose order is naive, one that
    keeps a model with experts in memory on the chip, and as `compile_model` does.
    """
    if machine.order == "naive":
        raise VitruviusError(
            f"machine '{machine.name}': expected order reordered, the one of the ideas that the "
            "comparison takes away itself, got naive"
        )
    if not any(operator.kind == "Attention" for operator in model.operators):
        raise VitruviusError(
            f"{model.name}: expected a model with attention, whose ideas are compared, found none "
            f"among its {len(model.operators)} operators"
        )
    runs = _Runs(model, machine, images, memory)
    program = runs.program(Design())
    if machine.memory and program.mixtures:
        raise VitruviusError(
            f"machine '{machine.name}': expected external memory for a model with experts, whose "
            f"weights the comparison fetches token by token, got memory = {machine.memory}"
        )
    without = _without(program)
    ideas = [idea for idea in IDEAS if idea.name not in dict(without)]
    return Comparison(
        model=model.name,
        machine=machine,
        memory=memory,
        images=images,
        kinds=runs.kinds,
        ladder=_ladder(runs, ideas),
        alone=tuple(
            runs.row(idea.name, other.text, other.take(Design()), other.source)
            for idea in ideas
            for other in idea.without
        ),
        without=without,
    )


def _without(program: Program) -> tuple[tuple[str, str], ...]:
    """Ideas that change nothing for this program, and why."""
    found = []
    if not program.mixtures:
        found.append(("expert-by-expert order", "the model has no experts"))
    if not any(step.instruction.destination is Destination.GELU for step in program.steps):
        found.append(("GELU table", "the model has no GELU"))
    return tuple(found)


def _ladder(runs: _Runs, ideas: Sequence[Idea]) -> tuple[Row, ...]:
    design = Design()
    for idea in ideas:
        design = idea.without[0].take(design)
    rows = [runs.row("", "none of the ideas", design, "simulated")]
    for idea in ideas:
        design = idea.add(design)
        # What is left without is prefetch alone, which the compiler switches off, or nothing.
        source: Source = (
            "RTL" if design == replace(Design(), prefetch=design.prefetch) else "simulated"
        )
        rows.append(runs.row(idea.name, f"+ {idea.name}", design, source))
    return tuple(rows)


def _naive(machine: Machine) -> Machine:
    """``machine`` with the naive order, which has no router."""
    buffers = machine.buffers.model_copy(update={"experts": 0})
    return machine.model_copy(update={"order": "naive", "buffers": buffers})
