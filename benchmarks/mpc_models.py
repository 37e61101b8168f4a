"""Models and published figures that the pages about secure inference share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from vitruvius.models.graph import Graph
from vitruvius.models.trace import trace
from vitruvius.models.zoo.mpcvit import MpcVit
from vitruvius.models.zoo.mpcvit_config import MpcVitConfig

__all__ = ["NO_WEIGHTS", "SIZES", "data", "graph_of", "percent", "table"]

DATA = Path(__file__).parent.parent / "tests" / "sim" / "mpc" / "data"
SIZES: dict[str, dict[str, Any]] = {
    "CIFAR": {},
    "Tiny-ImageNet": {
        "image_size": 64,
        "dim": 192,
        "depth": 9,
        "heads": 12,
        "classes": 200,
    },
}
NO_WEIGHTS = '{"norm_affine": false}'
"""Norms without a weight and a bias, as JSON."""


def data(name: str) -> dict[str, Any]:
    """Counted or published figures of that name, with their sources."""
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return found


@cache
def graph_of(size: str, layers: int | None = None, choices: str = "{}") -> Graph:
    """A model of MPCViT's family with random weights; ``choices`` are JSON."""
    torch.manual_seed(0)
    fields = {**SIZES[size], **json.loads(choices)}
    if layers is not None:
        fields["depth"] = layers
    config = MpcVitConfig.model_validate(fields)
    side = config.image_size[0]
    return trace(MpcVit(config).eval(), (torch.zeros(1, 3, side, side),), name=size)


def percent(predicted: float, measured: float) -> str:
    """The deviation of a prediction; 0 where there is none at all."""
    return "0" if predicted == measured else f"{100 * (predicted / measured - 1):+.1f}%"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> list[str]:
    """Markdown; the first ``texts`` columns are text, the others numbers."""
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return [f"| {' | '.join(line)} |" for line in (head, rule, *rows)]
