"""Seeded training of ConvShareViT: one recipe for every variant, so that they can be compared."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..errors import VitruviusError, nearest
from .optimizers import muon
from .train import Progress, Recipe, Training, digits_shown, mnistm_shown, train
from .zoo.convshare import ConvShareVit
from .zoo.convshare_config import ConvShareConfig
from .zoo.network_file import NETWORKS

__all__ = ["EPOCHS", "VARIANTS", "convshare_model", "convshare_recipe", "train_convshare"]

VARIANTS = ("linear", "valid_full", "valid_k", "same", "depthwise")
"""What the names of the zoo's networks call the variants of ``ConvShareConfig``, in its order."""

EPOCHS: dict[str, int] = {"digits": 60, "mnistm": 36}
"""Passes over the training images where none are asked for."""

# of the stem, positions and head; chosen on 800 of the training images
_OTHERS_RATE = 5e-3


def convshare_model(variant: str, data: str) -> str:
    """The zoo's name of a variant for a data set; raises ``VitruviusError`` for unknown ones.

    >>> convshare_model("valid_k", "digits")
    'convshare_valid_k_digits'
    """
    if variant not in VARIANTS:
        raise VitruviusError(f"unknown variant '{variant}', {nearest(variant, VARIANTS)}")
    if data not in EPOCHS:
        raise VitruviusError(f"unknown data '{data}', {nearest(data, EPOCHS)}")
    return f"convshare_{variant}_{data}"


def train_convshare(
    out: Path,
    *,
    variant: str = "valid_full",
    data: str = "mnistm",
    epochs: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Training:
    """Trains a variant of ConvShareViT and writes its weights to ``out`` (safetensors).

    The images and what is done to them are those of ``train_digits`` and ``train_mnistm``, and as
    there the test images are looked at once, after training, and an interrupted run goes on. The
    kernels of a map are the rows of one matrix, which Muon trains, of every variant alike.

    Raises ``VitruviusError`` for an unknown variant or data set, and as ``train_digits`` does.
    """
    model = convshare_model(variant, data)
    config = NETWORKS[model].config
    assert isinstance(config, ConvShareConfig)
    count = EPOCHS[data] if epochs is None else epochs
    return train(
        convshare_recipe(model, config, data), out, epochs=count, seed=seed, progress=progress
    )


def convshare_recipe(model: str, config: ConvShareConfig, data: str) -> Recipe:
    """How a model of these sizes, called ``model`` in its file's metadata, is trained on ``data``,
    digits or mnistm.
    """
    shown, sample = digits_shown() if data == "digits" else mnistm_shown()
    batch = 64 if data == "digits" else 32
    prepare = partial(muon, others_rate=_OTHERS_RATE)
    return Recipe(model, shown, partial(ConvShareVit, config), sample, batch, 1, prepare)
