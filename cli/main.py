"""The command ``vitruvius``: its verbs, and how it ends when something is wrong."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import VitruviusError
from . import (
    compare,
    cosim,
    demo,
    doctor,
    estimate,
    generate,
    mpc,
    npu,
    optical,
    quantize,
    search,
    simulate,
    sqnr,
    trace,
    train,
)

__all__ = ["app", "main"]

_EXIT_USER = 2
_EXIT_INTERRUPTED = 130


class _Verbs(TyperGroup):
    """Ends a verb with one sentence and a code, where the mistake is the user's to mend."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except VitruviusError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(_EXIT_USER) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.filename is None:
                raise
            print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
            raise typer.Exit(_EXIT_USER) from error
        except KeyboardInterrupt as error:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(_EXIT_INTERRUPTED) from error


app = typer.Typer(
    name="vitruvius",
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "What a Vision Transformer costs on hardware, and whether the answer is still right.\n\n"
        "A PyTorch model is traced to a graph, quantized to exact integers, compiled for an "
        "accelerator, written as Verilog, simulated cycle by cycle and compared bit by bit.\n\n"
        "Exit codes: 0 done; 1 the hardware and the model disagree; 2 something to mend in what "
        "was given, told in one sentence; 130 interrupted."
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"vitruvius {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


app.command("models")(trace.models)
app.command("trace")(trace.trace)
app.command("quantize")(quantize.quantize)
app.command("generate")(generate.generate)
app.command("estimate")(estimate.estimate)
app.command("simulate")(simulate.simulate)
app.command("compare")(compare.compare)
app.command("cosim")(cosim.cosim)
app.command("demo")(demo.demo)
app.command("sqnr")(sqnr.sqnr)
app.command("doctor")(doctor.doctor)
app.add_typer(mpc.app, name="mpc")
app.add_typer(npu.app, name="npu")
app.add_typer(optical.app, name="optical")
app.add_typer(train.app, name="train")
app.add_typer(search.app, name="search")


def main() -> None:
    """Entry point of the console script."""
    app()
