"""Co-simulation: the generated Verilog against the integer golden and against the cycle
simulator.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Literal

import torch
from torch import Tensor

from ..errors import VitruviusError
from ..hwgen.generate import TOP, generate
from ..hwgen.program import Program
from ..models.integer_model import IntegerOperator
from .bench import BenchError, build_cocotb, run_cocotb, run_logged
from .cycle import simulate
from .host import ImageRun
from .job import Job, JobImage, read_outcome, read_progress
from .verilator import toolchain_environment

__all__ = [
    "ENGINES",
    "CosimReport",
    "Engine",
    "Mismatch",
    "Progress",
    "StepComparison",
    "cosimulate",
]

Engine = Literal["cocotb", "pyverilator"]
ENGINES: tuple[Engine, ...] = ("cocotb", "pyverilator")
_IMAGES_PER_WORKER = 8


@dataclass(frozen=True)
class Mismatch:
    """The first difference in a tensor: element [token][feature], expected from the golden, got
    from the RTL.
    """

    image: int
    tensor: str
    token: int
    feature: int
    expected: int
    got: int
    differing: int


@dataclass(frozen=True)
class StepComparison:
    """Cycles of one step of the first image: predicted by the simulator, measured by the RTL's
    counter.
    """

    name: str
    kind: str
    predicted: int
    measured: int


@dataclass(frozen=True)
class Progress:
    """How far a co-simulation is; cycles_per_s is 0 until the first image is through."""

    phase: str
    images: int
    of: int
    cycles: int
    cycles_per_s: float


@dataclass(frozen=True)
class CosimReport:
    """What a co-simulation found.

    bit_exact_images: images of which every logit and every compared tensor equals the golden.
    predicted_cycles,
    rtl_cycles: per image. cycles_per_s: simulated cycles per second of
    wall time, after the build, of all ``workers`` simulator processes together.
    logits: codes per image from the RTL. tensors_compared: tensors beside the logits, over all
    images.
    counters: name -> (predicted, measured) of the first image.
    """

    model: str
    machine: str
    engine: str
    images: int
    bit_exact_images: int
    predicted_cycles: list[int]
    rtl_cycles: list[int]
    cycles_per_s: float
    build_s: float
    workers: int
    wall_s: float
    steps: tuple[StepComparison, ...]
    counters: dict[str, tuple[int, int]]
    logits: list[list[int]]
    tensors_compared: int
    mismatches: tuple[Mismatch, ...]

    @property
    def cycle_exact(self) -> bool:
        """Whether every image's cycles, and every step and counter of the first, equal the
        prediction.
        """
        return (
            self.predicted_cycles == self.rtl_cycles
            and all(step.predicted == step.measured for step in self.steps)
            and all(predicted == measured for predicted, measured in self.counters.values())
        )


def cosimulate(
    program: Program,
    images: Tensor,
    *,
    engine: Engine = "cocotb",
    tensors: Literal["all", "blocks", "none"] = "blocks",
    waves: Path | None = None,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> CosimReport:
    """Runs float ``images`` [n, C, H, W] through the Verilog of ``program`` and compares.

    tensors: which intermediate tensors are read back and compared beside the logits: the residual
    stream at block boundaries, every tensor that rests in a buffer, or none. waves: where to
    leave an FST file (slow).

    Raises VitruviusError if a tool is missing or the build fails.
    """
    if engine not in ENGINES:
        raise VitruviusError(f"unknown engine '{engine}': expected {' or '.join(ENGINES)}")
    if len(images) == 0:
        raise VitruviusError("co-simulation: expected at least one image, got none")
    chosen = [
        boundary.operator
        for boundary in program.boundaries
        if tensors == "all" or (tensors == "blocks" and boundary.memory.name == "RESIDUAL")
    ]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="vitruvius-cosim-") as scratch:
        design = Path(scratch) / "design"
        report = progress or (lambda state: None)
        report(Progress("build", 0, len(images), 0, 0.0))
        generate(program, design)
        jobs = []
        for worker, part in enumerate(_shares(len(images), 1 if waves else workers)):
            folder = Path(scratch) / f"job{worker}"
            folder.mkdir()
            Job([JobImage(program.image_beats(images[index]), chosen) for index in part]).write(
                folder
            )
            jobs.append(folder)
        began = time.perf_counter()
        run = _prepare(engine, design, trace=waves is not None)
        build_s = time.perf_counter() - began
        _run_all(run, jobs, len(images), report)
        if waves is not None:
            _keep_waves(jobs[0], waves)
        outcomes = [read_outcome(folder) for folder in jobs]
    runs = [run for outcome in outcomes for run in outcome[0]]
    simulated_s = max(outcome[2] for outcome in outcomes)
    return _compare(
        program,
        images,
        runs,
        engine=engine,
        build_s=build_s,
        cycles_per_s=sum(outcome[1] for outcome in outcomes) / simulated_s,
        workers=len(jobs),
        started=started,
    )


def _shares(images: int, workers: int | None) -> list[range]:
    """Images in order, in one contiguous share per simulator process; few images need one only."""
    count = workers or min(os.cpu_count() or 1, -(-images // _IMAGES_PER_WORKER))
    count = max(1, min(count, images))
    cuts = [images * index // count for index in range(count + 1)]
    return [range(first, after) for first, after in pairwise(cuts)]


def _prepare(engine: Engine, design: Path, *, trace: bool) -> Callable[[Path, Event], None]:
    """Builds the simulation and returns what runs a job folder on it, until an event is set."""
    if engine == "cocotb":
        build = build_cocotb((design / f"{TOP}.v").read_text(), TOP, trace=trace)

        def run(folder: Path, stop: Event) -> None:
            run_cocotb(
                build,
                "vitruvius.sim.cocotb_bus",
                environment={"VITRUVIUS_JOB": str(folder), "VITRUVIUS_DESIGN": str(design)},
                result_dir=folder,
                stop=stop,
            )

        return run
    if trace:
        raise VitruviusError("waves: expected engine cocotb, got pyverilator, which writes none")
    toolchain_environment()

    def call(*folders: Path, stop: Event | None = None) -> None:
        log = folders[-1] / "simulation.log"
        command = [sys.executable, "-m", "vitruvius.sim.pyverilator_bus", *map(str, folders)]
        if run_logged(command, log, folder=folders[-1], stop=stop):
            lines = log.read_text(errors="replace").splitlines()
            raise BenchError("pyverilator failed:\n" + "\n".join(lines[-20:]))

    call(design)
    return lambda folder, stop: call(design, folder, stop=stop)


def _run_all(
    run: Callable[[Path, Event], None],
    jobs: list[Path],
    of: int,
    report: Callable[[Progress], None],
) -> None:
    """Runs all jobs at the same time and reports until the last one is through.

    When it is interrupted, or one of them fails, the others are ended.
    """
    stop = Event()
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(run, folder, stop) for folder in jobs]
        try:
            pending = set(futures)
            while pending:
                done, pending = wait(futures, timeout=0.2, return_when=FIRST_EXCEPTION)
                states = [read_progress(folder) for folder in jobs]
                cycles = sum(state[1] for state in states)
                wall_s = max(state[2] for state in states)
                images = sum(state[0] for state in states)
                rate = cycles / wall_s if wall_s else 0.0
                report(Progress("simulate", images, of, cycles, rate))
                for future in done:
                    future.result()
        finally:
            stop.set()


def _keep_waves(run: Path, waves: Path) -> None:
    found = sorted(run.glob("*.fst"))
    if not found:
        raise VitruviusError(f"the simulator left no waves in {run}")
    waves.parent.mkdir(parents=True, exist_ok=True)
    part = waves.with_name(f".{waves.name}.part")
    shutil.copyfile(found[0], part)
    part.replace(waves)


def _compare(
    program: Program,
    images: Tensor,
    runs: list[ImageRun],
    *,
    engine: Engine,
    build_s: float,
    cycles_per_s: float,
    workers: int,
    started: float,
) -> CosimReport:
    golden: dict[str, Tensor] = {}

    def look(operator: IntegerOperator, codes: Tensor) -> None:
        golden[operator.name] = codes

    logits = program.model.run(images, observe=look)
    mismatches: list[Mismatch] = []
    exact = 0
    for index, run in enumerate(runs):
        found = [_difference(index, "logits", logits[index : index + 1], [run.logits])]
        for name, codes in run.tensors.items():
            found.append(_difference(index, name, golden[name][index], codes))
        wrong = [mismatch for mismatch in found if mismatch is not None]
        mismatches.extend(wrong)
        exact += not wrong
    predicted = simulate(program)
    first = runs[0]
    stalls = [run.image_stalled + run.logits_stalled for run in runs]
    return CosimReport(
        model=program.model.name,
        machine=program.machine.name,
        engine=engine,
        images=len(runs),
        bit_exact_images=exact,
        predicted_cycles=[predicted.total + stall for stall in stalls],
        rtl_cycles=[run.cycles for run in runs],
        cycles_per_s=cycles_per_s,
        build_s=build_s,
        workers=workers,
        wall_s=time.perf_counter() - started,
        steps=tuple(
            StepComparison(step.name, step.kind, step.cycles, measured)
            for step, measured in zip(predicted.steps, first.steps, strict=True)
        ),
        counters={
            "product_cycles": (predicted.product_cycles, first.product_cycles),
            "token_words": (predicted.token_words, first.token_words),
            "other_words": (predicted.product_cycles, first.other_words),
            "weight_stalled": (predicted.weight_stalled, first.weight_stalled),
            "image_stalled": (0, first.image_stalled),
            "logits_stalled": (0, first.logits_stalled),
        },
        logits=[run.logits for run in runs],
        tensors_compared=sum(len(run.tensors) for run in runs),
        mismatches=tuple(mismatches),
    )


def _difference(image: int, name: str, expected: Tensor, got: list[list[int]]) -> Mismatch | None:
    found = torch.tensor(got, dtype=torch.int64)
    if found.shape != expected.shape:
        return Mismatch(image, name, 0, 0, expected.numel(), found.numel(), expected.numel())
    places = (found != expected).nonzero()
    if len(places) == 0:
        return None
    token, feature = (int(part) for part in places[0])
    return Mismatch(
        image,
        name,
        token,
        feature,
        int(expected[token, feature]),
        int(found[token, feature]),
        len(places),
    )
