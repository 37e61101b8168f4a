"""``vitruvius compare``: what each of Edge-MoE's ideas is worth on this accelerator."""

from __future__ import annotations

from pathlib import Path
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

__all__ = ["compare"]


def compare(
    model: ModelName,
    machine: MachineName = "experts",
    images: Annotated[int, typer.Option(min=1, help="Images of the run, back to back.")] = 1,
    latency: MemoryLatency = 100,
    gap: MemoryGap = 0,
    outstanding: MemoryOutstanding = 16,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Also write the tables as a Markdown page, with a chart (SVG) beside it.",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
    calibration: Calibration = None,
    json: JsonFile = None,
) -> None:
    """Compare the accelerator with and without each of Edge-MoE's six ideas, in cycles, words from
    memory, memory on the chip, and cells.

    From none of the ideas to all six, one after the other; then each one taken away alone, with
    one or several designs in its place. Every row says whether the hardware has that switch (RTL)
    or the design exists in the cycle simulator alone. Cells are of a small machine, synthesised
    before: docs/ideas.md. MODEL may also be a file that quantize wrote.

    Example: vitruvius compare m3vit_tiny --out out/ideas.md
    """
    output = Output(json)
    from ..errors import VitruviusError
    from ..hwgen.axi.memory_model import MemoryModel
    from ..hwgen.core.machine import load_machine
    from ..reports.ideas import (
        cells_table,
        ideas_lines,
        ideas_notes,
        ideas_plot,
        ideas_record,
        ideas_table,
        ideas_worth,
    )
    from ..reports.writing import check_file, write_text
    from ..sim.ideas import compare as compare_ideas
    from ..sim.ideas_cells import load_cells
    from .workload import quantized

    if out is not None:
        if out.suffix == ".svg":
            raise VitruviusError(f"--out: expected the name of a page, such as ideas.md, got {out}")
        check_file(out)
    parameters = load_machine(machine)
    cells = load_cells()
    source = quantized(model, weights=weights, calibration=calibration)
    memory = MemoryModel(latency=latency, gap=gap, outstanding=outstanding)
    found = compare_ideas(source.model, parameters, images=images, memory=memory)
    console = output.console
    head, *notes = ideas_notes(found, cells)
    console.print(head)
    if source.warning:
        console.print(source.warning)
    console.print()
    console.print(ideas_table(found, ladder=True))
    console.print()
    console.print(ideas_table(found, ladder=False))
    console.print()
    console.print("What stands in an idea's place costs, in place of the accelerator as it is:")
    for line in ideas_worth(found):
        console.print(f"  {line}")
    console.print()
    console.print(cells_table(cells))
    console.print()
    for note in notes:
        console.print(note)
    if out is not None:
        chart = out.with_suffix(".svg")
        page = [f"# {found.model}: Edge-MoE's ideas", "", f"![Cycles]({chart.name})", ""]
        write_text(out, "\n".join([*page, *ideas_lines(found, cells)]) + "\n")
        ideas_plot(found, chart)
        console.print(f"written: {out}, {chart}")
    output.write_json(ideas_record(found, cells))
