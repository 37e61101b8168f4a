"""From the options of a verb to a graph, an integer model and images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import VitruviusError

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.datasets import Dataset
    from ..models.graph import Graph
    from ..models.integer_model import IntegerModel
    from ..models.resolve import Workload

__all__ = [
    "Quantized",
    "load_images",
    "load_workload",
    "quantized",
    "test_images",
    "trace_workload",
]

_QUANTIZED_SUFFIX = ".safetensors"
_NPY = b"\x93NUMPY"


@dataclass(frozen=True)
class Quantized:
    """An integer model with what is known of its origin.

    ``workload`` and ``graph`` are None when the model came from a file. ``calibration`` are the
    images [n, C, H, W] it was calibrated on, if known; ``dataset`` its test images, if it has any.
    """

    model: IntegerModel
    workload: Workload | None
    graph: Graph | None
    dataset: Dataset | None
    calibration: Tensor | None


def load_workload(model: str, weights: Path | None) -> Workload:
    """The module that MODEL names, with the file of ``--weights`` loaded into it."""
    from ..models.resolve import resolve_model
    from ..models.weights import load_into

    workload = resolve_model(model)
    if weights is not None:
        load_into(workload.module, weights)
    return workload


def trace_workload(workload: Workload, unmapped: Literal["error", "host"] = "error") -> Graph:
    """The graph of a workload."""
    from ..models.trace import trace

    return trace(workload.module, workload.example_inputs, name=workload.name, unmapped=unmapped)


def load_images(path: Path) -> Tensor:
    """Float images [n, C, H, W] from a ``.npy`` file.

    Raises ``VitruviusError`` when the file is missing, not such an array, or holds NaN or infinity.
    """
    import numpy as np
    import torch

    if not path.is_file():
        raise VitruviusError(f"expected a .npy file of images, found none at {path}")
    with path.open("rb") as file:
        if file.read(len(_NPY)) != _NPY:
            raise VitruviusError(f"{path} is not a .npy file")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VitruviusError(f"{path} is not a complete .npy file: {reason}") from error
    if array.ndim != 4 or array.dtype.kind != "f":
        raise VitruviusError(
            f"{path}: expected floating-point images [n, C, H, W], "
            f"got {array.dtype} {list(array.shape)}"
        )
    if array.size == 0:
        raise VitruviusError(f"{path}: expected at least one image, got {list(array.shape)}")
    with np.errstate(over="ignore"):
        images = array.astype(np.float32)
    bad = int((~np.isfinite(images)).sum())
    if bad:
        raise VitruviusError(
            f"{path}: expected finite values, got {bad} NaN or infinite of {array.size}"
        )
    return torch.from_numpy(images)


def quantized(model: str, *, weights: Path | None, calibration: Path | None) -> Quantized:
    """The integer model of MODEL, or of a file that ``vitruvius quantize`` wrote.

    Raises ``VitruviusError`` when there are no images to calibrate on, besides the errors of
    loading, tracing and quantizing.
    """
    from ..models.quantize import quantize

    given = load_images(calibration) if calibration is not None else None
    if model.endswith(_QUANTIZED_SUFFIX):
        return _from_file(Path(model), weights, given)
    workload = load_workload(model, weights)
    images = given
    if images is None and workload.dataset is not None:
        images = workload.dataset.calibration_images
    if images is None:
        raise VitruviusError(
            f"{model} has no data set to calibrate on: give images with --calibration FILE.npy, "
            f"floats {_wanted(workload)}"
        )
    if (
        len(workload.example_inputs) == 1
        and images.shape[1:] != workload.example_inputs[0].shape[1:]
    ):
        raise VitruviusError(
            f"calibration images: expected {_wanted(workload)}, got {list(images.shape)}"
        )
    graph = trace_workload(workload)
    integer = quantize(graph, images, name=workload.name)
    return Quantized(integer, workload, graph, workload.dataset, images)


def test_images(source: Quantized, count: int) -> tuple[Tensor, Tensor | None]:
    """The first ``count`` test images [n, C, H, W] and their labels [n], or calibration images.

    Raises ``VitruviusError`` when there are fewer, or none.
    """
    if count < 1:
        raise VitruviusError(f"the number of images must be at least 1, got {count}")
    if source.dataset is not None:
        images, labels = source.dataset.test_images, source.dataset.test_labels
        kind = f"test images of {source.dataset.name}"
    elif source.calibration is not None:
        images, labels, kind = source.calibration, None, "images given with --calibration"
    else:
        raise VitruviusError(
            f"{source.model.name} has no test images: give some with --calibration FILE.npy"
        )
    if count > len(images):
        raise VitruviusError(f"expected at most {len(images)} images ({kind}), got {count}")
    return images[:count], None if labels is None else labels[:count]


def _from_file(path: Path, weights: Path | None, given: Tensor | None) -> Quantized:
    from ..models.integer_model import IntegerModel
    from ..models.zoo import ZOO

    if weights is not None:
        raise VitruviusError(f"--weights does not go with {path}, which is quantized already")
    integer = IntegerModel.load(path)
    entry = ZOO.get(integer.name)
    known = entry is not None and entry.input_shape[1:] == integer.image_shape
    dataset = entry.dataset() if known and entry is not None and entry.dataset else None
    return Quantized(integer, None, None, dataset, given)


def _wanted(workload: Workload) -> str:
    shape = workload.example_inputs[0].shape[1:]
    return f"[n, {', '.join(str(size) for size in shape)}]"
