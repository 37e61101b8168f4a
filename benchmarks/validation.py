"""Writes docs/validation.md: bit equality, and cycles predicted and measured on the RTL.

    .venv/bin/python benchmarks/validation.py

Runs test digits through the Verilog of machines of several sizes, and models of real size through
that of the machines that hold them; takes about ten minutes.
`benchmarks/validation_systolic.py`, `benchmarks/validation_autoneural.py`,
`benchmarks/validation_mpc.py` and `benchmarks/validation_optical.py` write the last four sections,
also alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vitruvius.benchmarks import validation_autoneural, validation_mpc, validation_optical
from vitruvius.benchmarks.validation_systolic import section
from vitruvius.hwgen.axi.memory_model import DEFAULT_MEMORY
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import Machine, load_machine
from vitruvius.hwgen.core.program import Program
from vitruvius.models.datasets import photographs
from vitruvius.models.quantize import quantize
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.models.train import accuracy
from vitruvius.models.zoo import ZOO
from vitruvius.models.zoo.vit import VisionTransformer
from vitruvius.sim.cosim import CosimReport, cosimulate
from vitruvius.sim.cycle import ProductTimes, simulate
from vitruvius.sim.routing import routing_of

PAGE = Path(__file__).parent.parent / "docs" / "validation.md"
IMAGES = 20
WHOLE = (
    ("deit_tiny_patch16_224", None, "medium"),
    ("deit_tiny_patch16_224", None, "large"),
    ("deit_small_patch16_224", 2, "base"),
    ("deit_base_patch16_224", 1, "base"),
    ("deit_base_patch16_224", 2, "base"),
    ("m3vit_tiny", None, "experts"),
)
"""Models at their real sizes, with how many of their layers (all: None), on machines."""
WHOLE_IMAGES = 2


@dataclass(frozen=True)
class Run:
    """A program in Verilog, and what co-simulation found."""

    program: Program
    report: CosimReport


def machines() -> list[Machine]:
    small = load_machine("small")
    buffers = small.buffers.model_copy(update={"weight": 40, "column": 48})
    shape = {"name": "awkward", "rows": 3, "cols": 5, "depth": 7, "buffers": buffers}
    return [small, load_machine("medium"), load_machine("large"), small.model_copy(update=shape)]


def whole(name: str, layers: int | None, machine: str) -> Run:
    """A zoo model with random weights, calibrated on photographs."""
    torch.manual_seed(0)
    entry = ZOO[name]
    depth = entry.config.depth if layers is None else layers
    module = VisionTransformer(entry.config.model_copy(update={"depth": depth})).eval()
    size = entry.config.image_size
    graph = trace(module, entry.example_inputs(), name=name)
    program = compile_model(quantize(graph, photographs(4, size)), load_machine(machine))
    images = photographs(WHOLE_IMAGES, size, seed=3)
    return Run(program, cosimulate(program, images, tensors="blocks"))


def whole_models() -> tuple[list[str], bool]:
    """The section about them, and whether all is equal."""
    lines = [
        "## Models at their real sizes",
        "",
        f"Random weights, {WHOLE_IMAGES} photographs back to back, the first one with nothing "
        "loaded before. Tensors: the residual",
        "stream at every block boundary. M3ViT's cycles depend on how its images are routed; both "
        "sides saw the same.",
        "",
        "| model | layers | machine | bit-exact | tensors | counters equal "
        "| first image: predicted | measured | further image: predicted | measured "
        "| ideal / measured |",
        "| --- | --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    exact = True
    for name, layers, machine in WHOLE:
        run = whole(name, layers, machine)
        report, program = run.report, run.program
        exact &= report.cycle_exact and not report.mismatches
        equal = sum(predicted == measured for predicted, measured in report.counters.values())
        cycles = [
            f"{values[index]:,}"
            for index in (0, -1)
            for values in (report.predicted_cycles, report.rtl_cycles)
        ]
        macs = sum(item.macs for item in predicted_products(run))
        ideal = macs / program.machine.multipliers / report.rtl_cycles[-1]
        depth = ZOO[name].config.depth
        shown = f"all {depth}" if layers is None else f"{layers} of {depth}"
        lines.append(
            f"| `{name}` | {shown} | `{machine}` | {report.bit_exact_images} of {report.images} "
            f"| {report.tensors_compared} | {equal} of {len(report.counters)} | "
            + " | ".join(cycles)
            + f" | {ideal:.1%} |"
        )
        print(lines[-1], flush=True)
    return lines, exact


def predicted_products(run: Run) -> list[ProductTimes]:
    """What the last image's products were predicted to do."""
    images = photographs(WHOLE_IMAGES, run.program.model.image_shape[1:], seed=3)
    routing = routing_of(run.program, images)
    times = simulate(run.program, images=WHOLE_IMAGES, routing=routing).products
    return [item for item in times if item.image == WHOLE_IMAGES - 1]


