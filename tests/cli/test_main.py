"""The command as a whole: its help, its exit codes, and that it starts at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import vitruvius as package
from vitruvius.errors import VitruviusError

VERBS = [
    "models", "trace", "quantize", "generate", "estimate", "simulate", "cosim", "demo", "doctor",
    "train", "sqnr",
]  # fmt: skip
WRITES_FILES = ["quantize", "generate", "demo"]
NEEDS_A_MACHINE = ["generate", "estimate", "simulate", "cosim", "demo"]


def test_help_names_every_verb(vitruvius: Callable[..., Result]) -> None:
    result = vitruvius("--help")
    assert result.exit_code == 0
    assert all(verb in result.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", [*VERBS, "train digits"])
def test_every_verb_has_help_worth_reading(verb: str, vitruvius: Callable[..., Result]) -> None:
    result = vitruvius(*verb.split(), "--help")
    assert result.exit_code == 0
    assert verb == "train" or "--json" in result.stdout
    assert verb not in NEEDS_A_MACHINE or "--machine" in result.stdout
    assert verb not in WRITES_FILES or "--out" in result.stdout
    assert len(result.stdout.splitlines()) > 8


def test_version(vitruvius: Callable[..., Result]) -> None:
    assert vitruvius("--version").stdout == f"vitruvius {package.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["trace"], ["trace", "vit_digits", "--nonsense"], ["cosim", "--images"]],
)
def test_wrong_usage_ends_with_2(arguments: list[str], vitruvius: Callable[..., Result]) -> None:
    assert vitruvius(*arguments).exit_code == 2


def test_an_interrupt_ends_with_130(
    vitruvius: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vitruvius.cli.workload.load_workload", interrupted)
    result = vitruvius("trace", "vit_digits")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (VitruviusError("expected this, got that"), "error: expected this, got that\n"),
        (FileNotFoundError(2, "No such file", "a.npy"), "error: a.npy: No such file\n"),
    ],
)
def test_a_users_mistake_is_one_sentence(
    error: Exception,
    text: str,
    vitruvius: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr("vitruvius.cli.workload.load_workload", failing)
    result = vitruvius("trace", "vit_digits")
    assert (result.exit_code, result.stderr, result.stdout) == (2, text, "")


def test_our_own_mistake_is_not_hidden(
    vitruvius: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("vitruvius.cli.workload.load_workload", failing)
    assert isinstance(vitruvius("trace", "vit_digits").exception, ZeroDivisionError)


def _process(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_help_loads_neither_torch_nor_matplotlib(tmp_path: Path) -> None:
    """Help is there at once: nothing heavy is imported for it."""
    code = (
        "import sys\n"
        "from vitruvius.cli.main import main\n"
        "sys.argv = ['vitruvius', 'cosim', '--help']\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'matplotlib', 'amaranth', 'cocotb', 'jinja2', 'sklearn'}\n"
        "    print('loaded:', sorted(heavy & set(sys.modules)))\n"
    )
    result = _process(["-c", code], tmp_path)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == "loaded: []"


def test_as_a_module_from_another_folder(tmp_path: Path) -> None:
    result = _process(["-m", "vitruvius", "trace", "no_such_model"], tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: unknown model 'no_such_model'")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "vitruvius", "models"],
            cwd=tmp_path,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    assert "Traceback" not in result.stderr
