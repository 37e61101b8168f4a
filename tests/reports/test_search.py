"""The report of a search says what was found, whichever way it came out."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from vitruvius.reports.search import finding, front_markdown, front_plot, front_record, front_table
from vitruvius.sim.mpc.search.front import Front, Point, SearchOptions
from vitruvius.sim.mpc.search.penalty import UnitCosts

TITLES = {
    "softmax": ("softmax", 20.0),
    "relu-softmax": ("ReLU-softmax", 15.0),
    "scale": ("ScaleAttn", 11.0),
    "mpcformer": ("MPCFormer-like", 10.0),
    "the-x": ("THE-X-like", 5.0),
}


def front(ours: tuple[float, ...], rival: tuple[float, ...], *, latency: float = 12.0) -> Front:
    """MPCFormer-like and one searched model with these accuracies by seed, the rest at 90 %."""
    points = []
    for seed, (mine, other) in enumerate(zip(ours, rival, strict=True)):
        for name, (title, seconds) in TITLES.items():
            score = other if name == "mpcformer" else 0.9
            points.append(Point(name, title, seed, "softmax", score, 100, 10**6, seconds))
        points.append(
            Point(
                "mpcvit-0.5",
                "MPCViT, μ = 0.5",
                seed,
                "mixed",
                mine,
                80,
                10**6,
                latency,
                0.5,
                ((0, 2), ()),
            )
        )
    return Front(
        "digits",
        360,
        "semi2k",
        "wan",
        SearchOptions(mu=(0.5,), seeds=tuple(range(len(ours)))),
        50,
        30,
        UnitCosts(0.94, 0.0007, 0.96),
        (((1.0, 0.2, 0.9, 0.1), (0.0, 0.1, 0.0, 0.0)),) * len(ours),
        ((1.0, 0.5),) * len(ours),
        tuple(points),
    )


@pytest.mark.parametrize(
    ("ours", "rival", "latency", "said"),
    [
        ((0.98, 0.99), (0.96, 0.97), 12, ["found in 1 of", "2.00 points above it, more than the"]),
        ((0.98, 0.96), (0.96, 0.97), 12, ["found in 1 of", "0.50 points above it, no more than"]),
        ((0.95, 0.94), (0.96, 0.97), 12, ["found in none of", "2.00 points below it, more than"]),
        ((0.95,), (0.96,), 12, ["found in none of", "1.00 points below it, with one seed"]),
        ((0.99,), (0.96,), 25, ["No searched model is faster than softmax", "not found"]),
    ],
)
def test_the_direction_is_told_as_found(
    ours: tuple[float, ...], rival: tuple[float, ...], latency: float, said: list[str]
) -> None:
    text = finding(front(ours, rival, latency=latency))
    assert all(part in text for part in said), text
    if latency < 20:
        assert "0.60 times the latency of softmax and 1.20 times that of MPCFormer-like" in text


def test_table_and_page_have_every_model_and_the_units() -> None:
    found = front((0.98, 0.99), (0.96, 0.97))
    page = front_markdown(found)
    assert "| MPCViT, μ = 0.5 | 98.50% | 98.00 to 99.00 | 80 | 1.00 | 12.00 s | 2 0 |" in page
    assert all(title in page for title, _ in TITLES.values())
    assert "first ReLU-softmax costs 940.0 ms, each head 0.7 ms more" in page
    console = Console(file=io.StringIO(), width=160)
    console.print(front_table(found))
    assert isinstance(console.file, io.StringIO)
    assert "98.00 to 99.00" in console.file.getvalue()
    assert front_record(found)["finding"] == finding(found)


def test_the_chart_has_every_name_and_is_the_same_every_time(tmp_path: Path) -> None:
    found = front((0.98, 0.99), (0.96, 0.97))
    for name in ("a.svg", "b.svg", "a.png"):
        front_plot(found, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b.svg"]
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    text = (tmp_path / "a.svg").read_text()
    for title, _ in TITLES.values():
        assert title in text
