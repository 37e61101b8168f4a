"""Where a command's answer goes: text for people, and the same as JSON for programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..reports.writing import check_file, write_text

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Output"]

_PLAIN_WIDTH = 120


class Output:
    """The two outputs of one command.

    ``target`` is the value of ``--json``: a file, ``-`` for standard output (text for people then
    goes to standard error), or None. A file that cannot be written is refused at once, before any
    work is done.
    """

    def __init__(self, target: str | None) -> None:
        self._target = target
        if target is not None and target != "-":
            check_file(Path(target))

    @property
    def console(self) -> Console:
        """Where text for people goes; wide enough for tables when it is not a terminal."""
        from rich.console import Console

        stream = sys.stderr if self._target == "-" else sys.stdout
        return Console(file=stream, width=None if stream.isatty() else _PLAIN_WIDTH)

    @property
    def progress(self) -> Console:
        """Where words about progress go: standard error, and only when a person looks on."""
        from rich.console import Console

        return Console(stderr=True, quiet=not sys.stderr.isatty())

    def write_json(self, record: object) -> None:
        """Writes a record of plain values to where ``--json`` says; without it, does nothing."""
        if self._target is None:
            return
        text = json.dumps(record, indent=2, allow_nan=False) + "\n"
        if self._target == "-":
            sys.stdout.write(text)
        else:
            write_text(Path(self._target), text)
