"""The dependencies: each with a reason, each pinned, the version stated once."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import vitruvius

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_a_dependency_is_pinned_and_has_a_reason(requirement: str) -> None:
    name = re.split(r"[\[>=<~!]", requirement)[0]
    pins = [
        canonical(line.split("==")[0])
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    ]
    assert pins.count(canonical(name)) == 1, f"{name} is pinned {pins.count(canonical(name))} times"
    line = next(
        text
        for text in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
        if text.startswith(f'    "{requirement}"')
    )
    assert re.search(r'",\s+# \w', line), f"{name} has no reason beside it"


def test_torch_is_the_pinned_release_without_a_local_tag() -> None:
    assert "\ntorch==2.13.0\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_the_version_is_the_same_in_both_places() -> None:
    assert PROJECT["version"] == vitruvius.__version__


@pytest.mark.parametrize("file", ["pyproject.toml", "constraints.txt", "Makefile", ".ci/run"])
def test_no_registry_is_named(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert not re.search(r"https?://|index-url|find-links", text)
