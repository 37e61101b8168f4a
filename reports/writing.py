"""Files appear complete or not at all: written under a temporary name, then renamed."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import VitruviusError

__all__ = ["check_file", "check_folder", "write_text"]


def check_file(path: Path) -> None:
    """Raises ``VitruviusError`` when ``path`` is a folder or lies where nothing can be written."""
    if path.is_dir():
        raise VitruviusError(f"expected a file to write to, got the folder {path}")
    _check_writable(path.parent, path)


def check_folder(path: Path) -> None:
    """Raises ``VitruviusError`` when ``path`` is not, and cannot become, a folder to write in."""
    if path.exists() and not path.is_dir():
        raise VitruviusError(f"expected a folder to write to, got the file {path}")
    _check_writable(path, path)


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` as UTF-8 and makes its folder; on failure what was there stays whole.

    Raises ``VitruviusError`` when the place cannot be written.
    """
    check_file(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise VitruviusError(f"cannot write {path}: {error.strerror}") from error


def _check_writable(folder: Path, wanted: Path) -> None:
    """The nearest folder above that exists decides whether the rest can be made."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise VitruviusError(f"cannot write {wanted}: {existing} is a file, not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise VitruviusError(f"cannot write {wanted}: no permission to write in {existing}")
