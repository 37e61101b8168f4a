"""Co-simulation: the generated Verilog against the integer golden and against the cycle
simulator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Literal

import torch
from torch import Tensor

from ..errors import VitruviusError
from ..hwgen.axi.bus import border_beats
from ..hwgen.axi.memory_model import DEFAULT_MEMORY, MemoryModel
from ..hwgen.axi.register_map import register, register_map
from ..hwgen.core.accelerator import COUNTERS, PEAKS
from ..hwgen.core.core import DebugMemory
from ..hwgen.core.image import ParameterImage
from ..hwgen.core.machine import Machine
from ..hwgen.core.program import Boundary, Program
from ..hwgen.core.queues import queue_word
from ..hwgen.generate import TOP, verilog_of
from ..models.integer_model import IntegerModel, IntegerOperator
from .cycle import simulate
from .native.build import build_native
from .native.engine import NativeOutcome, NativeProgress, NativeRun, ScriptRun
from .native.script import Script
from .routing import routing_of

__all__ = [
    "ENGINES",
    "UNTIMED",
    "CosimReport",
    "Engine",
    "Mismatch",
    "Progress",
    "cosimulate",
    "prepare",
]

Engine = Literal["native", "cocotb"]
ENGINES: tuple[Engine, ...] = ("native", "cocotb")

UNTIMED = (
    "PRODUCT_CYCLES", "PADDING_CYCLES", "TOKEN_WORDS", "QUERY_WORDS", "WEIGHT_WORDS", "KEY_WORDS",
    "VALUE_WORDS", "DRAINED_CHUNKS", "SOFTMAX_CHUNKS", "NORM_CHUNKS", "READ_BEATS", "WRITTEN_BEATS",
    *PEAKS,
)  # fmt: skip
"""Counters that are the same whenever memory answers."""

_DONE, _ERROR = 1 << 1, 0xF << 4
_SPARE_CYCLES = 1_000_000


@dataclass(frozen=True)
class Mismatch:
    """The first difference in a tensor of an image: element [token][feature] (of a queue the entry,
    and 0 for its token or 1 for its weight), expected from the golden, got from the RTL; how many
    elements differ.
    """

    image: int
    tensor: str
    token: int
    feature: int
    expected: int
    got: int
    differing: int


@dataclass(frozen=True)
class Progress:
    """How far a co-simulation is: clock cycles, their rate, and the product that is being issued
    ("" where none is known).
    """

    phase: Literal["build", "simulate"]
    images: int
    cycles: int
    cycles_per_s: float
    layer: str


@dataclass(frozen=True)
class CosimReport:
    """What a co-simulation found.

    bit_exact_images: images of which every logit and every compared tensor equals the golden.
    timed: memory followed ``memory``'s rules, so that cycles are predicted. predicted_cycles,
    rtl_cycles: for each image the cycles from the start, or from when memory had the image before;
    rtl_cycles is empty where the answers of memory cannot be seen (memory on the chip), and both
    are empty where cycles are not predicted.
    counters: name -> (predicted, measured) of the whole run, which began with nothing loaded;
    without ``timed`` only those that no memory can change. cycles: the CYCLES register.
    cycles_per_s: simulated cycles per second of wall time, after the build.
    logits: codes per image from the RTL. tensors_compared: tensors beside the logits, over all
    images; queues_compared: queues of experts, token by token with the weights, over all images.
    """

    model: str
    machine: str
    engine: str
    memory: MemoryModel
    timed: bool
    images: int
    bit_exact_images: int
    cycles: int
    predicted_cycles: list[int]
    rtl_cycles: list[int]
    counters: dict[str, tuple[int, int]]
    cycles_per_s: float
    build_s: float
    wall_s: float
    logits: list[list[int]]
    tensors_compared: int
    mismatches: tuple[Mismatch, ...]
    queues_compared: int = 0
    task: int = 0

    @property
    def cycle_exact(self) -> bool:
        """Whether every counter, and every image's cycles where they are seen, equal the
        prediction.
        """
        seen = not self.rtl_cycles or self.predicted_cycles == self.rtl_cycles
        return seen and all(predicted == measured for predicted, measured in self.counters.values())


def prepare(machine: Machine, engine: Engine = "native", *, trace: bool = False) -> ScriptRun:
    """The compiled accelerator of ``machine``, made once, on an engine.

    Raises VitruviusError if a tool is missing or the build fails.
    """
    if engine not in ENGINES:
        raise VitruviusError(f"unknown engine '{engine}': expected {' or '.join(ENGINES)}")
    if engine != "native":
        if trace:
            raise VitruviusError(f"waves: expected engine native, got {engine}")
        if machine.memory:
            raise VitruviusError(
                f"machine '{machine.name}' has its memory on the chip: expected engine native, "
                f"got {engine}"
            )
    if engine == "cocotb":
        from .cocotb_bus import CocotbRun

        return CocotbRun(verilog_of(machine))
    return NativeRun(build_native(verilog_of(machine), TOP, trace=trace))


def cosimulate(
    program: Program,
    images: Tensor,
    *,
    engine: Engine = "native",
    tensors: Literal["all", "blocks", "none"] = "blocks",
    memory: MemoryModel = DEFAULT_MEMORY,
    jitter: int | None = None,
    task: int = 0,
    waves: Path | None = None,
    prepared: ScriptRun | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop: Event | None = None,
) -> CosimReport:
    """Runs float ``images`` [n, C, H, W] through the Verilog of ``program``, back to back in one
    run, and compares.

    tensors: which intermediate tensors are compared beside the logits: the residual stream at block
    boundaries, every tensor that rests in a buffer, or none; unless none, the queues of all experts
    too. For them each image runs once more, alone, and is stopped wherever one stands complete.
    memory: its timing, which the cycle simulator predicts; that of the engine cocotb is
    cocotbext-axi's own, and memory on the chip has its own. jitter: a seed for random waits on
    every channel on top; then cycles are not predicted. task: whose gates are used.
    waves: where to leave an FST file (slow).
    prepared: what `prepare` gave, if it is at hand. stop: once set, the run is ended.

    Raises VitruviusError if a tool is missing, the build fails, a bus rule is broken or the run
    ends in an error.
    """
    if engine not in ENGINES:
        raise VitruviusError(f"unknown engine '{engine}': expected {' or '.join(ENGINES)}")
    if len(images) == 0:
        raise VitruviusError("co-simulation: expected at least one image, got none")
    began = time.perf_counter()
    if progress is not None:
        progress(Progress("build", len(images), 0, 0.0, ""))
    prepared = prepared or prepare(program.machine, engine, trace=waves is not None)
    build_s = time.perf_counter() - began
    chosen = [
        item
        for item in program.boundaries
        if 0 < item.product < len(program.steps)
        and (tensors == "all" or (tensors == "blocks" and item.memory is DebugMemory.RESIDUAL))
    ]
    golden = program.model.for_task(task)
    routing = routing_of(program, images, task)
    predicted = simulate(program, images=len(images), memory=memory, routing=routing, task=task)
    limit = 20 * predicted.cycles + _SPARE_CYCLES
    queues = [] if tensors == "none" else _queues(program, golden, images)
    session = _Session(program, images, chosen, queues, task=task, limit=limit)

    def tell(state: NativeProgress) -> None:
        if progress is not None:
            known = 0 <= state.product < len(program.steps)
            layer = program.steps[state.product].name if known else ""
            progress(Progress("simulate", len(images), state.cycles, state.cycles_per_s, layer))

    outcome = prepared.run(
        session.script,
        memory=session.contents,
        model=predicted.memory,
        jitter=jitter,
        waves=waves,
        progress=tell,
        stop=stop,
    )
    if outcome.values["status"] & (_DONE | _ERROR) != _DONE:
        raise VitruviusError(
            f"co-simulation: the accelerator stopped with status {outcome.values['status']:#010x}"
        )
    timed = jitter is None and engine != "cocotb"
    logits, mismatches = session.compare(outcome, golden)
    wrong = {item.image for item in mismatches}
    return CosimReport(
        model=program.model.name,
        machine=program.machine.name,
        engine=engine,
        memory=predicted.memory,
        timed=timed,
        images=len(images),
        bit_exact_images=len(images) - len(wrong),
        cycles=outcome.values["CYCLES"],
        predicted_cycles=predicted.image_cycles if timed else [],
        rtl_cycles=session.image_cycles(outcome) if timed else [],
        counters={
            name: (predicted.counters[name], outcome.values[name])
            for name in (COUNTERS if timed else UNTIMED)
        },
        cycles_per_s=outcome.cycles_per_s,
        build_s=build_s,
        wall_s=time.perf_counter() - began,
        logits=logits,
        tensors_compared=len(chosen) * len(images),
        mismatches=mismatches,
        queues_compared=len(queues),
        task=task,
    )


class _Session:
    """What the host does in a co-simulation, what lies in memory, and what comes back."""

    def __init__(
        self,
        program: Program,
        images: Tensor,
        chosen: Sequence[Boundary],
        queues: Sequence[_Queue],
        *,
        task: int,
        limit: int,
    ) -> None:
        self.program, self.images, self.chosen, self.limit = program, images, chosen, limit
        self.queues = queues
        self.layout = layout = ParameterImage(program, images=len(images))
        self.on_chip = bool(program.machine.memory)
        self.contents: list[tuple[int, bytes]] = [(layout.parameters, layout.to_bytes())]
        self.contents += [
            (layout.images + index * layout.image_pitch, layout.image_bytes(image))
            for index, image in enumerate(images)
        ]
        self.script = script = Script()
        if self.on_chip:
            for address, data in self.contents:
                script.load_on_chip(address, data)
            self.contents = []
        for name, value in (
            ("PARAMETERS", layout.parameters),
            ("IMAGES", layout.images),
            ("RESULTS", layout.results),
            ("COUNT", len(images)),
            ("IMAGE_PITCH", layout.image_pitch),
            ("RESULT_PITCH", layout.result_pitch),
            ("TASK", task),
        ):
            script.write(register(name), value)
        script.write(register("CONTROL"), 1).wait_done(limit)
        registers = register_map(COUNTERS)
        for name in COUNTERS:
            script.read(register(name, registers), name)
        dump = script.dump_on_chip if self.on_chip else script.dump
        dump(layout.results, layout.result_pitch * len(images), "results")
        if chosen or queues:
            script.write(register("COUNT"), 1)
            for index in range(len(images)):
                self._stopped(index)

    def _stopped(self, image: int) -> None:
        """The image once more, stopped before each product before which a tensor is complete."""
        script, machine = self.script, self.program.machine
        before = {boundary.product for boundary in self.chosen}
        before |= {queue.product for queue in self.queues}
        # The last layer's queues are still there when the image is done.
        *stops, end = sorted({*before, len(self.program.steps)})
        script.write(register("IMAGES"), self.layout.images + image * self.layout.image_pitch)
        script.write(register("BREAK"), stops[0] if stops else 0).write(register("CONTROL"), 1)
        for stop, after in zip(stops, [*stops[1:], 0], strict=True):
            script.wait_done(self.limit, name=f"stop{image}_{stop}")
            for number, boundary in enumerate(self.chosen):
                if boundary.product == stop:
                    script.read_debug(
                        boundary.memory,
                        boundary.base,
                        boundary.tokens * boundary.pitch,
                        -(-_word_bits(machine, boundary) // 32),
                        f"tensor{image}_{number}",
                    )
            self._read_queues(image, stop)
            script.write(register("BREAK"), after).write(register("CONTROL"), 2)
        script.wait_done(self.limit, name=f"stopped{image}")
        self._read_queues(image, end)

    def _read_queues(self, image: int, stop: int) -> None:
        """The queues of the mixture that is complete before product ``stop``, if there is one."""
        for number, queue in enumerate(self.queues):
            if (queue.image, queue.product) == (image, stop):
                first, count = queue_word(queue.expert, 0), max(1, len(queue.entries))
                self.script.read_debug(DebugMemory.QUEUE, first, count, 2, f"queue{number}")

    def compare(
        self, outcome: NativeOutcome, model: IntegerModel
    ) -> tuple[list[list[int]], tuple[Mismatch, ...]]:
        """(logits of each image, differences from ``model``) of what a run left."""
        golden: dict[str, Tensor] = {}

        def look(operator: IntegerOperator, codes: Tensor) -> None:
            golden[operator.name] = codes

        expected = model.run(self.images, observe=look)
        layout, machine = self.layout, self.program.machine
        logits = []
        found: list[Mismatch] = []
        for image in range(len(self.images)):
            codes = layout.results_of(outcome.data["results"][image * layout.result_pitch :])
            logits.append(codes)
            found += _difference(image, "logits", expected[image].reshape(1, -1), [codes])
            for number, boundary in enumerate(self.chosen):
                got = _tensor(machine, boundary, outcome.data[f"tensor{image}_{number}"])
                found += _difference(
                    image, boundary.operator, golden[boundary.operator][image], got
                )
        for number, queue in enumerate(self.queues):
            data = torch.frombuffer(bytearray(outcome.data[f"queue{number}"]), dtype=torch.uint16)
            rows = data.to(torch.int64).reshape(-1, 4)
            length, name = int(rows[0, 2]), f"{queue.gate}: queue of expert {queue.expert}"
            got = rows[:length, :2]
            if length > len(rows):
                got = torch.zeros(length, 2)
            expected_rows = torch.tensor(queue.entries, dtype=torch.int64).reshape(-1, 2)
            found += _difference(queue.image, name, expected_rows, got)
        return logits, tuple(found)

    def image_cycles(self, outcome: NativeOutcome) -> list[int]:
        """Cycles of each image, from when memory acknowledged its results; the last one is when
        CYCLES stops.
        """
        port_bits = self.program.machine.port_bits
        bursts = -(-self.layout.result_beats // border_beats(port_bits))
        last = outcome.traffic.answers[bursts - 1 : bursts * len(self.images) : bursts]
        if not last:
            return []
        ends = [outcome.values["CYCLES"] - (last[-1] - cycle) for cycle in last]
        return [end - before for end, before in zip(ends, [0, *ends], strict=False)]


@dataclass(frozen=True)
class _Queue:
    """A queue as it must be: ``entries`` are (token, weight), complete before product ``product``
    of image number ``image``.
    """

    image: int
    product: int
    gate: str
    expert: int
    entries: list[tuple[int, int]]


def _queues(program: Program, golden: IntegerModel, images: Tensor) -> list[_Queue]:
    """The queues of all experts of all images."""
    tables = golden.routing(images) if program.mixtures else {}
    found = []
    for image in range(len(images)):
        for mixture in program.mixtures:
            table = tables[mixture.gate]
            for expert in range(mixture.experts):
                tokens, place = (table.experts[image] == expert).nonzero(as_tuple=True)
                weights = table.weights[image][tokens, place]
                entries = list(zip(tokens.tolist(), weights.tolist(), strict=True))
                found.append(_Queue(image, mixture.product, mixture.gate, expert, entries))
    return found


def _word_bits(machine: Machine, boundary: Boundary) -> int:
    wide = boundary.memory is DebugMemory.RESIDUAL
    return 16 * machine.cols if wide else 8 * machine.depth


def _tensor(machine: Machine, boundary: Boundary, data: bytes) -> Tensor:
    """The codes [tokens, features] of a tensor, from the words of its memory."""
    wide = boundary.memory is DebugMemory.RESIDUAL
    bits = _word_bits(machine, boundary)
    words = torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(-1, 4 * -(-bits // 32))
    lanes = words[:, : bits // 8].contiguous().view(torch.int16 if wide else torch.int8)
    rows = lanes.to(torch.int64).reshape(boundary.tokens, boundary.pitch, -1)
    parts = [
        rows[:, group * boundary.group_pitch : (group + 1) * boundary.group_pitch].reshape(
            boundary.tokens, -1
        )[:, : boundary.group]
        for group in range(boundary.features // boundary.group)
    ]
    return torch.cat(parts, dim=1)


def _difference(
    image: int, name: str, expected: Tensor, codes: Tensor | Sequence[Sequence[int]]
) -> list[Mismatch]:
    got = torch.as_tensor(codes, dtype=torch.int64)
    if got.shape != expected.shape:
        return [Mismatch(image, name, 0, 0, expected.numel(), got.numel(), got.numel())]
    places = (got != expected).nonzero()
    if len(places) == 0:
        return []
    token, feature = (int(part) for part in places[0])
    return [
        Mismatch(
            image,
            name,
            token,
            feature,
            int(expected[token, feature]),
            int(got[token, feature]),
            len(places),
        )
    ]
