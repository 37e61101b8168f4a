"""What a host needs to drive a generated accelerator: one JSON file, and the parameter image beside
it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import VitruviusError
from .core.accelerator import COUNTERS
from .core.image import ParameterImage
from .core.program import Boundary, Program

__all__ = ["PARAMETERS_FILE", "Manifest", "manifest_of", "read_manifest", "read_parameters"]

PARAMETERS_FILE = "parameters.bin"


class Manifest(BaseModel):
    """Layout of memory for one Program on one Machine, and what its codes mean.

    machine_digest, program_digest: what the registers MACHINE and PROGRAM begin with. port_bits,
    on_chip_kib: width of the memory port; size of the memory on the chip, 0 if it is external.
    tasks: how many the register TASK chooses among.
    products: names, in the order in which STATUS and BREAK count them.
    image_scale: value of one input code; image_patch: side of a patch; an image is image_tokens
    rows of image_words words of ``depth`` bytes, features in the order channel, row, column of the
    patch; a word takes image_word_bytes in memory, an image image_bytes; images are image_pitch
    bytes apart.
    scheme: of the integer operators that the accelerator is built for.
    results: logits, or rows of the residual stream: result_tokens rows of codes of result_bits,
    little-endian, of which the first result_features count; ``results`` codes in all, sent in whole
    beats (result_bytes); result_scale: value of one; result_pitch: bytes from results to results.
    traffic: bytes that one image moves. counters: performance counters, in the order of their
    registers. tensors: where intermediate tensors can be read, before which product.
    files: sha256 and size of the parameter image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    machine: str
    machine_digest: str
    program_digest: str
    rows: int
    cols: int
    depth: int
    port_bits: int
    scheme: str
    on_chip_kib: int
    tasks: int
    products: tuple[str, ...]
    image_shape: tuple[int, int, int]
    image_patch: int
    image_scale: float
    image_tokens: int
    image_words: int
    image_word_bytes: int
    image_features: int
    image_bytes: int
    image_pitch: int
    results: int
    result_bits: int
    result_tokens: int
    result_features: int
    result_scale: float
    result_bytes: int
    result_pitch: int
    traffic: dict[str, int]
    counters: tuple[str, ...]
    tensors: tuple[Boundary, ...]
    files: dict[str, str]
    sizes: dict[str, int]


def manifest_of(program: Program, parameters: bytes) -> Manifest:
    """The manifest of ``program``, whose parameter image is ``parameters``."""
    source, final = program.model.operators[0], program.model.operators[-1]
    machine, layout = program.machine, ParameterImage(program)
    image_bytes = layout.traffic["image"]
    return Manifest(
        model=program.model.name,
        machine=machine.name,
        machine_digest=machine.digest,
        program_digest=program.digest,
        rows=machine.rows,
        cols=machine.cols,
        depth=machine.depth,
        port_bits=machine.port_bits,
        scheme=machine.scheme,
        on_chip_kib=machine.memory,
        tasks=program.model.tasks,
        products=tuple(step.name for step in program.steps),
        image_shape=program.model.image_shape,
        image_patch=int(source.attributes["patch"]),
        image_scale=source.scale,
        image_tokens=program.image_tokens,
        image_words=program.image_words,
        image_word_bytes=image_bytes // (program.image_tokens * program.image_words),
        image_features=program.image_features,
        image_bytes=image_bytes,
        image_pitch=layout.image_pitch,
        results=program.results,
        result_bits=machine.arithmetic.result_bits,
        result_tokens=program.result_tokens,
        result_features=program.result_features,
        result_scale=final.scale,
        result_bytes=layout.traffic["results"],
        result_pitch=layout.result_pitch,
        traffic=layout.traffic,
        counters=COUNTERS,
        tensors=program.boundaries,
        files={PARAMETERS_FILE: hashlib.sha256(parameters).hexdigest()},
        sizes={PARAMETERS_FILE: len(parameters)},
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


def read_parameters(folder: Path, manifest: Manifest) -> bytes:
    """The parameter image in ``folder``. Raises VitruviusError if it cannot be read, or if its
    length or its hash is not the manifest's.
    """
    path = folder / PARAMETERS_FILE
    try:
        image = path.read_bytes()
    except OSError as error:
        raise VitruviusError(f"{path}: not readable: {error.strerror}") from None
    expected = manifest.sizes[PARAMETERS_FILE]
    if len(image) != expected:
        raise VitruviusError(f"{path}: expected {expected} bytes, got {len(image)}")
    if hashlib.sha256(image).hexdigest() != manifest.files[PARAMETERS_FILE]:
        raise VitruviusError(f"{path}: {len(image)} bytes that do not match the manifest's hash")
    return image
