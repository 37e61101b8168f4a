"""``vitruvius models`` and ``vitruvius trace``: what is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from ..errors import VitruviusError
from ..reports.writing import check_file, write_text
from .options import JsonFile, ModelName, Unmapped, UnmappedPolicy, Weights
from .output import Output

__all__ = ["models", "trace"]

_SHAPES_ONLY = (
    "note: a large model without weights is traced by its shapes and not compared with the module"
)

Depth: TypeAlias = Annotated[
    int,
    typer.Option("--depth", metavar="N", min=1, help="Levels of modules in the table of modules."),
]

ShowOperators: TypeAlias = Annotated[
    bool, typer.Option("--operators", help="Also list every operator.")
]

PictureFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--picture",
        metavar="FILE.svg",
        help="Also draw the graph: modules as boxes, repeated blocks once, their insides beside.",
        show_default=False,
    ),
]


def models(json: JsonFile = None) -> None:
    """List the models of the zoo.

    Any other torch module works too: give it as file.py:factory wherever a verb takes MODEL. So
    does a TOML file that says the sizes of a Vision Transformer (docs/zoo.md).
    """
    output = Output(json)
    from ..models.zoo import ZOO, ZooModel
    from ..models.zoo.network_file import NETWORKS, ZooNetwork
    from ..reports.table import zoo_table

    known: dict[str, ZooModel | ZooNetwork] = {**ZOO, **NETWORKS}
    entries = [known[name] for name in sorted(known)]
    output.console.print(zoo_table(entries))
    output.write_json(
        [
            {
                "name": entry.name,
                "family": entry.family,
                "summary": entry.summary,
                "source": entry.source,
                "input_shape": list(entry.input_shape),
                "dim": entry.config.dim,
                "depth": entry.config.depth,
                "heads": entry.config.heads,
                "parameters": entry.config.parameters,
                "weights": isinstance(entry, ZooModel) and entry.weights is not None,
                "dataset": isinstance(entry, ZooModel) and entry.dataset is not None,
            }
            for entry in entries
        ]
    )


def trace(
    model: ModelName,
    weights: Weights = None,
    unmapped: UnmappedPolicy = Unmapped.ERROR,
    depth: Depth = 2,
    operators: ShowOperators = False,
    picture: PictureFile = None,
    json: JsonFile = None,
) -> None:
    """Show what a model computes: operators, multiply-accumulates, parameters, memory.

    The module is exported with torch.export and raised to a graph, which is compared with the
    module on random inputs. Operators without a rule are listed with their module path and source
    line; '--unmapped host' keeps them in the graph, on the host.

    Examples: vitruvius trace vit_digits --json trace.json;
    vitruvius trace model.pt2 --picture graph.svg; vitruvius trace folder_with_config_json
    """
    output = Output(json)
    if picture is not None:
        if picture.suffix != ".svg":
            raise VitruviusError(f"--picture expects a name that ends in .svg, got {picture}")
        check_file(picture)
    from ..models.blocks import blocks_of
    from ..models.summary import summarise
    from ..reports.table import unmapped_table
    from ..reports.trace import (
        attention_table,
        blocks_table,
        critical_path_lines,
        kinds_table,
        modules_table,
        operators_table,
        overview_lines,
        trace_record,
    )
    from .workload import load_workload, trace_workload

    workload = load_workload(model, weights, True)
    graph = trace_workload(workload, unmapped.value)
    summary = summarise(graph, depth=depth)
    console = output.console
    if workload.example_inputs[0].is_meta:
        console.print(_SHAPES_ONLY, highlight=False, markup=False)
    parts = [overview_lines(summary, graph), kinds_table(summary), modules_table(summary)]
    if graph.regions:
        parts.append(attention_table(graph.regions))
    if blocks := blocks_of(graph):
        parts.append(blocks_table(blocks))
    if graph.unmapped:
        parts.append(unmapped_table(graph.unmapped))
    parts.append(critical_path_lines(summary))
    if operators:
        parts.append(operators_table(graph))
    for place, part in enumerate(parts):
        if place:
            console.print()
        console.print(part)
    if picture is not None:
        from ..reports.picture import graph_picture

        write_text(picture, graph_picture(graph))
        console.print(f"\npicture: {picture}", highlight=False, markup=False)
    output.write_json(trace_record(graph, summary))
