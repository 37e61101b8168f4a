"""``vitruvius generate``: from an integer model and a machine to Verilog."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..reports.writing import check_folder
from .options import Calibration, JsonFile, MachineName, ModelName, OutFolder, Weights
from .output import Output

__all__ = ["generate"]


def generate(
    model: ModelName,
    machine: MachineName = "small",
    out: OutFolder = Path("out/generate"),
    weights: Weights = None,
    calibration: Calibration = None,
    resources: Annotated[
        str | None,
        typer.Option(
            "--resources",
            metavar="fpga:TARGET",
            help="Synthesise the Verilog with Yosys and count what it takes of this device "
            "(minutes; the log stays in the folder).",
            show_default=False,
        ),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Write the accelerator of a machine, and the model as its program.

    The folder gets the Verilog, the parameter image (weights, columns and programs as they lie in
    memory), a manifest, the register map (as a table and as a C header) and the programs as text.
    MODEL may also be a file that quantize wrote. The Verilog depends on the machine only, the image
    on both; the same input gives the same bytes.

    Example: vitruvius generate vit_digits --machine small --out out/small --resources fpga:zcu102
    """
    output = Output(json)
    check_folder(out)
    from ..fpga_targets.device import load_target
    from ..hwgen.core.compiler import compile_model
    from ..hwgen.core.machine import load_machine
    from ..hwgen.generate import TOP
    from ..hwgen.generate import generate as write
    from ..reports.table import files_table, resources_table, usage_table
    from .workload import quantized

    device = load_target(resources) if resources is not None else None
    parameters = load_machine(machine)
    source = quantized(model, weights=weights, calibration=calibration)
    program = compile_model(source.model, parameters)
    files = write(program, out)
    console = output.console
    console.print(usage_table(program))
    console.print(files_table(files))
    taken = None
    if device is not None:
        from ..fpga_targets.synthesis import synthesize, utilisation

        output.progress.print(f"synthesising for {device.name} …", highlight=False)
        found = synthesize(out / f"{TOP}.v", TOP, device, workdir=out / "synthesis")
        shares = utilisation(found, device)
        console.print(resources_table(found, device, shares))
        taken = {
            "target": device.target,
            **{kind: getattr(found, kind) for kind in ("lut", "ff", "dsp", "bram", "uram")},
            "utilisation": shares,
            "wall_s": found.wall_s,
        }
    output.write_json(
        {
            "model": source.model.name,
            "machine": parameters.name,
            "multipliers": parameters.multipliers,
            "products": len(program.steps),
            "normalisations": len(program.norms),
            "transfers": len(program.fetches),
            "macs": program.macs,
            "digest": program.digest,
            "files": [{"path": str(path), "bytes": path.stat().st_size} for path in files],
            "buffers": [
                {
                    "buffer": usage.buffer,
                    "used": usage.used,
                    "capacity": usage.capacity,
                    "unit": usage.unit,
                }
                for usage in program.usage
            ],
            "resources": taken,
        }
    )
