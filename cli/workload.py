"""From the options of a verb to a graph, an integer model and images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import VitruviusError

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.datasets import Dataset
    from ..models.equalisation import Equalised
    from ..models.graph import Graph
    from ..models.images import ImageReading, ImageSet
    from ..models.integer_model import IntegerModel
    from ..models.quantization_options import QuantizationOptions
    from ..models.resolve import Workload

__all__ = [
    "Quantized",
    "load_workload",
    "quantized",
    "test_images",
    "trace_workload",
]

_QUANTIZED_SUFFIX = ".safetensors"
_PHOTOGRAPHS = 16
_RANDOM = (
    "{model} has random weights and is calibrated on crops of photographs, which is enough for "
    "cycles and says nothing about accuracy; give images with --calibration"
)


@dataclass(frozen=True)
class Quantized:
    """An integer model with what is known of its origin.

    ``workload`` and ``graph`` are None when the model came from a file. ``calibration`` are the
    images [n, C, H, W] it was calibrated on, if known; ``dataset`` its test images, if it has any;
    ``held_out`` images kept back to compare on. ``equalised`` says which tensors were; ``warning``
    which pictures could not be read.
    """

    model: IntegerModel
    workload: Workload | None
    graph: Graph | None
    dataset: Dataset | None
    calibration: Tensor | None
    held_out: Tensor | None = None
    equalised: tuple[Equalised, ...] = ()
    warning: str = ""


def load_workload(
    model: str, weights: Path | None, shapes: bool = False, *, image_size: int | None = None
) -> Workload:
    """The module that MODEL names, with the file of ``--weights`` loaded into it.

    With ``shapes`` values are not needed: a large zoo model without weights has none.
    ``image_size`` replaces that of a zoo model or of a model's TOML file without weights.
    """
    from ..models.resolve import entry_workload, resized, resolve_model, zoo_entry
    from ..models.zoo.pretrained import load_pretrained

    if image_size is not None:
        entry = zoo_entry(model)
        if entry is None or weights is not None:
            raise VitruviusError(
                "--image-size is for a zoo model or a model's TOML file without weights, got "
                + (model if entry is None else f"--weights {weights}")
            )
        return entry_workload(resized(entry, image_size), shapes=shapes)
    workload = resolve_model(model, shapes=shapes and weights is None)
    if weights is not None:
        load_pretrained(workload.module, weights)
    return workload


def trace_workload(workload: Workload, unmapped: Literal["error", "host"] = "error") -> Graph:
    """The graph of a workload; of one without values, that of its shapes."""
    from ..models.trace import trace, trace_shapes

    if workload.example_inputs[0].is_meta:
        return trace_shapes(
            workload.module, workload.example_inputs, name=workload.name, unmapped=unmapped
        )
    return trace(workload.module, workload.example_inputs, name=workload.name, unmapped=unmapped)


def _trace_tasks(workload: Workload) -> Graph:
    """The graph of a workload with the gates of all its tasks, if it has several."""
    from ..models.tasks import trace_tasks

    if workload.task is not None:
        return trace_workload(workload)
    return trace_tasks(workload.module, workload.example_inputs, name=workload.name)


def quantized(
    model: str,
    *,
    weights: Path | None,
    calibration: Path | None,
    reading: ImageReading | None = None,
    options: QuantizationOptions | None = None,
    holding_out: bool = False,
) -> Quantized:
    """The integer model of MODEL, or of a file that ``vitruvius quantize`` wrote.

    ``reading`` says how a folder of pictures is read, ``options`` how the model is quantized. With
    ``holding_out`` the last fifth of the images given with --calibration is kept to compare on,
    for a model without test images of its own.

    Raises ``VitruviusError`` when there are no images to calibrate on, besides the errors of
    loading, tracing and quantizing.
    """
    from ..models.datasets import photographs
    from ..models.quantize import quantization
    from ..models.zoo import ZOO

    if model.endswith(_QUANTIZED_SUFFIX):
        return _from_file(Path(model), weights, calibration, reading)
    workload = load_workload(model, weights)
    shape = tuple(workload.example_inputs[0].shape[1:])
    found = None if calibration is None else _read(calibration, shape, reading)
    warning = "" if found is None else found.warning
    if found is not None:
        images = found.images
    elif workload.dataset is not None:
        images = workload.dataset.calibration_images
    elif weights is None and model in ZOO and len(shape) == 3 and shape[0] == 3:
        # Random weights: any image has the same to say of ranges, and of cycles.
        images = photographs(_PHOTOGRAPHS, (shape[1], shape[2]))
        warning = _RANDOM.format(model=model)
    else:
        raise VitruviusError(
            f"{model} has no data set to calibrate on: give images with --calibration, a folder "
            f"of pictures or a file of floats {_wanted(workload)}"
        )
    if len(workload.example_inputs) == 1 and tuple(images.shape[1:]) != shape:
        raise VitruviusError(
            f"calibration images: expected {_wanted(workload)}, got {list(images.shape)}"
        )
    held = None
    if holding_out and workload.dataset is None:
        from ..models.agreement import hold_out

        images, held = hold_out(images)
    graph = _trace_tasks(workload)
    made = quantization(graph, images, name=workload.name, options=options)
    return Quantized(
        made.model,
        workload,
        graph,
        workload.dataset,
        images,
        held_out=held,
        equalised=made.equalised,
        warning=warning,
    )


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
            f"{source.model.name} has no test images: give some with --calibration"
        )
    if count > len(images):
        raise VitruviusError(f"expected at most {len(images)} images ({kind}), got {count}")
    return images[:count], None if labels is None else labels[:count]


def _from_file(
    path: Path, weights: Path | None, calibration: Path | None, reading: ImageReading | None
) -> Quantized:
    from ..models.integer_model import IntegerModel
    from ..models.zoo import ZOO

    if weights is not None:
        raise VitruviusError(f"--weights does not go with {path}, which is quantized already")
    integer = IntegerModel.load(path)
    found = None if calibration is None else _read(calibration, integer.image_shape, reading)
    entry = ZOO.get(integer.name)
    known = entry is not None and entry.input_shape[1:] == integer.image_shape
    dataset = entry.dataset() if known and entry is not None and entry.dataset else None
    return Quantized(
        integer,
        None,
        None,
        dataset,
        None if found is None else found.images,
        warning="" if found is None else found.warning,
    )


def _read(path: Path, shape: tuple[int, ...], reading: ImageReading | None) -> ImageSet:
    from ..models.images import load_images

    return load_images(path, shape, reading)


def _wanted(workload: Workload) -> str:
    shape = workload.example_inputs[0].shape[1:]
    return f"[n, {', '.join(str(size) for size in shape)}]"
