"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.reports.writing import check_file, check_folder, write_text


def test_write_makes_the_folder_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.html"
    write_text(path, "ä\n")
    write_text(path, "µ\n")
    assert path.read_bytes() == "µ\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    path.write_text("whole")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(VitruviusError, match=r"cannot write .*page\.html: No space left on device"):
        write_text(path, "new")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("x")
    with pytest.raises(VitruviusError, match="got the folder"):
        check_file(tmp_path)
    with pytest.raises(VitruviusError, match="got the file"):
        check_folder(taken)
    for check in (check_file, check_folder):
        with pytest.raises(VitruviusError, match="taken is a file, not a folder"):
            check(taken / "deeper" / "still")
    check_file(tmp_path / "new" / "file")
    check_folder(tmp_path / "new")
    check_folder(tmp_path)
    assert list(tmp_path.iterdir()) == [taken]


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_file(Path("x.json"))
    write_text(Path("x.json"), "{}")
    assert (tmp_path / "x.json").read_text() == "{}"
