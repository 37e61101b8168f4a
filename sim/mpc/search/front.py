"""The search from end to end: teacher, alphas, architectures, students, and what they cost.

Every training lies in a file of its own under the run's folder, and is reused or gone on with when
the same run is started again.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from ....models.distillation import distillation_loss
from ....models.zoo.mpcvit import MpcVit
from ....models.zoo.mpcvit_config import Granularity, MpcVitConfig
from ....models.zoo.network_file import network_text
from .binarise import kept_units, top_units, within_budget
from .contestants import BASELINES, mixed_config
from .fitting import Loss, digest, fitted
from .latency import Place
from .lessons import Lesson
from .penalty import UnitCosts, cost_penalty, l1_penalty, unit_costs
from .relaxation import alphas, betas, gates, relaxed

__all__ = ["Front", "Point", "SearchOptions", "Summary", "run_search"]

_LABEL_SMOOTHING = 0.1

Report = Callable[[str, int, int, float], None]
"""Called after every epoch with what is trained, the epoch from 1, the epochs, the mean loss."""


class SearchOptions(BaseModel):
    """How the search is done.

    mu: shares of the units that keep ReLU-softmax, each from 0 to 1. penalty: ``l1`` keeps the
    largest alphas of all layers; ``cost`` pays what the cost model says and fills the share mu of
    the cost of all units. granularity: what a unit is. strength: the factor lambda of the penalty.
    plus: MPCViT+ too, which also keeps the GELU of the share mu of the layers alone. seeds: one
    whole run for each, teacher and search too. epochs, search_epochs: None for the data set's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mu: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7)
    penalty: Literal["l1", "cost"] = "cost"
    granularity: Granularity = "head"
    strength: float = Field(default=5e-3, ge=0, allow_inf_nan=False)
    plus: bool = True
    seeds: tuple[int, ...] = (0,)
    epochs: int | None = Field(default=None, ge=1)
    search_epochs: int | None = Field(default=None, ge=1)

    @field_validator("mu")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        wrong = [share for share in value if not 0 <= share <= 1]
        if wrong or not value:
            raise ValueError(
                f"expected shares from 0 to 1, got {', '.join(map(str, wrong)) or 'none'}"
            )
        return tuple(sorted(set(value)))

    @field_validator("seeds")
    @classmethod
    def _numbers(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or any(not 0 <= seed < 2**63 for seed in value):
            raise ValueError(f"expected at least one, from 0 to 2^63 - 1, got {list(value)}")
        return value


@dataclass(frozen=True)
class Point:
    """One trained model: accuracy on the test images (0 to 1), and its cost for one image.

    ``kept`` lists for each layer the units with ReLU-softmax where ``attention`` is mixed,
    ``active`` the layers with GELU of an MPCViT+.
    """

    name: str
    title: str
    seed: int
    attention: str
    accuracy: float
    rounds: int
    bytes_sent: int
    latency_s: float
    mu: float | None = None
    kept: tuple[tuple[int, ...], ...] | None = None
    active: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Summary:
    """The points of one name over the seeds: means, least and largest."""

    name: str
    title: str
    mu: float | None
    accuracy: float
    least: float
    largest: float
    rounds: float
    bytes_sent: float
    latency_s: float


@dataclass(frozen=True)
class Front:
    """What a search found.

    ``alphas`` are those of each seed, [layers][units], ``betas`` [layers].
    """

    data: str
    test_images: int
    protocol: str
    network: str
    options: SearchOptions
    epochs: int
    search_epochs: int
    costs: UnitCosts
    alphas: tuple[tuple[tuple[float, ...], ...], ...]
    betas: tuple[tuple[float, ...], ...]
    points: tuple[Point, ...]

    def summaries(self) -> list[Summary]:
        """One for each model, in the order of the points."""
        found = []
        for name in dict.fromkeys(point.name for point in self.points):
            points = [point for point in self.points if point.name == name]
            scores = [point.accuracy for point in points]
            found.append(
                Summary(
                    name,
                    points[0].title,
                    points[0].mu,
                    statistics.fmean(scores),
                    min(scores),
                    max(scores),
                    statistics.fmean(point.rounds for point in points),
                    statistics.fmean(point.bytes_sent for point in points),
                    statistics.fmean(point.latency_s for point in points),
                )
            )
        return found


def run_search(
    lesson: Lesson,
    place: Place,
    options: SearchOptions,
    out: Path,
    *,
    report: Report | None = None,
) -> Front:
    """Trains everything for every seed, into folders of ``out``, and counts what it costs.

    Raises ``VitruviusError`` when a folder holds trainings of another setting, or a file cannot be
    written.
    """
    epochs = options.epochs or lesson.epochs
    search_epochs = options.search_epochs or lesson.search_epochs
    space = lesson.config.model_copy(update={"granularity": options.granularity})
    costs = unit_costs(space, place.latency_s)
    points: list[Point] = []
    found: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for seed in options.seeds:
        course = _Course(lesson, out / f"seed{seed}", seed, epochs, report)
        teacher, score = course.teacher()
        alpha, beta = course.search(space, options, costs, search_epochs)
        found.append((alpha, beta))
        scores: dict[MpcVitConfig, float] = {lesson.config: score}
        for rival in _rivals(lesson.config, space, options, costs, alpha, beta):
            if rival.config not in scores:
                scores[rival.config] = course.student(rival.family, rival.config, teacher)
            cost = place.cost(rival.config.model_copy(update={"fused": True}))
            points.append(
                Point(
                    rival.name,
                    rival.title,
                    seed,
                    rival.config.attention,
                    scores[rival.config],
                    cost.rounds,
                    cost.bytes_sent,
                    cost.latency_s,
                    rival.mu,
                    rival.config.relu_softmax,
                    rival.active,
                )
            )
    return Front(
        lesson.name,
        len(lesson.data.test_labels),
        place.protocol.name,
        place.network.name,
        options,
        epochs,
        search_epochs,
        costs,
        tuple(tuple(tuple(map(float, row)) for row in values) for values, _ in found),
        tuple(tuple(map(float, values)) for _, values in found),
        tuple(points),
    )


@dataclass(frozen=True)
class _Rival:
    family: str
    title: str
    config: MpcVitConfig
    mu: float | None = None
    active: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        return self.family if self.mu is None else f"{self.family}-{self.mu:g}"


def _rivals(
    base: MpcVitConfig,
    space: MpcVitConfig,
    options: SearchOptions,
    costs: UnitCosts,
    alpha: NDArray[np.float64],
    beta: NDArray[np.float64],
) -> list[_Rival]:
    """The baselines, then MPCViT and MPCViT+ at every mu."""
    rivals = [_Rival(item.name, item.title, item.config(base)) for item in BASELINES]
    kept = {mu: _binarised(alpha, mu, options, costs) for mu in options.mu}
    for mu in options.mu:
        config = mixed_config(space, kept[mu])
        rivals.append(_Rival("mpcvit", f"MPCViT, μ = {mu:g}", config, mu))
    for mu in options.mu if options.plus else ():
        (active,) = top_units(beta[None], kept_units(base.depth, mu))
        config = mixed_config(space, kept[mu], active)
        rivals.append(_Rival("mpcvit+", f"MPCViT+, μ = {mu:g}", config, mu, active))
    return rivals


def _binarised(
    values: NDArray[np.float64], mu: float, options: SearchOptions, costs: UnitCosts
) -> tuple[tuple[int, ...], ...]:
    if options.penalty == "l1":
        return top_units(values, kept_units(values.size, mu))
    return within_budget(values, mu, costs)


@dataclass(frozen=True)
class _Course:
    """The trainings of one seed."""

    lesson: Lesson
    folder: Path
    seed: int
    epochs: int
    report: Report | None

    def teacher(self) -> tuple[MpcVit, float]:
        """The model with softmax, trained on the labels."""
        config = self.lesson.config
        setting = {"model": config.model_dump_json(), "loss": "cross entropy"}
        self._describe("softmax", config)
        return fitted(
            self.folder / "softmax.safetensors",
            setting,
            self.lesson,
            lambda: MpcVit(config),
            _labels,
            epochs=self.epochs,
            seed=self.seed,
            progress=self._progress("softmax"),
        )

    def search(
        self, space: MpcVitConfig, options: SearchOptions, costs: UnitCosts, epochs: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The alphas and betas, trained on the labels with the penalty."""
        setting = {
            "model": space.model_dump_json(),
            "loss": "cross entropy and penalty",
            "penalty": options.penalty,
            "strength": repr(options.strength),
            "plus": str(options.plus),
        }
        if options.penalty == "cost":
            setting |= {key: f"{value:.6g}" for key, value in asdict(costs).items()}

        def loss_of(module: MpcVit) -> Loss:
            plain = _labels(module)

            def loss(images: Tensor, targets: Tensor) -> Tensor:
                alpha, beta = alphas(module), betas(module)
                paid = l1_penalty(alpha, beta)
                if options.penalty == "cost":
                    paid = cost_penalty(alpha, beta, costs)
                return plain(images, targets) + options.strength * paid

            return loss

        module, _ = fitted(
            self.folder / f"search-{_short(json.dumps(setting))}.safetensors",
            setting,
            self.lesson,
            lambda: relaxed(space, plus=options.plus),
            loss_of,
            epochs=epochs,
            seed=self.seed,
            apart=gates,
            progress=self._progress("search"),
        )
        with torch.no_grad():
            return alphas(module).double().numpy(), betas(module).double().numpy()

    def student(self, name: str, config: MpcVitConfig, teacher: MpcVit) -> float:
        """The accuracy of a model trained from nothing to do what the teacher does."""
        setting = {
            "model": config.model_dump_json(),
            "loss": "distillation",
            "teacher": digest(teacher),
        }
        stem = f"{name}-{_short(setting['model'])}"
        self._describe(stem, config)
        _, score = fitted(
            self.folder / f"{stem}.safetensors",
            setting,
            self.lesson,
            lambda: MpcVit(config),
            partial(_taught, teacher=teacher),
            epochs=self.epochs,
            seed=self.seed,
            progress=self._progress(name),
        )
        return score

    def _describe(self, stem: str, config: MpcVitConfig) -> None:
        """The model as a file that every verb takes, beside the file of its weights."""
        text = network_text(
            config,
            summary=f"{stem.rpartition('-')[0] or stem} on {self.lesson.name}, seed {self.seed}",
            source="vitruvius search mpcvit; its weights are in the file beside it",
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        whole = self.folder / f".{stem}.toml"
        whole.write_text(text, encoding="utf-8")
        whole.replace(self.folder / f"{stem}.toml")

    def _progress(self, name: str) -> Callable[[int, int, float], None] | None:
        report = self.report
        if report is None:
            return None
        return lambda epoch, epochs, loss: report(f"seed {self.seed}: {name}", epoch, epochs, loss)


def _short(text: str) -> str:
    """A word for a file name, other for another text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _labels(module: nn.Module) -> Loss:
    def loss(images: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(module(images), targets, label_smoothing=_LABEL_SMOOTHING)

    return loss


def _taught(module: MpcVit, teacher: MpcVit) -> Loss:
    def loss(images: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            shown = teacher.features(images)
            told = teacher.head(shown[:, 0])
        features = module.features(images)
        return distillation_loss(module.head(features[:, 0]), features, told, shown)

    return loss
