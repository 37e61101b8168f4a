"""docs/optical_estimate.md says what its generator says now, and its commands run."""

from __future__ import annotations

import re
import shlex

import pytest
from typer.testing import CliRunner

from vitruvius.benchmarks.optical_estimate import (
    LARGE,
    PAGE,
    SMALL,
    graph_of,
    models,
    page,
    settings,
    systems,
)
from vitruvius.cli.main import app
from vitruvius.models.graph import Graph


def test_systems_and_settings_are_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, {"systems": systems(), "settings": settings()}) == text


def test_estimates_of_the_small_model_are_up_to_date(digits_graph: Graph) -> None:
    text = PAGE.read_text(encoding="utf-8")
    lines = models(SMALL, digits_graph, ("4f-2mhz", "4f-readout", "4f-dmd"))
    assert page(text, {SMALL: lines}) == text


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_estimates_of_large_models_are_up_to_date(name: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, {name: models(name, graph_of(name), ("4f-2mhz", "4f-readout"))}) == text


@pytest.mark.slow
def test_the_commands_of_the_page_run() -> None:
    commands = re.findall(r"^    vitruvius (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        result = CliRunner().invoke(app, shlex.split(command))
        assert result.exit_code == 0, result.output
