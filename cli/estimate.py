"""``vitruvius estimate``: what a model costs, on one or several targets."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import (
    Calibration,
    JsonFile,
    MachineName,
    MemoryGap,
    MemoryLatency,
    MemoryOutstanding,
    ModelName,
    Weights,
)
from .output import Output

__all__ = ["estimate"]


def estimate(
    model: ModelName,
    on: Annotated[
        list[str],
        typer.Option(
            "--on", metavar="BACKEND:TARGET", help="Where, such as fpga:zcu102; repeatable."
        ),
    ] = ["fpga:zcu102"],  # noqa: B006
    machine: MachineName = "small",
    latency: MemoryLatency = 100,
    gap: MemoryGap = 0,
    outstanding: MemoryOutstanding = 16,
    weights: Weights = None,
    calibration: Calibration = None,
    json: JsonFile = None,
) -> None:
    """Estimate cycles, latency and energy of one image, operator by operator.

    Cycles are those of the cycle simulator, which equal the generated hardware's, on a memory that
    answers as --latency, --gap and --outstanding say: assumptions, like the clock. Energy comes
    from a table of coefficients; every figure names its source, every assumption is listed. MODEL
    may also be a file that quantize wrote.

    Example: vitruvius estimate vit_digits --on fpga:zcu102 --on fpga:kv260 --machine medium
    """
    output = Output(json)
    from ..fpga_targets.device import load_target
    from ..hwgen.axi.memory_model import MemoryModel
    from ..hwgen.core.compiler import compile_model
    from ..hwgen.core.machine import load_machine
    from ..reports.table import estimate_table
    from ..sim.estimate import estimate_fpga
    from .workload import quantized

    for target in on:
        load_target(target)
    parameters = load_machine(machine)
    source = quantized(model, weights=weights, calibration=calibration)
    program = compile_model(source.model, parameters)
    memory = MemoryModel(latency=latency, gap=gap, outstanding=outstanding)
    estimates = [estimate_fpga(source.model.name, program, target, memory=memory) for target in on]
    for item in estimates:
        output.console.print(estimate_table(item))
    output.write_json([item.record() for item in estimates])
