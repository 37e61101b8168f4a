"""docs/npu.md says what its generator measures now."""

from __future__ import annotations

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.benchmarks.npu import (
    GEMMINI,
    MODELS,
    PAGE,
    PUBLISHED,
    gemmini,
    model_columns,
    published,
    traced,
)
from vitruvius.sim.npu.target import npu_names


def test_gemminis_table_is_up_to_date() -> None:
    """Fails when a schedule or the target changed and the page did not."""
    page = PAGE.read_text(encoding="utf-8")
    assert replaced(page, *GEMMINI, gemmini()) == page


def test_the_column_of_deit_tiny_is_up_to_date() -> None:
    """The other sizes are made by the same run."""
    page = PAGE.read_text(encoding="utf-8")
    table = page.partition(MODELS[0])[2].partition(MODELS[1])[0].strip().splitlines()
    del table[1]
    column = [line.split("|")[2].strip() for line in table]
    assert column == model_columns([traced("tiny")])[0]


def test_the_published_latencies_are_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert replaced(page, *PUBLISHED, published()) == page


def test_every_target_is_described() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in npu_names())
