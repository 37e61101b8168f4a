"""``vitruvius generate``: from an integer model and a machine to Verilog."""

from __future__ import annotations

from pathlib import Path

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
    json: JsonFile = None,
) -> None:
    """Write the accelerator of a machine, and the model as its program.

    The folder gets the Verilog, the images of the weight, column and program memories, a manifest,
    the register map (as a table and as a C header) and the program as text. MODEL may also be a
    file that quantize wrote. The Verilog depends on the machine only, the images on both; the same
    input gives the same bytes.

    Example: vitruvius generate vit_digits --machine small --out out/small
    """
    output = Output(json)
    check_folder(out)
    from ..hwgen.compiler import compile_model
    from ..hwgen.generate import generate as write
    from ..hwgen.machine import load_machine
    from ..reports.table import files_table, usage_table
    from .workload import quantized

    parameters = load_machine(machine)
    source = quantized(model, weights=weights, calibration=calibration)
    program = compile_model(source.model, parameters)
    files = write(program, out)
    console = output.console
    console.print(usage_table(program))
    console.print(files_table(files))
    output.write_json(
        {
            "model": source.model.name,
            "machine": parameters.name,
            "multipliers": parameters.multipliers,
            "instructions": len(program.steps),
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
        }
    )
