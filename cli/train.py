"""``vitruvius train``: the zoo's own models, trained from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..reports.writing import check_file
from .options import JsonFile
from .output import Output

__all__ = ["app", "digits"]

app = typer.Typer(no_args_is_help=True, help="Train a model of the zoo from nothing, seeded.")


@app.callback()
def _train() -> None:
    pass


@app.command("digits")
def digits(
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Safetensors file for the weights.")
    ] = Path("out/vit_digits.safetensors"),
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the training images.")] = 150,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same weights.")] = 0,
    json: JsonFile = None,
) -> None:
    """Train vit_digits on the handwritten digits that scikit-learn ships.

    The 360 test images are held out by a fixed split and looked at once, after training. The
    default takes under three minutes on two cores.

    Example: vitruvius train digits --out digits.safetensors, and then
    vitruvius trace vit_digits --weights digits.safetensors
    """
    output = Output(json)
    check_file(out)
    from ..models.train import train_digits

    progress = output.progress

    def report(epoch: int, total: int, loss: float) -> None:
        progress.print(f"epoch {epoch} of {total}: loss {loss:.4f}", end="\r", highlight=False)

    result = train_digits(out, epochs=epochs, seed=seed, progress=report)
    output.console.print(
        f"test accuracy {result.accuracy:.2%} after {result.epochs} epochs, seed {result.seed}, "
        f"{result.wall_s:.0f} s\nwritten: {result.path}",
        markup=False,
        highlight=False,
    )
    output.write_json(
        {
            "model": "vit_digits",
            "file": str(result.path),
            "accuracy": result.accuracy,
            "epochs": result.epochs,
            "seed": result.seed,
            "wall_s": result.wall_s,
        }
    )
