"""docs/edge-moe.md says what its generator says now."""

from __future__ import annotations

from vitruvius.benchmarks.edge_moe import BEGIN, END, PAGE, PLOT, READINGS, content
from vitruvius.benchmarks.marked_page import replaced
from vitruvius.sim.edge_moe_ablation import STEPS


def test_the_page_is_up_to_date() -> None:
    """Fails when a formula or a parameter changed and the page did not."""
    page = PAGE.read_text(encoding="utf-8")
    assert replaced(page, BEGIN, END, content()) == page
    assert f"]({PLOT.name})" in page
    assert PLOT.stat().st_size > 1000


def test_every_step_has_its_unknown_explained() -> None:
    assert set(READINGS) == {step.added for step in STEPS[1:]}
