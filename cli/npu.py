"""``vitruvius npu``: one matrix product on a systolic NPU, and the NPUs that are shipped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import VitruviusError
from .options import JsonFile
from .output import Output

if TYPE_CHECKING:
    from ..sim.npu.target import NpuTarget

__all__ = ["app", "gemm", "targets"]

app = typer.Typer(no_args_is_help=True, help="A systolic array with a vector unit and DRAM.")

_DEFAULTS = ("npu:edge16", "npu:edge32", "npu:array128")
_ARRAY = re.compile(r"([0-9]{1,9})x([0-9]{1,9})")


class _Flow(StrEnum):
    """What lies in the cells of the array."""

    WEIGHT = "ws"
    OUTPUT = "os"
    INPUT = "is"
    BEST = "best"


@app.callback()
def _npu() -> None:
    pass


@app.command("gemm")
def gemm(
    M: Annotated[int, typer.Argument(help="Rows of the input, such as tokens.", metavar="M")],
    N: Annotated[int, typer.Argument(help="Columns of the weights.", metavar="N")],
    K: Annotated[int, typer.Argument(help="What both share.", metavar="K")],
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="npu:NAME|FILE",
            help="The NPU: see 'vitruvius npu targets'. Without it edge16, or the first of edge32 "
            "and array128 whose buffers hold tiles of --array.",
            show_default=False,
        ),
    ] = None,
    array: Annotated[
        str | None,
        typer.Option(
            "--array",
            metavar="ROWSxCOLS",
            help="Another array in that NPU, such as 32x32.",
            show_default=False,
        ),
    ] = None,
    dataflow: Annotated[
        _Flow | None,
        typer.Option(
            "--dataflow",
            help="What lies in the cells: ws (weights), os (outputs), is (inputs), or the best.",
            show_default=False,
        ),
    ] = None,
    overlap: Annotated[
        bool,
        typer.Option(
            "--overlap/--no-overlap",
            help="Hide loads behind products. Without it every fold is alone and memory never "
            "waits: the cycles are SCALE-Sim's.",
        ),
    ] = True,
    json: JsonFile = None,
) -> None:
    """Cycles, folds, utilisation, traffic and energy of one int8 product [M, K] x [K, N].

    The best tile and loop order that fit the buffers are looked for; inputs and weights come from
    DRAM, the output goes there.

    Example: vitruvius npu gemm 197 576 192 --array 16x16 --dataflow ws --no-overlap
    """
    output = Output(json)
    from ..reports.npu import gemm_table
    from ..sim.npu.report import gemm_report
    from ..sim.npu.target import load_npu

    flow = None if dataflow is None else dataflow.value
    size = None if array is None else _parsed(array)
    target = load_npu(on or _DEFAULTS[0])
    if size is not None or flow is not None:
        target = _with_array(_DEFAULTS if on is None else (on,), size, flow)
    report = gemm_report(M, N, K, target, overlap=overlap)
    output.console.print(gemm_table(report))
    output.write_json(report.record())


@app.command("targets")
def targets(json: JsonFile = None) -> None:
    """List the NPUs that are shipped, with their sizes and rates.

    Example: vitruvius npu targets
    """
    output = Output(json)
    from ..reports.npu import targets_table
    from ..sim.npu.target import load_npu, npu_names

    found = [load_npu(name) for name in npu_names()]
    output.console.print(targets_table(found))
    output.write_json([target.model_dump(exclude_none=True) for target in found])


def _with_array(names: Sequence[str], size: tuple[int, int] | None, flow: str | None) -> NpuTarget:
    """The first of the NPUs that works with the array; the first one's complaint if none does."""
    from ..sim.npu.target import load_npu, with_array

    complaints = []
    for name in names:
        target = load_npu(name)
        rows, cols = size or (target.array.rows, target.array.cols)
        try:
            return with_array(target, rows, cols, flow)
        except VitruviusError as error:
            complaints.append(error)
    raise complaints[0]


def _parsed(text: str) -> tuple[int, int]:
    found = _ARRAY.fullmatch(text)
    if found is None:
        raise VitruviusError(f"--array: expected rows x cols, such as 16x16, got '{text}'")
    return int(found[1]), int(found[2])
