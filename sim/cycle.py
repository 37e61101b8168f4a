"""The cycle simulator: executes a Program in cycles, without data.

It reads what the engines read, the encoded instructions, and the cycle contracts that stand beside
the RTL: when each row is read, drained, weighed and normalised, when each transfer ends. An engine
only ever waits for what came before, so one pass in program order finds every cycle. The counters
are those of the accelerator's registers and must equal them, on a memory with the rules of
`MemoryModel`.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..hwgen.axi.fetch_timeline import FetchTimeline
from ..hwgen.axi.memory_model import DEFAULT_MEMORY, MemoryModel
from ..hwgen.axi.onchip import ON_CHIP_MODEL
from ..hwgen.axi.store import StoreTimeline
from ..hwgen.core.accelerator import PEAKS
from ..hwgen.core.core import EVENTS
from ..hwgen.core.counters import COUNTER_BITS, Counter
from ..hwgen.core.image import ParameterImage
from ..hwgen.core.instruction import Destination, Norm, Product, Source, decode, encode
from ..hwgen.core.product_engine import CONTEXTS
from ..hwgen.core.program import Program
from ..hwgen.core.runner import FETCH
from ..hwgen.core.schedule import QUEUE_READ
from ..hwgen.units.compute_array import LATENCY as ARRAY_LATENCY
from ..hwgen.units.router import cycles as router_cycles
from .contracts import Contracts, Cycles
from .routing import Routing, check_routing, even_routing, fetch_gates

__all__ = ["CycleReport", "ImageTimes", "ProductTimes", "simulate"]

_PAST = -(1 << 62)


@dataclass(frozen=True)
class ProductTimes:
    """One product of one image: the cycle in which it began (``go``), those of its first word and
    behind its last step, and the one in which its last row was complete; cycles lost before and in
    it, by cause. index: of the program's step; tokens: its rows, 0 of an expert without tokens,
    whose product is passed over in the cycle ``go``.
    """

    index: int
    name: str
    operator: str
    image: int
    tokens: int
    go: int
    first: int
    end: int
    complete: int
    macs: int
    product_cycles: int
    padding: int
    lost: dict[str, int]


@dataclass(frozen=True)
class ImageTimes:
    """Cycle in which an image's results stood in the result buffer, and in which memory had
    acknowledged them.
    """

    ready: int
    stored: int


@dataclass(frozen=True)
class CycleReport:
    """A run of ``images`` images, cycle 0 being the one of the start.

    counters: name of a register -> predicted value. begun: the first cycle in which the programs
    run; booted: whether everything was loaded before the start. routing: of each image.
    """

    program: Program
    memory: MemoryModel
    products: tuple[ProductTimes, ...]
    norms: tuple[tuple[int, int], ...]
    fetches: tuple[tuple[int, int], ...]
    images: tuple[ImageTimes, ...]
    counters: dict[str, int]
    begun: int
    booted: bool
    routing: Sequence[Routing] = ()

    @property
    def cycles(self) -> int:
        """The CYCLES register."""
        return self.counters["CYCLES"]

    @property
    def image_cycles(self) -> list[int]:
        """For each image the cycles since the start, or since memory had the results before."""
        ends = [image.stored for image in self.images]
        return [end - before for end, before in zip(ends, [0, *ends], strict=False)]

    def spans(self, image: int = 0) -> list[int]:
        """Cycles from the last word of the product before to each product's own last word. They are
        its PRODUCT_CYCLES and what was lost before and in it.
        """
        ends = [item.end for item in self.products]
        before = [self.begun + 1, *ends]
        return [
            item.end - start
            for item, start in zip(self.products, before, strict=False)
            if item.image == image
        ]

    @property
    def traffic(self) -> dict[str, int]:
        """Bytes that the first image moves through the memory port, by what they are;
        ``unavoidable``: each weight of the model once, all experts in use.
        """
        program = self.program
        weights = sum(
            operator_weights.numel()
            for name, operator_weights in program.model.tensors.items()
            if name.endswith(".weight")
        )
        layout = ParameterImage(program)
        skipped = sum(
            layout.place(fetch, 0)[1] * layout.beat_bytes
            for fetch, gate in zip(program.fetches, fetch_gates(program), strict=True)
            if gate and not self.routing[0][gate][fetch.expert - 1]
        )
        traffic = layout.traffic
        traffic["weights"] -= skipped
        return {**traffic, "unavoidable": weights}

    @property
    def utilisation(self) -> float:
        """Useful products per product that the array could have done in the time."""
        useful = sum(item.macs for item in self.products)
        return useful / (self.cycles * self.program.machine.multipliers)


def simulate(
    program: Program,
    *,
    images: int = 1,
    memory: MemoryModel = DEFAULT_MEMORY,
    booted: bool = False,
    routing: Sequence[Routing] | None = None,
    task: int = 0,
    contracts: Contracts | None = None,
) -> CycleReport:
    """The counters of a run of ``images`` images. ``booted``: an earlier run has loaded the program
    and the columns; by default nothing is loaded. Memory on the chip has a timing of its own.
    ``routing``: of each image, `even_routing` by default. ``task``: whose gates are used.
    ``contracts``: those of hardware to compare with, in place of the machine's own.

    Raises VitruviusError for a routing that no image of the model can have.
    """
    if program.machine.memory:
        memory = ON_CHIP_MODEL
    if routing is None:
        routing = [even_routing(program)] * images
    check_routing(program, routing, images)
    return _Simulation(program, images, memory, booted, routing, task, contracts).run()


@dataclass
class _Rows:
    """A counter over time: the cycle in which it first shows 1, 2, 3 …"""

    parts: list[Cycles] = field(default_factory=list)
    total: int = 0
    _whole: Cycles | None = None

    def add(self, cycles: Cycles) -> None:
        self.parts.append(cycles)
        self.total += len(cycles)
        self._whole = None

    def reached(self, first: int, count: int, step: int) -> Cycles:
        """When the counter shows ``first``, ``first`` + step, … (``count`` of them)."""
        if self._whole is None:
            self._whole = np.concatenate([np.full(1, _PAST), *self.parts])
            self.parts = [self._whole[1:]]
        wanted = first + step * np.arange(count)
        return self._whole[np.maximum(wanted, 0)]


class _Simulation:
    def __init__(
        self,
        program: Program,
        images: int,
        memory: MemoryModel,
        booted: bool,
        routing: Sequence[Routing],
        task: int,
        contracts: Contracts | None,
    ) -> None:
        machine = program.machine
        self.routing, self.task = routing, task
        self.routed: list[int] = []  # the first cycle that shows 1, 2, 3 … tokens routed
        self.expected = 0  # rows that are drained when all that has begun is
        self.gates = {index: step.gate for index, step in enumerate(program.steps) if step.gate}
        self.fetch_gates = fetch_gates(program)
        self.program, self.images, self.memory = program, images, memory
        self.booted = booted
        self.machine, self.contracts = machine, contracts or Contracts()
        scheme = machine.scheme
        self.arithmetic = machine.arithmetic
        self.products = [
            decode(Product, encode(step.instruction, scheme), scheme) for step in program.steps
        ]
        self.norms = [
            decode(Norm, encode(step.instruction, scheme), scheme) for step in program.norms
        ]
        self.totals = program.totals
        self.layout = ParameterImage(program, images=images)
        self.timeline = FetchTimeline(
            memory, port_bits=machine.port_bits, outstanding=machine.outstanding
        )
        self.counts = {
            name: _Rows() for name in (Counter.DRAINED, Counter.WEIGHED, Counter.NORMALISED)
        }
        self.issued: list[int] = []  # the first cycle that shows 1, 2, 3 … products issued
        self.fetched: list[int] = []
        self.events: Tally[str] = Tally()
        self.peaks = dict.fromkeys(PEAKS, 0)
        # the norm engine: next instruction, when it can be taken
        self.norm_at = 0
        self.norm_image = 0
        self.norm_free = 0
        self.norm_spans: list[tuple[int, int]] = []
        self.fetch_at = 0
        self.fetch_image = 0
        self.fetch_spans: list[tuple[int, int]] = []
        self.weigher_free = _PAST

    def run(self) -> CycleReport:
        program, machine = self.program, self.program.machine
        layout = self.layout
        begun = 1
        if self.booted:
            self.timeline.begin(0)
        else:
            begun = self.timeline.boot(
                0,
                layout.parameters,
                layout.header.offset,
                layout.header.beats,
                layout.boot_descriptors,
            )
        self.norm_free = begun + FETCH
        store = StoreTimeline(
            self.memory,
            port_bits=machine.port_bits,
            cols=machine.cols,
            code_bits=self.arithmetic.result_bits,
        )
        times: list[ProductTimes] = []
        images: list[ImageTimes] = []
        completes: list[int] = []
        valid, idle_from = begun + FETCH, begun + 1
        stored = _PAST
        for image in range(self.images):
            for index, instruction in enumerate(self.products):
                step = program.steps[index]
                tokens = self._tokens(instruction, index, image)
                item = replace(instruction, tokens=tokens)
                lost: dict[str, int] = {}
                ready = max(valid, idle_from)
                lost["SWITCH_CYCLES"] = max(0, valid - idle_from) + 1
                free = completes[-CONTEXTS] if len(completes) >= CONTEXTS else _PAST
                go = max(ready, free)
                lost["WAIT_CONTEXT"] = go - ready
                if item.results:
                    before = go
                    go = max(go, stored)
                    lost["WAIT_STORE"] = go - before
                if item.start_wait is not Counter.NONE:
                    at = self._when(item.start_wait, item.start_threshold, image, 1, 0)[0]
                    cause = f"WAIT_{item.start_wait.name}"
                    lost[cause] = lost.get(cause, 0) + max(0, int(at) - go)
                    go = max(go, int(at))
                if not tokens:
                    self.issued.append(go + 1)
                    if item.final:
                        ready_at = max(go + 1, completes[-1])
                    times.append(
                        ProductTimes(
                            index, step.name, step.operator, image, 0, go, go, go + 1, go + 1, 0, 0,
                            0, lost,
                        )
                    )  # fmt: skip
                    self.events.update(lost)
                    idle_from = go + 1
                    valid = go + FETCH * (1 if index + 1 < len(self.products) else 2)
                    continue
                first, end, complete, waited = self._product(item, go, image)
                if waited:
                    cause = f"WAIT_{item.row_wait.name}"
                    lost[cause] = lost.get(cause, 0) + waited
                completes.append(complete)
                self.issued.append(end)
                plan = self.contracts.schedule(item, machine)
                padding = plan.steps * plan.padding + QUEUE_READ * (item.expert > 0)
                macs = step.macs * tokens if step.gate else step.macs
                times.append(
                    ProductTimes(
                        index, step.name, step.operator, image, tokens, go, first, end, complete,
                        macs, plan.steps * item.words, padding, lost,
                    )
                )  # fmt: skip
                if item.final:
                    # The pulse that they are complete comes a cycle before the counter shows it.
                    ready_at = complete - 1
                steps = self.contracts.read_steps(item, plan, machine)
                self._tally(item, steps, lost, padding)
                idle_from = end
                valid = go + FETCH * (1 if index + 1 < len(self.products) else 2)
            stored = store.store(
                ready_at, layout.results + image * layout.result_pitch, program.results
            )
            images.append(ImageTimes(ready_at, stored))
            # busy falls in the cycle after done
            stored += 1
        self._drain_engines()
        self.events["SWITCH_CYCLES"] += max(0, times[-1].go + FETCH + 1 - times[-1].end)
        timeline = self.timeline
        counters = {
            "CYCLES": images[-1].stored,
            **{name: self.events[name] for name in EVENTS},
            "READ_BEATS": timeline.read_beats,
            "FETCH_WAITS": timeline.product_waits,
            "MEMORY_WAITS": timeline.memory_waits,
            "WRITTEN_BEATS": self.images * layout.result_beats,
            **self.peaks,
        }
        return CycleReport(
            program, self.memory, tuple(times), tuple(self.norm_spans), tuple(self.fetch_spans),
            tuple(images), counters, begun, self.booted, tuple(self.routing),
        )  # fmt: skip

    # -- what is waited for -----------------------------------------------------------------------

    def _when(self, counter: Counter, threshold: int, image: int, count: int, step: int) -> Cycles:
        """The first cycles in which ``counter`` shows the threshold, one row after the other."""
        absolute = _signed(threshold) + image * self.totals[counter]
        last = absolute + step * (count - 1)
        if counter is Counter.FETCHED:
            while len(self.fetched) < last:
                self._fetch()
            return np.array([self.fetched[absolute - 1] if absolute > 0 else _PAST])
        if counter is Counter.ISSUED:
            return np.array([self.issued[absolute - 1] if absolute > 0 else _PAST])
        if counter is Counter.NORMALISED:
            while self.counts[counter].total < last:
                self._norm()
        return self.counts[counter].reached(absolute, count, step)

    def _drain_engines(self) -> None:
        """What the engines still do when the last product is issued."""
        while self.norm_image < self.images:
            self._norm()
        while self.fetch_image < self.images:
            self._fetch()

    # -- engines ----------------------------------------------------------------------------------

    def _product(self, item: Product, go: int, image: int) -> tuple[int, int, int, int]:
        """(cycle of the first word, cycle behind the last step, first cycle that shows all rows
        drained, cycles that rows waited).
        """
        plan = self.contracts.schedule(item, self.machine)
        go += QUEUE_READ * (item.expert > 0)
        slot, load_step, finish_step = self.contracts.rows(item, plan, self.machine)
        start = load_step * plan.step_cycles + go + 1 + plan.padding
        if item.row_wait is Counter.NONE:
            delay = np.zeros(item.tokens, dtype=np.int64)
        else:
            threshold = item.row_threshold
            if item.relative:
                threshold = self.expected - item.tokens + 1 - image * self.totals[Counter.DRAINED]
            at = self._when(item.row_wait, threshold, image, item.tokens, item.row_step)
            delay = np.maximum.accumulate(np.maximum(at - start, 0))
        # A step is as late as the last row that was read before it or in it.
        late = delay[np.searchsorted(load_step, finish_step, side="right") - 1]
        issued = (finish_step + 1) * plan.step_cycles + go + late
        drained = issued + 1 + ARRAY_LATENCY + slot
        complete = self.arithmetic.complete + 1
        self.counts[Counter.DRAINED].add(drained + complete)
        self.expected += item.tokens
        if item.destination in (Destination.SCORE, Destination.GATE):
            scales = self._weigh(drained + self.arithmetic.requantized, item.tiles)
            if item.destination is Destination.GATE:
                routed = router_cycles(scales.tolist(), tiles=item.tiles, top=item.top)
                self.routed += [cycle + 1 for cycle in routed]
        end = go + 1 + plan.issue_cycles + int(delay[-1])
        began = int(delay[np.searchsorted(load_step, 0, side="right") - 1]) + int(start[0])
        return began, end, int(drained[-1]) + complete, int(delay[-1])

    def _weigh(self, arrivals: Cycles, tiles: int) -> Cycles:
        """Rows whose last scores arrive at the softmax in these cycles; returns when their scales
        leave it.
        """
        busy = self.contracts.softmax_cycles(tiles)
        index = np.arange(len(arrivals)) * busy
        earliest = arrivals + self.arithmetic.softmax_start
        earliest[0] = max(int(earliest[0]), self.weigher_free)
        first = np.maximum.accumulate(earliest - index) + index
        self.weigher_free = int(first[-1]) + busy
        passes, tail = self.arithmetic.softmax_passes, self.arithmetic.softmax_tail
        scales = first + passes * (busy - 1) + tail
        self.counts[Counter.WEIGHED].add(scales + 1)
        self.events["SOFTMAX_CHUNKS"] += tiles * len(arrivals)
        return scales

    def _tokens(self, item: Product, index: int, image: int) -> int:
        """Rows of a product in this image."""
        if not item.expert:
            return item.tokens
        return self.routing[image][self.gates[index]][item.expert - 1]

    def _norm(self) -> None:
        """The next instruction of the norm engine."""
        if not self.norms:
            self.norm_image = self.images
            return
        item, image = self.norms[self.norm_at], self.norm_image
        start = max(
            self.norm_free,
            int(self._when(Counter.ISSUED, item.start_threshold, image, 1, 0)[0]),
        )
        at = self._when(
            Counter.DRAINED, item.row_threshold, image, item.tokens, item.row_step
        ).tolist()
        scale, late = self.arithmetic.norm_scale, self.arithmetic.norm_late
        offered, taken_before = start, _PAST
        taken = deque([_PAST] * self.arithmetic.norm_scales)
        complete = np.empty(item.tokens, dtype=np.int64)
        for row, available in enumerate(at):
            fetch = max(offered + 1, available)
            offered = max(fetch + 1, taken.popleft() + 1)
            taken_before = max(offered + scale, taken_before + item.tiles)
            taken.append(taken_before)
            complete[row] = taken_before + item.tiles + late
        self.counts[Counter.NORMALISED].add(complete + 1)
        self.events["NORM_CHUNKS"] += item.tiles * item.tokens
        self.norm_spans.append((start, int(complete[-1])))
        self.norm_at += 1
        valid = start + FETCH
        if self.norm_at == len(self.norms):
            self.norm_at = 0
            self.norm_image += 1
            valid += FETCH
        self.norm_free = max(valid, int(complete[-1]) + 1)

    def _fetch(self) -> None:
        """The next transfer from memory."""
        index, image = self.fetch_at, self.fetch_image
        fetch = self.program.fetches[index]
        ready = _PAST
        if fetch.threshold is not None:
            absolute = fetch.threshold + image * self.totals[Counter.ISSUED]
            if absolute > 0:
                ready = self.issued[absolute - 1]
        address, beats = self.layout.place(fetch, image, self.task)
        began = self.fetched[-1] if self.fetched else 0
        skipped = False
        if fetch.expert:
            skipped = not self.routing[image][self.fetch_gates[index]][fetch.expert - 1]
            tokens = fetch.routed + image * self.totals[Counter.ROUTED]
            ready = max(ready, self.routed[tokens - 1])
        self.fetched.append(
            self.timeline.fetch(ready, address, beats, skipped=skipped, by_task=fetch.tasks > 1)
        )
        self.fetch_spans.append((max(ready, began), self.fetched[-1]))
        self.fetch_at += 1
        if self.fetch_at == len(self.program.fetches):
            self.fetch_at = 0
            self.fetch_image += 1
            self.timeline.loop()

    # -- counters ---------------------------------------------------------------------------------

    def _tally(self, item: Product, steps: int, lost: dict[str, int], padding: int) -> None:
        events = self.events
        words = steps * item.words
        events["PRODUCT_CYCLES"] += words
        events["PADDING_CYCLES"] += padding
        for name, cycles in lost.items():
            events[name] += cycles
        side = {Source.KEY: "KEY", Source.VALUE: "VALUE"}.get(item.b_source, "WEIGHT")
        loads = self.contracts.loads(item, self.machine)
        counted = np.arange(item.void, item.tokens) // loads
        at_once = int(np.bincount(counted).max()) if len(counted) else 0
        for port, read, peak in (
            ("TOKEN", len(counted) * item.words, at_once),
            ("QUERY", len(counted) * item.words * (side == "KEY"), at_once * (side == "KEY")),
            (side, words, 1),
        ):
            events[f"{port}_WORDS"] += read
            self.peaks[f"PEAK_{port}_WORDS"] = max(self.peaks[f"PEAK_{port}_WORDS"], peak)
        events["DRAINED_CHUNKS"] += item.tokens * item.tiles


def _signed(threshold: int) -> int:
    """A threshold as the compiler meant it: those of an earlier image are negative."""
    return threshold - (1 << COUNTER_BITS) if threshold >> (COUNTER_BITS - 1) else threshold
