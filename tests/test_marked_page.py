"""Measured parts of pages: nothing else is touched, and a page without a place for them is told."""

from __future__ import annotations

import pytest

from vitruvius.benchmarks.marked_page import replaced

BEGIN, END = "<!-- begin -->", "<!-- end -->"


def test_only_what_is_between_the_marks_is_replaced() -> None:
    page = f"# Page\n\nbefore\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n"
    new = replaced(page, BEGIN, END, ["| a |", "| b |"])
    assert new == f"# Page\n\nbefore\n\n{BEGIN}\n\n| a |\n| b |\n\n{END}\n\nafter\n"
    assert replaced(new, BEGIN, END, ["| a |", "| b |"]) == new


def test_other_marks_are_left_alone() -> None:
    page = f"<!-- x -->\nkept\n<!-- y -->\n{BEGIN}\nold\n{END}\n"
    assert replaced(page, BEGIN, END, ["new"]).startswith("<!-- x -->\nkept\n<!-- y -->\n")


@pytest.mark.parametrize("page", ["# Page\n", f"{BEGIN}\n", f"{END}\n{BEGIN}\n"])
def test_a_page_without_both_marks_is_refused(page: str) -> None:
    with pytest.raises(SystemExit, match="no marks"):
        replaced(page, BEGIN, END, [])
