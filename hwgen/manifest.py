"""What a host needs to drive a generated accelerator: one JSON file and three memory images
beside it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import VitruviusError
from .loader import Target
from .program import Boundary, Program

__all__ = ["IMAGE_FILES", "Manifest", "manifest_of", "read_image", "read_manifest"]

IMAGE_FILES = {
    Target.PROGRAM: "program.bin",
    Target.WEIGHT: "weights.bin",
    Target.COLUMN: "columns.bin",
}


class Manifest(BaseModel):
    """Layout of streams and memories of one Program on one Machine.

    image_scale: value of one input code; image_patch: side of a patch; the image stream is
    image_tokens rows of image_words beats of ``depth`` bytes, features in the order channel, row,
    column of the patch.
    result_scale: value of one logit code. files: sha256 of each memory image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    machine: str
    machine_digest: str
    program_digest: str
    rows: int
    cols: int
    depth: int
    steps: tuple[str, ...]
    image_shape: tuple[int, int, int]
    image_patch: int
    image_scale: float
    image_tokens: int
    image_words: int
    image_features: int
    results: int
    result_scale: float
    tensors: tuple[Boundary, ...]
    files: dict[str, str]


def manifest_of(program: Program) -> Manifest:
    """The manifest of ``program``."""
    source, final = program.model.operators[0], program.model.operators[-1]
    machine = program.machine
    return Manifest(
        model=program.model.name,
        machine=machine.name,
        machine_digest=machine.digest,
        program_digest=program.digest,
        rows=machine.rows,
        cols=machine.cols,
        depth=machine.depth,
        steps=tuple(step.name for step in program.steps),
        image_shape=program.model.image_shape,
        image_patch=int(source.attributes["patch"]),
        image_scale=source.scale,
        image_tokens=program.image_tokens,
        image_words=program.image_words,
        image_features=program.image_features,
        results=program.results,
        result_scale=final.scale,
        tensors=program.boundaries,
        files={
            name: hashlib.sha256(program.image_of(target)).hexdigest()
            for target, name in IMAGE_FILES.items()
        },
    )


def read_manifest(folder: Path) -> Manifest:
    """The manifest in ``folder``. Raises VitruviusError if it is missing or damaged."""
    path = folder / "manifest.json"
    try:
        return Manifest.model_validate(json.loads(path.read_text()))
    except FileNotFoundError:
        raise VitruviusError(
            f"{folder}: expected a generated accelerator, found no manifest.json"
        ) from None
    except (OSError, ValueError, ValidationError) as error:
        raise VitruviusError(f"{path}: not a manifest: {str(error).splitlines()[0]}") from None


def read_image(folder: Path, manifest: Manifest, target: Target) -> bytes:
    """A memory image, checked against the manifest's hash. Raises VitruviusError if it is another
    one.
    """
    path = folder / IMAGE_FILES[target]
    try:
        image = path.read_bytes()
    except OSError as error:
        raise VitruviusError(f"{path}: not readable: {error.strerror}") from None
    if hashlib.sha256(image).hexdigest() != manifest.files[path.name]:
        raise VitruviusError(f"{path}: {len(image)} bytes that do not match the manifest's hash")
    return image
