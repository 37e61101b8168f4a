"""doctor: everything found, and a missing compiler told."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import Result

NEEDED = {
    "python", "torch", "amaranth", "cocotb", "yosys", "verilator", "g++", "make",
    "perl", "libpython",
}  # fmt: skip


def test_everything_is_found(vitruvius: Callable[..., Result], tmp_path: Path) -> None:
    result = vitruvius("doctor", "--json", tmp_path / "d.json")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "d.json").read_text())
    tools = {item["name"]: item for item in record["tools"]}
    assert tools.keys() == NEEDED
    assert record["complete"] is True
    assert tools["torch"]["version"] == metadata.version("torch")
    assert all(any(c.isdigit() for c in item["version"]) for item in record["tools"])


def test_a_missing_compiler_ends_with_2(
    vitruvius: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = vitruvius("doctor", "--json", tmp_path / "d.json")
    assert result.exit_code == 2
    record = json.loads((tmp_path / "d.json").read_text())
    missing = {item["name"]: item["remedy"] for item in record["tools"] if not item["found"]}
    assert missing["g++"] == "apt-get install g++"
    assert {"make", "perl"} <= missing.keys()
    assert record["complete"] is False
    assert "missing: " in result.stdout
    assert "apt-get install g++" in result.stdout
