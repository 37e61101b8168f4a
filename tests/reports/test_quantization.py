"""The plot of the signal to noise: what is named stays in the axes; the same bytes every time."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from vitruvius.errors import VitruviusError
from vitruvius.models.integer_model import IntegerModel, IntegerOperator, LayerQuality
from vitruvius.reports import quantization
from vitruvius.reports.quantization import quality_plot


def model(*sqnr_db: float) -> IntegerModel:
    quality = tuple(
        LayerQuality(f"encoder.layer.{place}.mlp.activation", "Gelu", 8, 0.1, value, 0.0)
        for place, value in enumerate(sqnr_db)
    )
    image = {"channels": 1, "height": 1, "width": 2}
    operators = (IntegerOperator("image", "Quantize", (), (1, 2), 8, 0.1, attributes=image),)
    return IntegerModel("model", operators, {}, quality)


LAST = model(*[35.0] * 48, 26.0, 27.0, 26.5)
FIRST = model(26.0, 26.1, 27.0, *[35.0] * 48)
SPREAD = model(*[35.0, 26.0] * 2, *[35.0] * 40, *[26.0, 35.0] * 3)
ALONE = model(30.0)
EXACT = model(math.inf, math.inf)


@pytest.mark.parametrize(
    "case", [LAST, FIRST, SPREAD, ALONE, EXACT], ids=["last", "first", "spread", "alone", "exact"]
)
def test_names_stay_in_the_axes_and_apart(
    case: IntegerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(quantization, "_write", lambda figure, path: drawn.append(figure))
    quality_plot(case, tmp_path / "plot.png")
    drawn[0].draw_without_rendering()
    axes = drawn[0].axes[0]
    frame = axes.get_window_extent()
    extents = [text.get_window_extent() for text in axes.texts]
    assert len(extents) == min(3, sum(math.isfinite(item.sqnr_db) for item in case.quality))
    assert all(frame.count_contains(extent.corners()) == 4 for extent in extents)
    assert not any(a.overlaps(b) for a, b in combinations(extents, 2))


@pytest.mark.parametrize("name", ["plot.svg", "plot.png"])
def test_the_same_bytes_every_time(name: str, tmp_path: Path) -> None:
    quality_plot(LAST, tmp_path / "first" / name)
    quality_plot(LAST, tmp_path / name)
    assert (tmp_path / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_other_kinds_of_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        VitruviusError, match=r"a name that ends in \.svg or \.png, got .*plot\.pdf"
    ):
        quality_plot(LAST, tmp_path / "plot.pdf")
