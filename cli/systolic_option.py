"""The option ``--systolic``: which array a model's products are counted on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ..errors import VitruviusError

if TYPE_CHECKING:
    from ..models.graph import Graph
    from ..models.integer_model import IntegerModel
    from ..sim.systolic import Dataflow
    from .output import Output

__all__ = ["SystolicArray", "SystolicSpec", "parse_systolic", "refuse_others", "show_systolic"]

_GO_WITH_IT = ("model", "systolic", "weights", "json")
_WRITTEN = re.compile(r"([0-9]{1,9})x([0-9]{1,9}):([a-z]+)")

SystolicSpec: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--systolic",
        metavar="ROWSxCOLS:FLOW",
        help="Count the cycles of the model's matrix products on a systolic array, such as "
        "16x16:ws. FLOW is what lies in its cells: ws (weights), os (outputs) or is (inputs).",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class SystolicArray:
    """What ``--systolic`` says."""

    rows: int
    cols: int
    dataflow: Dataflow


def parse_systolic(text: str) -> SystolicArray:
    """The array that ``text`` describes; raises VitruviusError when it describes none.

    >>> parse_systolic("16x32:ws")
    SystolicArray(rows=16, cols=32, dataflow=<Dataflow.WEIGHT: 'ws'>)
    """
    from ..sim.systolic import Dataflow

    found = _WRITTEN.fullmatch(text)
    flows = [flow.value for flow in Dataflow]
    if found is None or found[3] not in flows or not int(found[1]) or not int(found[2]):
        raise VitruviusError(
            f"--systolic: expected rows x cols and a dataflow out of {', '.join(flows)}, "
            f"such as 16x16:ws, got '{text}'"
        )
    return SystolicArray(int(found[1]), int(found[2]), Dataflow(found[3]))


def refuse_others(context: typer.Context) -> None:
    """Raises VitruviusError naming every option of the command line that says something about a
    machine, its memory or a run of it, for which an array has no use.
    """
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name not in _GO_WITH_IT and _is_given(context, option.name)
    ]
    if given:
        *others, last = given
        names = f"{', '.join(others)} and {last} do" if others else f"{last} does"
        raise VitruviusError(
            f"--systolic counts the cycles of products on an array without a machine around it: "
            f"{names} not go with it"
        )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def show_systolic(model: Graph | IntegerModel, array: SystolicArray, output: Output) -> None:
    """Prints the products of ``model`` and their cycles on ``array``, also as JSON."""
    from ..reports.systolic import systolic_table
    from ..sim.systolic_report import systolic_report

    report = systolic_report(model, array.rows, array.cols, array.dataflow)
    output.console.print(systolic_table(report))
    output.write_json(report.record())
