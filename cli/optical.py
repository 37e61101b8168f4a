"""``vitruvius optical``: models on 4f optics."""

from __future__ import annotations

import typer

from .optical_retrain import retrain
from .optical_run import run
from .optical_show import show

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="4f optics: run a model, retrain it, draw a layer.")
app.command("run")(run)
app.command("retrain")(retrain)
app.command("show")(show)


@app.callback()
def _optical() -> None:
    pass
