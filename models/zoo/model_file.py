"""A model's TOML file: its sizes, where its weights lie, which images it is for.

The zoo's models are such files in ``configs/``; a user's own file is read by the same code. Nothing
here imports torch before a model is built.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...errors import VitruviusError
from .config import VisionTransformerConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..datasets import Dataset

__all__ = ["DATASETS", "ModelFile", "ZooModel", "build", "load_model_file", "problems"]

_SEED = 0


class ModelFile(BaseModel):
    """What a model's TOML file may say; ``model`` are the sizes.

    ``family``, ``summary`` and ``source`` are for people. ``weights`` is a safetensors file or a
    folder of them, relative to the TOML file; without it the weights are random, the same every
    time. ``task`` makes a model for several tasks one for that task alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = "vit"
    summary: str = ""
    source: str = ""
    weights: str | None = None
    dataset: Literal["digits", "mnistm"] | None = None
    task: int | None = Field(default=None, ge=0)
    model: VisionTransformerConfig

    @model_validator(mode="after")
    def _has_the_task(self) -> Self:
        tasks = self.model.experts.tasks if self.model.experts is not None else 1
        if self.task is not None and self.task >= tasks:
            raise ValueError(
                f"task {self.task} is not below the number of tasks, {tasks}; the first one is 0"
            )
        return self


@dataclass(frozen=True)
class ZooModel:
    """One model that a TOML file describes.

    ``weights`` is its safetensors file or None; ``dataset`` makes its images, if it has any.
    """

    name: str
    family: str
    summary: str
    source: str
    config: VisionTransformerConfig
    weights: Path | None = None
    dataset: Callable[[], Dataset] | None = None
    task: int | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One image with its batch axis, [1, C, H, W]."""
        return (1, self.config.channels, *self.config.image_size)

    def build(self) -> nn.Module:
        """The module with random weights, the same every time; torch's own generator stays as it
        is.
        """
        import torch

        from .vit import VisionTransformer

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            module = VisionTransformer(self.config)
        module.task = self.task or 0
        return module

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs of the right shape, zeros, float32."""
        import torch

        return (torch.zeros(self.input_shape),)


def load_model_file(path: Path) -> ZooModel:
    """The model that the TOML file at ``path`` describes; it is called like the file.

    Raises ``VitruviusError`` when the file cannot be read, naming every field that is wrong,
    missing or unknown by its dotted path.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise VitruviusError(f"expected a model file, found none at {path}") from None
    except OSError as error:
        raise VitruviusError(f"model file {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise VitruviusError(f"model file {path} is not TOML: {error}") from error
    try:
        file = ModelFile.model_validate(fields)
    except ValidationError as error:
        raise VitruviusError(f"model file {path}: {problems(error)}") from error
    return ZooModel(
        name=path.stem,
        family=file.family,
        summary=file.summary,
        source=file.source,
        config=file.model,
        weights=None if file.weights is None else path.parent / file.weights,
        dataset=None if file.dataset is None else DATASETS[file.dataset],
        task=file.task,
    )


def build(path: Path) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module (in eval mode, with its weights) and example inputs of the TOML file at ``path``.

    Raises ``VitruviusError`` as ``load_model_file`` does, and when the weights do not fit.
    """
    entry = load_model_file(path)
    module = entry.build()
    if entry.weights is not None:
        from .pretrained import load_pretrained

        load_pretrained(module, entry.weights)
    return module.eval(), entry.example_inputs()


def problems(error: ValidationError, table: str = "") -> str:
    """Every faulty field by its dotted path, inside ``table``, with what was wrong with it."""
    texts = []
    for problem in error.errors():
        place = ".".join(str(part) for part in (*([table] if table else []), *problem["loc"]))
        text = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            text = "is not a field of a model"
        texts.append(f"{place}: {text}" if place else text)
    return "; ".join(texts)


def _digits() -> Dataset:
    from ..datasets import digits

    return digits()


def _mnistm() -> Dataset:
    from ..datasets import mnistm

    return mnistm()


DATASETS: dict[str, Callable[[], Dataset]] = {"digits": _digits, "mnistm": _mnistm}
"""What a file's ``dataset`` names."""
