"""``vitruvius cosim``: the generated Verilog against the integer golden and the cycle simulator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..reports.writing import check_file
from .options import (
    Calibration,
    Engine,
    EngineName,
    JsonFile,
    MachineName,
    MemoryGap,
    MemoryLatency,
    MemoryOutstanding,
    ModelName,
    Task,
    Weights,
)
from .output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..sim.cosim import CosimReport, Progress

__all__ = ["Tensors", "cosim", "cosim_progress", "cosim_record"]

_DISAGREES = 1


class Tensors(StrEnum):
    """Which tensors are compared beside the logits."""

    NONE = "none"
    BLOCKS = "blocks"
    ALL = "all"


def cosim(
    model: ModelName,
    machine: MachineName = "small",
    images: Annotated[
        int, typer.Option("--images", help="How many test images to run, from the first on.")
    ] = 20,
    engine: EngineName = Engine.NATIVE,
    tensors: Annotated[
        Tensors,
        typer.Option(
            "--tensors",
            help="What is compared beside the logits: the residual stream at block boundaries, "
            "every tensor that rests in a buffer, or nothing. The queues of experts go with both.",
        ),
    ] = Tensors.BLOCKS,
    waves: Annotated[
        Path | None,
        typer.Option(
            "--waves", metavar="FILE", help="Leave the waves there (FST); slow.", show_default=False
        ),
    ] = None,
    task: Task = 0,
    latency: MemoryLatency = 100,
    gap: MemoryGap = 0,
    outstanding: MemoryOutstanding = 16,
    weights: Weights = None,
    calibration: Calibration = None,
    json: JsonFile = None,
) -> None:
    """Run test images through the generated Verilog and compare every bit and every cycle.

    Verilator compiles the Verilog; the images run back to back. Each logit and each chosen tensor
    must equal the integer golden, each performance counter the cycle simulator's, on a memory that
    answers as --latency, --gap and --outstanding say. Engine cocotb has a memory with a timing of
    its own: there only counters that no memory can change are compared. Ends with exit code 1 when
    something differs. MODEL may also be a file that quantize wrote.

    Example: vitruvius cosim vit_digits --machine small --images 20
    """
    output = Output(json)
    if waves is not None:
        check_file(waves)
    from ..hwgen.axi.memory_model import MemoryModel
    from ..hwgen.core.compiler import compile_model
    from ..hwgen.core.machine import load_machine
    from ..reports.table import cosim_table, mismatch_table
    from ..sim.cosim import cosimulate
    from ..sim.verilator import toolchain_environment
    from .workload import quantized, test_images

    parameters = load_machine(machine)
    toolchain_environment()
    source = quantized(model, weights=weights, calibration=calibration)
    source.model.for_task(task)  # or there is none
    chosen, _ = test_images(source, images)
    program = compile_model(source.model, parameters)
    with cosim_progress(output) as progress:
        report = cosimulate(
            program,
            chosen,
            engine=engine.value,
            tensors=tensors.value,
            memory=MemoryModel(latency=latency, gap=gap, outstanding=outstanding),
            task=task,
            waves=waves,
            progress=progress,
        )
    console = output.console
    console.print(cosim_table(report))
    if report.mismatches:
        console.print(mismatch_table(report.mismatches))
    output.write_json(cosim_record(report))
    if report.bit_exact_images != report.images or not report.cycle_exact:
        raise typer.Exit(_DISAGREES)


def cosim_record(report: CosimReport) -> dict[str, object]:
    """A co-simulation as JSON."""
    return {
        "model": report.model,
        "machine": report.machine,
        "engine": report.engine,
        "images": report.images,
        "bit_exact_images": report.bit_exact_images,
        "memory": asdict(report.memory),
        "timed": report.timed,
        "cycles": report.cycles,
        "predicted_cycles": report.predicted_cycles,
        "rtl_cycles": report.rtl_cycles,
        "cycles_per_s": report.cycles_per_s,
        "build_s": report.build_s,
        "wall_s": report.wall_s,
        "tensors_compared": report.tensors_compared,
        "queues_compared": report.queues_compared,
        "task": report.task,
        "counters": {
            name: {"predicted": predicted, "measured": measured}
            for name, (predicted, measured) in report.counters.items()
        },
        "logits": report.logits,
        "mismatches": [asdict(item) for item in report.mismatches],
    }


@contextmanager
def cosim_progress(output: Output) -> Iterator[Callable[[Progress], None]]:
    """A live line on standard error while a co-simulation runs."""
    with output.progress.status("compiling the Verilog …") as status:

        def tell(state: Progress) -> None:
            if state.phase == "build":
                status.update("building the simulator …")
            else:
                where = f", {state.layer}" if state.layer else ""
                status.update(f"{state.cycles:,} cycles, {state.cycles_per_s:,.0f} cycles/s{where}")

        yield tell
