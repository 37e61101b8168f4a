"""``vitruvius simulate``: where the cycles of an accelerator go, or those of a systolic array."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from .systolic_option import SystolicSpec, parse_systolic, refuse_others, show_systolic

if TYPE_CHECKING:
    from ..models.graph import Graph
    from ..models.integer_model import IntegerModel

__all__ = ["simulate"]


def simulate(
    context: typer.Context,
    model: ModelName,
    machine: MachineName = "large",
    images: Annotated[int, typer.Option(min=1, help="Images of the run, back to back.")] = 1,
    latency: MemoryLatency = 100,
    gap: MemoryGap = 0,
    outstanding: MemoryOutstanding = 16,
    timeline: Annotated[
        Path | None,
        typer.Option(
            "--timeline",
            metavar="FILE",
            help="Chrome trace JSON, one track for each unit, for Perfetto.",
            show_default=False,
        ),
    ] = None,
    systolic: SystolicSpec = None,
    weights: Weights = None,
    calibration: Calibration = None,
    json: JsonFile = None,
) -> None:
    """Simulate a run cycle by cycle and say where each cycle without a useful product went.

    The run begins with nothing loaded. The counters are those of the generated hardware, on a
    memory with the given timing. MODEL may also be a file that quantize wrote.

    With --systolic nothing is quantized or compiled: the cycles are those of the model's matrix
    products alone, on an array that never waits for memory, as SCALE-Sim counts them. Options of
    the machine and of its run do not go with it.

    Examples: vitruvius simulate deit_tiny_patch16_224 --machine large --timeline out/t.json;
    vitruvius simulate deit_tiny_patch16_224 --systolic 16x16:ws
    """
    output = Output(json)
    if systolic is not None:
        refuse_others(context)
        array = parse_systolic(systolic)
        show_systolic(_products_of(model, weights), array, output)
        return
    from ..hwgen.axi.memory_model import MemoryModel
    from ..hwgen.core.compiler import compile_model
    from ..hwgen.core.machine import load_machine
    from ..reports.simulation import lost_table, operator_table, simulation_record
    from ..reports.timeline import timeline_json
    from ..reports.writing import check_file, write_text
    from ..sim.cycle import simulate as run
    from ..sim.lost_cycles import by_operator, lost_cycles
    from .workload import quantized

    if timeline is not None:
        check_file(timeline)
    parameters = load_machine(machine)
    source = quantized(model, weights=weights, calibration=calibration)
    program = compile_model(source.model, parameters)
    memory = MemoryModel(latency=latency, gap=gap, outstanding=outstanding)
    report = run(program, images=images, memory=memory)
    lost = lost_cycles(report)
    console = output.console
    console.print(
        f"{program.model.name} on {parameters.name}: {parameters.rows} x {parameters.cols} x "
        f"{parameters.depth} = {parameters.multipliers} multipliers, {parameters.port_bits}-bit "
        f"port, latency {latency}, gap {gap}"
    )
    if source.warning:
        console.print(source.warning)
    if program.mixtures:
        console.print(
            "routing: assumed, tokens spread evenly over the experts; cosim takes each image's own"
        )
    console.print(operator_table(by_operator(report)))
    console.print()
    console.print(lost_table(lost))
    console.print()
    count = len(report.images)
    console.print(
        f"{report.cycles:,} cycles for {count} image{'s' if count > 1 else ''}"
        + (f", {report.cycles / count:,.0f} each" if count > 1 else "")
        + f"; {100 * report.utilisation:.1f} % of the multipliers' time is useful products; "
        f"{report.cycles / count / parameters.clock_hz * 1e3:.3g} ms an image at "
        f"{parameters.clock_hz / 1e6:.0f} MHz"
    )
    traffic = report.traffic
    console.print(
        f"memory port, an image: {traffic['weights']:,} bytes of weights "
        f"({traffic['unavoidable']:,} are each weight once), {traffic['image']:,} of the image, "
        f"{traffic['results']:,} of results"
    )
    if timeline is not None:
        write_text(timeline, timeline_json(report))
        console.print(f"written: {timeline}")
    output.write_json(simulation_record(report, lost))


def _products_of(model: str, weights: Path | None) -> Graph | IntegerModel:
    """What MODEL multiplies: as it is traced, or as the file says that quantize wrote."""
    from .workload import load_workload, quantized, trace_workload

    if model.endswith(".safetensors"):
        return quantized(model, weights=weights, calibration=None).model
    return trace_workload(load_workload(model, weights))
