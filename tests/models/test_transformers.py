"""Vision models that nobody here wrote become graphs that compute and count the same.

The families are those of docs/coverage.md; the fast ones run always, all of them when slow tests
do.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vitruvius.benchmarks.coverage import TOLERANCE, line, measure
from vitruvius.benchmarks.families import FAMILIES, Family, build
from vitruvius.models.graph import check, execute_all
from vitruvius.models.trace import trace

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"
# one of each sort: tokens, registers and gated MLP, windows in the batch, convolutions between
FAST = ("DeiT, distilled", "DINOv2 with registers", "SigLIP vision", "PVTv2", "PoolFormer")


def _cases() -> list[object]:
    return [
        pytest.param(family, id=family.name, marks=() if family.name in FAST else pytest.mark.slow)
        for family in FAMILIES
    ]


@pytest.mark.parametrize("family", _cases())
def test_a_family_computes_and_counts_what_its_module_does(family: Family) -> None:
    row = measure(family)
    assert row.error <= TOLERANCE
    assert row.unexplained == 0
    assert row.regions == family.expected_regions
    assert row.unmapped == ()
    assert row.batched
    # the page tells what is so today
    assert line(row) in PAGE.read_text(encoding="utf-8")


def test_the_page_lists_every_family_once() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [text.split(" | ")[0].removeprefix("| ") for text in lines if text.count(" | ") == 10]
    assert rows[2:] == [family.name for family in FAMILIES]
    assert len(set(rows)) == len(rows)


def test_fast_families_exist() -> None:
    assert set(FAST) <= {family.name for family in FAMILIES}


@pytest.mark.parametrize("name", ["SigLIP vision", pytest.param("Swin", marks=pytest.mark.slow)])
def test_constants_that_share_an_axis_with_the_batch_are_repeated(name: str) -> None:
    """Window masks and pooling probes are made for one image; a batch of three needs three."""
    family = next(family for family in FAMILIES if family.name == name)
    module, image = build(family)
    graph = trace(module, (image,), name=name)
    check(graph)
    assert "RepeatBatch" in {op.kind for op in graph.operators()}
    images = torch.randn(3, *image.shape[1:], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = [leaf for leaf in module(images).values() if leaf is not None]
    for ours, theirs in zip(execute_all(graph, images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
