"""docs/mpc_peers.md has what its data and the cost model of now give."""

from __future__ import annotations

import pytest

from vitruvius.benchmarks.mpc_peers.measure import REQUIREMENTS, VARIABLES
from vitruvius.benchmarks.mpc_peers.page import MARKS, PAGE, lines


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def table() -> list[str]:
    return page().partition(MARKS[0])[2].partition(MARKS[1])[0].strip("\n").splitlines()


def test_operators_are_costed_as_the_page_says() -> None:
    """Every line but those of whole models, in the same order."""
    here = iter(table())
    missing = [line for line in lines(models=False) if line not in here]
    assert not missing


@pytest.mark.slow
def test_the_tables_are_those_of_now() -> None:
    assert "\n".join(table()) == "\n".join(lines()).strip("\n")


def test_the_page_says_how_to_install_and_to_name_the_interpreters() -> None:
    text = page().partition(MARKS[0])[0]
    for variable in VARIABLES.values():
        assert variable in text
    for parts in REQUIREMENTS.values():
        for part in (each for some in parts for each in some):
            assert part in text, part
