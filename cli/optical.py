"""``vitruvius optical``: models on 4f optics."""

from __future__ import annotations

import typer

from .optical_run import run

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="4f optics: run a model through lenses.")
app.command("run")(run)


@app.callback()
def _optical() -> None:
    pass
