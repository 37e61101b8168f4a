"""Calibration images: pictures of every kind, tensor files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vitruvius.errors import VitruviusError
from vitruvius.models.images import ImageReading, load_images

RGB = (3, 16, 16)


def picture(size: tuple[int, int], colour: tuple[int, int, int] = (255, 0, 51)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_a_folder_is_read_below_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    picture((16, 16), (51, 0, 0)).save(tmp_path / "b" / "1.png")
    picture((16, 16), (102, 0, 0)).save(tmp_path / "c.bmp")
    picture((16, 16), (0, 0, 0)).save(tmp_path / "a.ppm")
    (tmp_path / "notes.txt").write_text("no picture, and not named as one")
    found = load_images(tmp_path, RGB)
    assert found.skipped == ()
    assert found.images.dtype == torch.float32
    assert found.images[:, 0, 0, 0].tolist() == pytest.approx([0.0, 0.2, 0.4])
    assert float(found.images[:, 1:].abs().max()) == 0.0


def test_a_picture_of_the_right_size_keeps_its_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    images = load_images(tmp_path, (3, 8, 12)).images
    expected = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)
    assert torch.equal(images[0], expected)


def test_larger_pictures_are_resized_and_cropped_at_the_centre(tmp_path: Path) -> None:
    """64 x 32 becomes 36 x 18 (16 / 0.875 high), of which the middle 16 x 16 is taken."""
    wide = Image.new("RGB", (64, 32))
    wide.paste((255, 255, 255), (16, 0, 48, 32))  # the middle half is white
    wide.save(tmp_path / "a.png")
    (image,) = load_images(tmp_path, RGB).images
    assert image.shape == (3, 16, 16)
    assert float(image[:, :, 1:15].min()) > 0.9


def test_grey_palette_alpha_and_sixteen_bits(tmp_path: Path) -> None:
    grey = np.full((16, 16), 51, np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "b.png")
    Image.fromarray(grey).convert("LA").save(tmp_path / "c.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "d.png")
    for shape in (RGB, (1, 16, 16)):
        images = load_images(tmp_path, shape).images
        assert images.shape == (4, *shape)
        assert torch.allclose(images, torch.tensor(0.2), atol=1e-6), shape


def test_mean_and_std_by_channel(tmp_path: Path) -> None:
    picture((16, 16)).save(tmp_path / "a.png")
    reading = ImageReading(mean=(0.5, 0.5, 0.0), std=(0.5, 0.25, 2.0))
    (image,) = load_images(tmp_path, RGB, reading).images
    assert image[:, 0, 0].tolist() == pytest.approx([1.0, -2.0, 0.1])


def test_a_limit_spreads_over_the_folder(tmp_path: Path) -> None:
    for index in range(10):
        picture((16, 16), (index, 0, 0)).save(tmp_path / f"{index}.png")
    images = load_images(tmp_path, RGB, ImageReading(limit=5)).images
    assert (images[:, 0, 0, 0] * 255).round().tolist() == [0, 2, 4, 6, 8]


def test_unreadable_pictures_are_named_and_skipped_or_refused(tmp_path: Path) -> None:
    picture((16, 16)).save(tmp_path / "good.png")
    (tmp_path / "empty.jpg").write_bytes(b"")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    found = load_images(tmp_path, RGB)
    assert len(found.images) == 1
    assert [path.name for path, _ in found.skipped] == ["cut.png", "empty.jpg"]
    assert found.warning.startswith("skipped 2 of 3 pictures: cut.png (")
    assert "empty.jpg (not a picture)" in found.warning
    with pytest.raises(VitruviusError, match=r"cannot read 2 of 3 pictures: cut\.png"):
        load_images(tmp_path, RGB, ImageReading(strict=True))
    (tmp_path / "good.png").unlink()
    with pytest.raises(VitruviusError, match=r"cannot read 2 of 2 pictures"):
        load_images(tmp_path, RGB)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(VitruviusError, match=r"expected pictures .* found none"):
        load_images(tmp_path, RGB)


@pytest.mark.parametrize(
    ("shape", "reading", "text"),
    [
        ((4, 16, 16), ImageReading(), "1 or 3 channels, the model takes 4"),
        ((768,), ImageReading(), "needs a model that takes images"),
        (RGB, ImageReading(limit=0), "at least 1, got 0"),
        (RGB, ImageReading(mean=(0.5, 0.5)), "mean: expected 1 or 3 numbers.*got 2"),
        (RGB, ImageReading(std=(0.0,)), "std: expected numbers above 0, got 0"),
        (RGB, ImageReading(mean=(float("nan"),)), "mean: expected finite numbers, got nan"),
    ],
)
def test_what_a_folder_cannot_be_read_as(tmp_path, shape, reading, text) -> None:
    picture((16, 16)).save(tmp_path / "a.png")
    with pytest.raises(VitruviusError, match=text):
        load_images(tmp_path, shape, reading)


def test_a_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "images.safetensors"
    images = torch.rand(3, 3, 16, 16)
    save_file({"images": images, "labels": torch.zeros(3)}, path)
    assert torch.equal(load_images(path).images, images)
    save_file({"x": images.half()}, path)
    assert torch.equal(load_images(path).images, images.half().float())
    save_file({"x": images, "y": images.clone()}, path)
    with pytest.raises(VitruviusError, match="expected one tensor, or one called 'images', got 2"):
        load_images(path)
    save_file({"x": torch.zeros(3, 16, dtype=torch.int64)}, path)
    with pytest.raises(VitruviusError, match=r"got int64 \[3, 16\]"):
        load_images(path)


def test_tensor_files_take_no_mean(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 3, 16, 16), np.float32))
    with pytest.raises(VitruviusError, match="mean and std go with a folder"):
        load_images(tmp_path / "a.npy", RGB, ImageReading(mean=(0.5,)))


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "images.pt"
    torch.save(torch.zeros(1, 3, 16, 16), path)
    with pytest.raises(VitruviusError, match="are pickles, which can run code"):
        load_images(path, RGB)
