"""The options of a 4f system's devices, and the images that go through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

import typer

from ..errors import VitruviusError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.datasets import Dataset
    from ..models.graph import Graph
    from ..models.resolve import Workload
    from ..optical.mapping import Placed

__all__ = [
    "CALIBRATION",
    "AdcBits",
    "CameraShift",
    "Images",
    "MapTo",
    "MaskShift",
    "PanelBits",
    "Photons",
    "Plane",
    "ReadNoise",
    "SchemeName",
    "Shown",
    "TilingName",
    "data_of",
    "forms_of",
    "image_shape",
    "numbers",
    "only",
    "operators_on",
    "shift",
    "shipped",
    "shown_images",
    "whole_numbers",
]

Number = TypeVar("Number", int, float)

CALIBRATION = 64
NONE = "none"

Images: TypeAlias = Annotated[
    int, typer.Option("--images", metavar="N", min=1, help="How many test images.")
]
MapTo: TypeAlias = Annotated[
    str,
    typer.Option(
        "--map", metavar="FORMS", help="What goes on optics: conv, linear and scores, joined by +."
    ),
]
Photons: TypeAlias = Annotated[
    str,
    typer.Option(
        "--photons",
        metavar="LIST",
        help="Photons of the brightest pixel; none: no shot noise, no read noise.",
    ),
]
AdcBits: TypeAlias = Annotated[
    str, typer.Option("--adc-bits", metavar="LIST", help="Bits of the camera's converter, or none.")
]
PanelBits: TypeAlias = Annotated[
    str,
    typer.Option(
        "--panel-bits",
        metavar="LIST",
        help="Bits of the amplitudes of both panels and of the mask's phases, or none.",
    ),
]
ReadNoise: TypeAlias = Annotated[
    float,
    typer.Option(
        "--read-noise", metavar="E", help="Standard deviation of the camera's read-out, electrons."
    ),
]
SchemeName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--scheme",
        help="How the sign survives the camera: split, offset, reference; intensity and absolute "
        "compute something else.",
    ),
]
MaskShift: TypeAlias = Annotated[
    str,
    typer.Option(
        "--mask-shift",
        metavar="ROWS,COLUMNS",
        help="By how much the mask lies off, in samples of the Fourier plane.",
    ),
]
CameraShift: TypeAlias = Annotated[
    str,
    typer.Option(
        "--camera-shift", metavar="ROWS,COLUMNS", help="By how much the camera lies off, in pixels."
    ),
]
Plane: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--plane",
        metavar="N",
        help="Samples a side of the planes, filled with as many images as fit. Without it, every "
        "image has the smallest plane of its own, which is much faster.",
        show_default=False,
    ),
]

TilingName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--tiling",
        help="What shares a plane: input, images alone, or channel, whose channels add up as "
        "light before the camera.",
    ),
]


@dataclass(frozen=True)
class Shown:
    """Images to run [n, ...], their labels if known, and others [m, ...] to set the light by; the
    data set that all are of, if it ships.
    """

    images: Tensor
    labels: Tensor | None
    calibration: Tensor
    data: Dataset | None = None


def numbers(text: str, option: str) -> list[float]:
    """A list written as 1e3,1e4; empty for none."""
    if text.strip().lower() == NONE:
        return []
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise VitruviusError(
            f"{option}: expected numbers such as 1e3,1e4 or none, got '{text}'"
        ) from error


def whole_numbers(text: str, option: str) -> list[int]:
    """A list written as 6,8; empty for none."""
    if text.strip().lower() == NONE:
        return []
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise VitruviusError(
            f"{option}: expected whole numbers such as 6,8 or none, got '{text}'"
        ) from error


def only(found: Sequence[Number], option: str) -> Number | None:
    """The one number of a list, or none."""
    if len(found) > 1:
        raise VitruviusError(f"{option}: expected one number or none, got {len(found)}")
    return found[0] if found else None


def shift(text: str, option: str) -> tuple[float, float]:
    """Rows and columns written as 0.1,0.2; one number is both."""
    found = numbers(text, option)
    if len(found) not in (1, 2):
        raise VitruviusError(f"{option}: expected one or two numbers, got '{text}'")
    return found[0], found[-1]


def forms_of(text: str) -> tuple[str, ...]:
    """The forms of ``--map``, written as conv+linear."""
    from ..optical.mapping import ON_OPTICS

    words = tuple(word.strip() for word in text.split("+"))
    for word in words:
        if word not in ON_OPTICS:
            raise VitruviusError(
                f"--map: expected {'+'.join(ON_OPTICS)} or some of them, got '{word}', "
                + nearest(word, ON_OPTICS)
            )
    return words


def operators_on(graph: Graph, forms: tuple[str, ...], shown: Shown) -> list[Placed]:
    """Where every operator of ``graph`` is computed.

    Raises ``VitruviusError`` when nothing is left for the optics.
    """
    from ..optical.mapping import mapped

    lit = bool((shown.images >= 0).all()) and bool((shown.calibration >= 0).all())
    placed = mapped(graph, forms, non_negative_inputs=lit)
    if not any(item.work for item in placed):
        raise VitruviusError(f"{graph.name} has no operator of {'+'.join(forms)} to put on optics")
    return placed


def image_shape(workload: Workload) -> tuple[int, ...]:
    """The shape [C, H, W] of an image of the model; raises ``VitruviusError`` when it reads more
    than one tensor.
    """
    if len(workload.example_inputs) != 1:
        raise VitruviusError(
            f"{workload.name} has {len(workload.example_inputs)} inputs, expected one: the image"
        )
    return tuple(workload.example_inputs[0].shape[1:])


def shipped(workload: Workload) -> Dataset | None:
    """The data set that ships with the model, or one whose images fit it."""
    from ..models.datasets import shipped_images

    return workload.dataset or shipped_images(image_shape(workload))


def data_of(workload: Workload) -> Dataset:
    """What ``shipped`` gives; raises ``VitruviusError`` with advice when there is none."""
    if (data := shipped(workload)) is None:
        sizes = ", ".join(str(size) for size in image_shape(workload))
        raise VitruviusError(
            f"no data set that ships has images of {workload.name}: give some with --inputs, a "
            f"folder of pictures or a file of floats [n, {sizes}]"
        )
    return data


def shown_images(workload: Workload, count: int, inputs: Path | None) -> Shown:
    """The images of a run: test images that ship with the model or fit it, or those of a file, of
    which the last are run and the others set the light.

    Raises ``VitruviusError`` when there are none, or too few.
    """
    from ..models.images import load_images

    shape = image_shape(workload)
    if inputs is not None:
        given = load_images(inputs, shape).images
        if len(given) <= count:
            raise VitruviusError(
                f"--inputs: expected more than {count} images, {count} to run and the others to "
                f"set the light, got {len(given)}"
            )
        return Shown(given[-count:], None, given[: len(given) - count][:CALIBRATION])
    data = data_of(workload)
    if count > len(data.test_images):
        raise VitruviusError(
            f"--images: expected at most {len(data.test_images)} (test images of {data.name}), "
            f"got {count}"
        )
    return Shown(
        data.test_images[:count],
        data.test_labels[:count],
        data.calibration_images[:CALIBRATION],
        data,
    )
