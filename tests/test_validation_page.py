"""docs/validation.md says what its generator says now."""

from __future__ import annotations

import pytest

from vitruvius.benchmarks import mpc_options, validation_autoneural, validation_mpc
from vitruvius.benchmarks.marked_page import replaced as marked
from vitruvius.benchmarks.validation_systolic import HEADING, PAGE, replaced, section


def test_the_systolic_section_is_up_to_date():
    """Fails when a formula, its data or the recorded speed changed and the page did not."""
    page = PAGE.read_text(encoding="utf-8")
    assert HEADING in page
    assert replaced(page, section()) == page


def test_only_the_section_is_replaced():
    page = f"# Page\n\n## Before\n\na\n\n{HEADING}\n\nold\n\n### Part\n\nold\n\n## After\n\nb\n"
    assert replaced(page, [HEADING, "", "new"]) == (
        f"# Page\n\n## Before\n\na\n\n{HEADING}\n\nnew\n\n## After\n\nb\n"
    )
    assert replaced("# Page\n", [HEADING, "", "new"]) == f"# Page\n\n{HEADING}\n\nnew\n"


@pytest.mark.slow
def test_autoneurals_section_is_up_to_date() -> None:
    """Fails when a cost, a target or a zoo model changed and the page did not."""
    page = PAGE.read_text(encoding="utf-8")
    assert validation_autoneural.HEADING in page
    assert replaced(page, validation_autoneural.section()) == page


def test_counts_of_secure_inference_are_up_to_date() -> None:
    """Fails when a closed form or a count changed and the page did not."""
    assert "\n".join(validation_mpc.counts()) in PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_secure_inferences_section_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert validation_mpc.HEADING in page
    assert replaced(page, validation_mpc.section()) == page


def test_the_table_of_choices_is_up_to_date() -> None:
    page = mpc_options.PAGE.read_text(encoding="utf-8")
    lines = mpc_options.options_lines()
    assert marked(page, mpc_options.BEGIN, mpc_options.END, lines) == page
