"""Which line of the user's own code an error came from, and what it says in one line."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

import torch

__all__ = ["first_line", "user_line"]

_TORCH = str(Path(torch.__file__).parent)
_PYTHON = sysconfig.get_paths()["stdlib"]
_OWN = tuple(str(Path(__file__).resolve().parent / name) for name in ("trace.py", "resolve.py"))


def first_line(error: BaseException) -> str:
    r"""The error's type and the first line of its text.

    >>> first_line(ValueError("too long\nby far"))
    'ValueError: too long'
    """
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def user_line(error: BaseException) -> str:
    """The innermost frame that is neither torch's nor Python's own, as ``"file.py:12"``; "" if
    none.

    Errors that were raised while another was handled are followed to their cause.
    """
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None:
            continue
        if isinstance(current, SyntaxError) and current.filename:
            return f"{Path(current.filename).name}:{current.lineno}"
        for frame in reversed(traceback.extract_tb(current.__traceback__)):
            if not _foreign(frame.filename):
                return f"{Path(frame.filename).name}:{frame.lineno}"
        waiting += [current.__cause__, current.__context__]
    return ""


def _foreign(filename: str) -> bool:
    if filename.startswith("<"):
        return True
    path = str(Path(filename).resolve())
    if path.startswith((_TORCH, *_OWN)):
        return True
    return path.startswith(_PYTHON) and "site-packages" not in path
