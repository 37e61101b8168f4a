"""A Program in the making: what the steps of the operators before have left to those that follow.

Every kind of operator appends to it (`linear_steps`, `attention_steps`, `norm_steps`) and finds in
it where its operands lie and when they can be read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from ...errors import VitruviusError
from ...models.integer_model import IntegerModel, IntegerOperator
from ..placement import Arena, Rows, ceil_div
from .core import DebugMemory
from .counters import Counter, modular
from .instruction import Destination, Norm, Product, Source
from .machine import Machine
from .packing import Packing
from .program import Boundary, Mixture, NormStep, Step
from .weight_placement import Matrix

__all__ = ["Draft", "Ready", "waiting"]


@dataclass(frozen=True)
class Ready:
    """When rows of a tensor can be read, and from where: row t once ``counter`` has come to
    ``first`` + t, or every row once it has come to ``first`` if they come ``together``. FETCHED
    says that whoever starts the product waits for all rows.
    """

    counter: Counter
    first: int
    source: Source
    together: bool = False


def waiting(item: Product, ready: Ready) -> Product:
    """``item`` with its rows from the source of ``ready``, each read when it is there."""
    if ready.counter is Counter.FETCHED:
        return replace(item, a_source=ready.source)
    return replace(
        item,
        a_source=ready.source,
        row_wait=ready.counter,
        row_threshold=modular(ready.first),
        row_step=int(not ready.together),
    )


class Draft:
    """What is compiled so far of ``model`` on ``machine``.

    steps, norms, columns, norm_columns, constants, boundaries, mixtures: as in a Program. tables:
    entries of each GELU of scheme ivit. matrices: those of the steps, in order, not placed yet.
    packing: the weights. places, ready: where the rows of an operator's result lie, and when they
    can be read. counts: of every counter, behind the last step. needs: the most that was asked of a
    buffer. readers: operators that read an operator. of_experts: Linears whose steps a Mixture
    makes. normal_readers: products issued once the rows of the last normalisation are read.
    """

    def __init__(
        self, model: IntegerModel, machine: Machine, of_experts: Collection[str] = ()
    ) -> None:
        self.model = model
        self.machine = machine
        self.steps: list[Step] = []
        self.norms: list[NormStep] = []
        self.matrices: list[Matrix] = []
        self.packing = Packing(model, machine)
        self.columns: list[int] = []
        self.norm_columns: list[int] = []
        self.tables: list[list[int]] = []
        self.constants: list[int] = []
        self.boundaries: list[Boundary] = []
        self.mixtures: list[Mixture] = []
        self.arena = Arena()
        self.places: dict[str, Rows] = {}
        self.ready: dict[str, Ready] = {}
        self.counts = dict.fromkeys(Counter, 0)
        self.needs: dict[str, int] = {}
        self.normal_readers = 0
        self.of_experts = of_experts
        self.readers = {
            operator.name: [reader for reader in model.operators if operator.name in reader.inputs]
            for operator in model.operators
        }

    # -- places -----------------------------------------------------------------------------------

    def need(self, buffer: str, amount: int) -> None:
        """Some operator needs ``amount`` of ``buffer``; the largest amount counts."""
        self.needs[buffer] = max(self.needs.get(buffer, 0), amount)

    def words(self, rows: int) -> int:
        """Operand words of ``rows`` rows of a buffer with rows of ``lanes`` bytes."""
        return rows * self.machine.subwords

    def rows(self, tokens: int, groups: int, group_features: int) -> Rows:
        """Rows from 0 on; each group of features begins a new one."""
        pitch = groups * ceil_div(group_features, self.machine.lanes)
        return Rows(0, pitch, tokens, groups, group_features)

    def place(self, name: str, tokens: int, groups: int, group_features: int) -> Rows:
        """Rows of the token buffer for the result of ``name``, until its last reader is done."""
        place = self.rows(tokens, groups, group_features)
        place = replace(place, base=self.arena.take(name, tokens * place.pitch))
        self.places[name] = place
        return place

    def boundary(self, operator: str, memory: DebugMemory, place: Rows) -> None:
        """The result of ``operator`` stands complete at ``place`` behind the last step."""
        scale = 1 if memory is DebugMemory.RESIDUAL else self.machine.subwords
        self.boundaries.append(
            Boundary(
                product=len(self.steps),
                operator=operator,
                memory=memory,
                base=place.base * scale,
                pitch=place.pitch * scale,
                tokens=place.tokens,
                features=place.groups * place.group_features,
                group=place.group_features,
                group_pitch=place.group_pitch * scale,
            )
        )

    def release(self, done: set[str]) -> None:
        """Gives back the token rows that only operators in ``done`` read."""
        for name in list(self.arena.live):
            if all(reader.name in done for reader in self.readers[name]):
                self.arena.free(name)

    # -- steps ------------------------------------------------------------------------------------

    def product(
        self, name: str, operator: IntegerOperator, item: Product, macs: int, gate: str = ""
    ) -> Ready:
        """Appends a product; says when its rows can be read, should they go to a token row. gate:
        the Gate that says how many rows there are; then ``macs`` are those of one.
        """
        first = self.counts[Counter.DRAINED] + 1
        self.steps.append(Step(name, operator.name, item, macs, gate))
        if not item.expert:
            self.counts[Counter.DRAINED] += item.tokens
        self.counts[Counter.ISSUED] += 1
        if item.destination in (Destination.SCORE, Destination.GATE):
            self.counts[Counter.WEIGHED] += item.tokens
        if item.destination is Destination.GATE:
            self.counts[Counter.ROUTED] += item.tokens
        if item.a_source is Source.NORMAL:
            self.normal_readers = self.counts[Counter.ISSUED]
        return Ready(Counter.DRAINED, first, Source.TOKEN)

    def queued_rows(self, gate: IntegerOperator, begun: int) -> None:
        """The steps from number ``begun`` on are those of the experts that ``gate`` chooses. How
        many rows each has is not known, but how many all of them drain.

        Raises VitruviusError if experts come in unequal numbers of parts.
        """
        tokens, experts = gate.output
        steps = self.steps[begun:]
        first: dict[int, str] = {}
        for index in range(experts):
            own = [step.operator for step in steps if step.instruction.expert == index + 1]
            first.setdefault(len(own), own[0])
        if len(first) > 1:
            few, many = min(first), max(first)
            raise VitruviusError(
                f"{self.model.name}: the experts of '{gate.name}' come in unequal numbers of "
                f"products on machine '{self.machine.name}', expected as many of each: that of "
                f"'{first[few]}' in {few}, that of '{first[many]}' in {many}; a larger "
                f"buffers.weight than {self.machine.buffers.weight} KiB, or experts of one width, "
                "make them equal"
            )
        (parts,) = first
        mixture = Mixture(
            gate.name, tokens, int(gate.attributes["k"]), experts, parts, len(self.steps)
        )
        self.mixtures.append(mixture)
        self.counts[Counter.DRAINED] += mixture.drained

    def norm(self, operator: IntegerOperator, item: Norm) -> Ready:
        """Appends a normalisation; says when its rows can be read."""
        first = self.counts[Counter.NORMALISED] + 1
        self.norms.append(NormStep(operator.name, item))
        self.counts[Counter.NORMALISED] += item.tokens
        return Ready(Counter.NORMALISED, first, Source.NORMAL)
