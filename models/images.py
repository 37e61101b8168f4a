"""Images to calibrate on: a folder of pictures, or a tensor in a .npy or .safetensors file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import VitruviusError
from .weights import load_weights

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageReading", "ImageSet", "load_images", "prepared"]

_NPY = b"\x93NUMPY"
_CROP = 0.875
"""Share of the resized picture that the centre crop keeps, as DeiT and ViT are evaluated: the
short side of 224 x 224 images is first 256.
"""
_MODES = {1: "L", 3: "RGB"}
_PICKLES = (".pt", ".pth", ".pkl", ".bin")
_NAMED = 3


@dataclass(frozen=True)
class ImageReading:
    """How pictures of a folder become images.

    limit: at most so many, evenly spread over the names. mean, std: subtracted and divided by, one
    number or one for each channel, after pixels were scaled to 0 to 1. strict: a file that cannot
    be read is an error instead of skipped.
    """

    limit: int = 256
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    strict: bool = False


@dataclass(frozen=True)
class ImageSet:
    """images: float32 [n, C, H, W]. skipped: files that could not be read, with the reason."""

    images: Tensor
    skipped: tuple[tuple[Path, str], ...] = ()

    @property
    def warning(self) -> str:
        """One line about the skipped files; empty if there are none."""
        if not self.skipped:
            return ""
        return f"skipped {_unreadable(self.skipped, len(self.skipped) + len(self.images))}"


def load_images(
    path: Path, shape: tuple[int, ...] | None = None, reading: ImageReading | None = None
) -> ImageSet:
    """Float images from a folder of pictures, a ``.npy`` or a ``.safetensors`` file.

    A folder is searched with all folders below it, sorted by path; its pictures are resized and
    cropped to ``shape`` (C, H, W), and scaled to 0 to 1. A tensor file is taken as it is.

    Raises ``VitruviusError`` when there is no image, when a tensor file is not one of
    floating-point images [n, C, H, W] or holds NaN or infinity, and for pickles, which are never
    opened.
    """
    reading = reading or ImageReading()
    if path.is_dir():
        return _folder(path, shape, reading)
    if reading.mean or reading.std:
        raise VitruviusError(
            f"mean and std go with a folder of pictures; {path} holds images as they are"
        )
    if path.suffix.lower() in _PICKLES:
        raise VitruviusError(
            f"{path}: {path.suffix} files are pickles, which can run code when they are opened; "
            "expected a folder of pictures, a .npy or a .safetensors file "
            "(safetensors.torch.save_file)"
        )
    if path.suffix.lower() == ".safetensors":
        return ImageSet(_checked(_tensor(path), path))
    return ImageSet(_checked(_array(path), path))


def prepared(picture: Image, shape: tuple[int, ...], reading: ImageReading) -> Tensor:
    """One picture as a float32 image [C, H, W].

    The picture is turned upright (EXIF), made grey or RGB, resized (bicubic) until the model's
    size is 87.5 % of it, and cropped at the centre; one that already has the model's size is left
    as it is.
    """
    from PIL import Image, ImageOps

    channels, height, width = shape
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        # 16-bit greys; Pillow would clip them to 255.
        greys = np.asarray(picture, dtype=np.float32) / 257
        picture = Image.fromarray(greys.round().clip(0, 255).astype(np.uint8))
    elif picture.mode == "F":
        raise ValueError("floating-point pixels")
    picture = picture.convert(_MODES[channels])
    if picture.size != (width, height):
        scale = max(width / picture.width, height / picture.height) / _CROP
        wide = max(width, round(picture.width * scale))
        high = max(height, round(picture.height * scale))
        left, top = (wide - width) // 2, (high - height) // 2
        picture = picture.resize((wide, high), Image.Resampling.BICUBIC)
        picture = picture.crop((left, top, left + width, top + height))
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
    image = pixels.reshape(height, width, channels).permute(2, 0, 1)
    mean = torch.tensor(reading.mean or (0.0,)).reshape(-1, 1, 1)
    std = torch.tensor(reading.std or (1.0,)).reshape(-1, 1, 1)
    return ((image - mean) / std).contiguous()


def _folder(path: Path, shape: tuple[int, ...] | None, reading: ImageReading) -> ImageSet:
    from PIL import Image

    if shape is None or len(shape) != 3:
        raise VitruviusError(f"{path}: a folder of pictures needs a model that takes images")
    _check_reading(shape, reading)
    known = Image.registered_extensions()
    files = sorted(
        item for item in path.rglob("*") if item.suffix.lower() in known and item.is_file()
    )
    if not files:
        raise VitruviusError(
            f"{path}: expected pictures (.png, .jpg, .ppm, .bmp, ...) in the folder or below it, "
            "found none"
        )
    count = min(len(files), reading.limit)
    chosen = [files[index * len(files) // count] for index in range(count)]
    images: list[Tensor] = []
    skipped: list[tuple[Path, str]] = []
    for file in chosen:
        try:
            with Image.open(file) as picture:
                images.append(prepared(picture, shape, reading))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            skipped.append((file, _reason(error)))
    if skipped and (reading.strict or not images):
        raise VitruviusError(f"{path}: cannot read {_unreadable(skipped, len(chosen))}")
    return ImageSet(torch.stack(images), tuple(skipped))


def _check_reading(shape: Sequence[int], reading: ImageReading) -> None:
    channels = shape[0]
    if channels not in _MODES:
        raise VitruviusError(
            f"pictures have 1 or 3 channels, the model takes {channels}: give a .npy or "
            ".safetensors file"
        )
    if reading.limit < 1:
        raise VitruviusError(
            f"the number of calibration images must be at least 1, got {reading.limit}"
        )
    for name, numbers in (("mean", reading.mean), ("std", reading.std)):
        if numbers and len(numbers) not in (1, channels):
            raise VitruviusError(
                f"{name}: expected 1 or {channels} numbers, one for each channel, "
                f"got {len(numbers)}"
            )
        if not all(math.isfinite(number) for number in numbers):
            raise VitruviusError(f"{name}: expected finite numbers, got {_numbers(numbers)}")
    if reading.std and min(reading.std) <= 0:
        raise VitruviusError(f"std: expected numbers above 0, got {_numbers(reading.std)}")


def _array(path: Path) -> Tensor:
    if not path.is_file():
        raise VitruviusError(
            f"expected a folder of pictures, a .npy or a .safetensors file of images, "
            f"found none at {path}"
        )
    with path.open("rb") as file:
        if file.read(len(_NPY)) != _NPY:
            raise VitruviusError(f"{path} is not a .npy file")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise VitruviusError(f"{path} is not a complete .npy file: {_reason(error)}") from error
    if array.dtype.kind != "f" or array.ndim != 4:
        raise VitruviusError(
            f"{path}: expected floating-point images [n, C, H, W], "
            f"got {array.dtype} {list(array.shape)}"
        )
    with np.errstate(over="ignore"):
        return torch.from_numpy(array.astype(np.float32))


def _tensor(path: Path) -> Tensor:
    tensors, _ = load_weights(path)
    if len(tensors) != 1 and "images" not in tensors:
        raise VitruviusError(
            f"{path}: expected one tensor, or one called 'images', got {len(tensors)}: "
            f"{', '.join(sorted(tensors)[:_NAMED])}"
        )
    tensor = tensors["images"] if "images" in tensors else next(iter(tensors.values()))
    if not tensor.is_floating_point() or tensor.dim() != 4:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise VitruviusError(
            f"{path}: expected floating-point images [n, C, H, W], got {kind} {list(tensor.shape)}"
        )
    return tensor.to(torch.float32)


def _checked(images: Tensor, path: Path) -> Tensor:
    if not images.numel():
        raise VitruviusError(f"{path}: expected at least one image, got shape {list(images.shape)}")
    bad = int((~torch.isfinite(images)).sum())
    if bad:
        raise VitruviusError(
            f"{path}: expected finite values, got {bad} NaN or infinite of {images.numel()}"
        )
    return images


def _unreadable(skipped: Sequence[tuple[Path, str]], total: int) -> str:
    named = ", ".join(f"{file.name} ({reason})" for file, reason in skipped[:_NAMED])
    more = f" and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
    return f"{len(skipped)} of {total} pictures: {named}{more}"


def _numbers(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _reason(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "not a picture"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