def main() -> None:
    workload = resolve_model("vit_digits")
    data = workload.dataset
    graph = trace(workload.module, workload.example_inputs, name=workload.name)
    model = quantize(graph, data.calibration_images)
    runs = []
    for machine in machines():
        program = compile_model(model, machine)
        runs.append(Run(program, cosimulate(program, data.test_images[:IMAGES], tensors="all")))
    in_float = accuracy(workload.module, data.test_images, data.test_labels)
    in_integers = model.accuracy(data.test_images, data.test_labels)
    lines = [
        "# Validation",
        "",
        "Generated by `benchmarks/validation.py`; nothing here is typed by hand.",
        "",
        "## Numbers",
        "",
        f"`vit_digits` on {len(data.test_labels)} test digits that training and calibration "
        "did not see:",
        "",
        "| | accuracy |",
        "| --- | --- |",
        f"| float (PyTorch) | {in_float:.2%} |",
        f"| integer golden, scheme `edge` | {in_integers:.2%} |",
        "",
        "## Bits and cycles",
        "",
        f"{IMAGES} test digits through the generated Verilog in Verilator, back to back in one "
        "run that begins",
        "with nothing loaded. Bit-exact: every logit, and every tensor that rests in a buffer, "
        "equal the integer",
        "golden. Predicted: `sim.cycle`. Measured: the CYCLES register. Memory: "
        f"{DEFAULT_MEMORY.latency} cycles to an answer, then a",
        f"beat a cycle, {DEFAULT_MEMORY.outstanding} bursts pending. Ideal: useful products over "
        "multipliers.",
        "",
        "| machine | rows x cols x depth | port | bit-exact | tensors | predicted | measured "
        "| error | an image | ideal / measured |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in runs:
        machine, report = run.program.machine, run.report
        predicted, measured = report.counters["CYCLES"]
        ideal = run.program.macs * report.images / machine.multipliers
        lines.append(
            f"| {machine.name} | {machine.rows} x {machine.cols} x {machine.depth} "
            f"| {machine.port_bits} bits | {report.bit_exact_images} of {report.images} "
            f"| {report.tensors_compared} | {predicted:,} | {measured:,} "
            f"| {measured - predicted:+d} | {report.rtl_cycles[-1]:,} | {ideal / measured:.1%} |"
        )
    lines += ["", "## Performance counters of these runs", ""]
    names = [run.program.machine.name for run in runs]
    lines.append("| counter | " + " | ".join(f"{name}: pred. / meas." for name in names) + " |")
    lines.append("| --- |" + " --- |" * len(names))
    for name in runs[0].report.counters:
        pairs = [run.report.counters[name] for run in runs]
        cells = [f"{predicted:,} / {measured:,}" for predicted, measured in pairs]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    more, wholly = whole_models()
    lines += ["", *more, "", *section(), "", *validation_autoneural.section()]
    lines += ["", *validation_mpc.section(), "", *validation_optical.section()]
    PAGE.write_text("\n".join(lines) + "\n")
    exact = wholly and all(run.report.cycle_exact and not run.report.mismatches for run in runs)
    print(f"{PAGE}: {'all bits and cycles equal' if exact else 'NOT EQUAL'}")
    if not exact:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
