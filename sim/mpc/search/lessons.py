"""What models of the search learn from: images that packages ship, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ....errors import VitruviusError, nearest
from ....models.augment import Warp, blended, mixed, warped
from ....models.datasets import Dataset, digits, mnistm, mnistm_parts
from ....models.optimizers import muon
from ....models.zoo.mpcvit import MpcVit
from ....models.zoo.mpcvit_config import MpcVitConfig
from ....models.zoo.network_file import NETWORKS

__all__ = ["LESSONS", "Lesson", "load_lesson"]

# share of the training after which backgrounds have full contrast, as for vit_mnistm
_FULL_CONTRAST = 0.2


@dataclass(frozen=True)
class Lesson:
    """One data set and how a model is trained on it.

    ``config`` is the model with softmax. ``sample`` gives images [n, C, H, W] and targets (classes
    [n] or shares [n, classes]) of the training images at an index [n], when a share (0 to 1) of the
    training is done. ``prepare`` gives optimizers at their peak rates; the parameters given apart
    have no weight decay. ``epochs`` is for teacher and students, ``search_epochs`` for the search.
    """

    name: str
    config: MpcVitConfig
    data: Dataset
    sample: Callable[[Tensor, float], tuple[Tensor, Tensor]]
    prepare: Callable[[MpcVit, Sequence[nn.Parameter]], list[torch.optim.Optimizer]]
    batch: int
    warmup_epochs: int
    epochs: int
    search_epochs: int


def load_lesson(name: str) -> Lesson:
    """The lesson called ``name``; raises ``VitruviusError`` with the known ones for another."""
    if name not in LESSONS:
        raise VitruviusError(f"unknown data '{name}', {nearest(name, LESSONS)}")
    return LESSONS[name]()


def _digits() -> Lesson:
    data = digits()
    warp = Warp()

    def sample(index: Tensor, _: float) -> tuple[Tensor, Tensor]:
        images = warped(data.train_images[index], warp)
        return mixed(images, data.train_labels[index], 10)

    return Lesson(
        "digits",
        _config("mpcvit_digits"),
        data,
        sample,
        muon,
        batch=64,
        warmup_epochs=3,
        epochs=50,
        search_epochs=30,
    )


def _mnistm() -> Lesson:
    train, _ = mnistm_parts()
    warp = Warp(shift_pixels=2.0, bend_pixels=0.7)

    def sample(index: Tensor, done: float) -> tuple[Tensor, Tensor]:
        contrast = min(1.0, done / _FULL_CONTRAST)
        return blended(train, index, warp, contrast), train.labels[index]

    return Lesson(
        "mnistm",
        _config("mpcvit_mnistm"),
        mnistm(),
        sample,
        muon,
        batch=32,
        warmup_epochs=1,
        epochs=9,
        search_epochs=5,
    )


def _config(name: str) -> MpcVitConfig:
    config = NETWORKS[name].config
    assert isinstance(config, MpcVitConfig)
    return config


LESSONS: dict[str, Callable[[], Lesson]] = {"digits": _digits, "mnistm": _mnistm}
