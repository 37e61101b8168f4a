"""The command run in this process, and one quantized model that several tests start from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from typer.testing import CliRunner, Result

from vitruvius.cli.main import app

Command: TypeAlias = Callable[..., Result]


def run(*arguments: str | Path) -> Result:
    """Runs the command; an error that is not told in words would leave its exception here."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def vitruvius() -> Command:
    return run


@pytest.fixture
def refused() -> Callable[..., str]:
    """Runs the command, asserts that it is refused in one sentence, and gives the sentence."""

    def check(*arguments: str | Path) -> str:
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("error: "), result.stderr
        assert "Traceback" not in result.output
        assert result.stdout == ""
        return result.stderr.removeprefix("error: ").rstrip("\n")

    return check


@pytest.fixture(scope="session")
def quantized_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantized") / "vit_digits.safetensors"
    result = run("quantize", "vit_digits", "--out", path)
    assert result.exit_code == 0, result.output
    return path
