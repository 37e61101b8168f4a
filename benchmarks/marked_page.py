"""Pages that people write but for the parts between two marks, which are measured."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["replaced"]


def replaced(page: str, begin: str, end: str, lines: Sequence[str]) -> str:
    """``page`` with ``lines`` between the mark ``begin`` and the mark ``end`` behind it. Ends the
    program in one sentence if the page lacks them.
    """
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"the page has no marks: expected '{begin}' and '{end}'")
    return before + "\n".join([begin, "", *lines, "", end]) + after
