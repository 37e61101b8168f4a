"""Image sets with a fixed split, kept in memory and needing no download."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

__all__ = ["DIGITS_TEST_IMAGES", "Dataset", "digits"]

DIGITS_TEST_IMAGES = 360
_DIGITS_SPLIT_SEED = 0
_CALIBRATION_IMAGES = 256


@dataclass(frozen=True)
class Dataset:
    """Labelled images: images float32 [n, C, H, W], labels int64 [n]; the test part is never
    trained on.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @property
    def calibration_images(self) -> Tensor:
        """The first 256 training images [256, C, H, W]: what quantization is calibrated on."""
        return self.train_images[:_CALIBRATION_IMAGES]


def digits() -> Dataset:
    """The 1797 handwritten digits that scikit-learn ships (UCI Optical Recognition of Handwritten
    Digits).

    Images are [n, 1, 8, 8] with pixels 0 to 1 in steps of 1/16. The split is stratified by class
    and seeded, so that the same 360 images are held out everywhere.

    >>> [tuple(part.shape) for part in (digits().train_images, digits().test_images)]
    [(1437, 1, 8, 8), (360, 1, 8, 8)]
    """
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.float32).div(16).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    train, test = train_test_split(
        torch.arange(len(labels)).numpy(),
        test_size=DIGITS_TEST_IMAGES,
        random_state=_DIGITS_SPLIT_SEED,
        stratify=labels.numpy(),
    )
    train, test = torch.from_numpy(train), torch.from_numpy(test)
    return Dataset("digits", images[train], labels[train], images[test], labels[test])
