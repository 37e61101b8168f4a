"""``vitruvius estimate``: what a model costs, on one or several targets."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import VitruviusError, nearest
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
            "--on",
            metavar="BACKEND:TARGET",
            help="Where, such as fpga:zcu102 or npu:edge32; repeatable.",
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
    may also be a file that quantize wrote, for FPGAs.

    On an NPU cycles are by formula, from the traced model; --machine and memory are the target's.

    Example: vitruvius estimate vit_digits --on fpga:zcu102 --on npu:edge16 --machine medium
    """
    output = Output(json)
    from ..fpga_targets.device import device_names, load_target
    from ..hwgen.axi.memory_model import MemoryModel
    from ..hwgen.core.compiler import compile_model
    from ..hwgen.core.machine import load_machine
    from ..reports.table import estimate_table
    from ..sim.estimate import Estimate, estimate_fpga
    from ..sim.npu.report import estimate_npu
    from ..sim.npu.target import load_npu, npu_names
    from .workload import load_workload, quantized, trace_workload

    for target in on:
        if not target.startswith(("fpga:", "npu:")):
            known = [
                *(f"fpga:{name}" for name in device_names()),
                *(f"npu:{n}" for n in npu_names()),
            ]
            raise VitruviusError(f"unknown target '{target}': {nearest(target, known)}")
    npus = {target: load_npu(target) for target in on if target.startswith("npu:")}
    fpgas = [target for target in on if target not in npus]
    for target in fpgas:
        load_target(target)
    estimates: dict[str, Estimate] = {}
    graph = None
    if fpgas:
        parameters = load_machine(machine)
        source = quantized(model, weights=weights, calibration=calibration)
        graph = source.graph
        program = compile_model(source.model, parameters)
        memory = MemoryModel(latency=latency, gap=gap, outstanding=outstanding)
        for target in fpgas:
            estimates[target] = estimate_fpga(source.model.name, program, target, memory=memory)
    if npus:
        if model.endswith(".safetensors"):
            raise VitruviusError(
                f"{next(iter(npus))}: expected a model to trace, got {model}, a file that quantize "
                "wrote, which does not hold the graph"
            )
        graph = graph or trace_workload(load_workload(model, weights))
        for target, npu in npus.items():
            estimates[target] = estimate_npu(graph, npu)
    for target in on:
        output.console.print(estimate_table(estimates[target]))
    output.write_json([estimates[target].record() for target in on])
