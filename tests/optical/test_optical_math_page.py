"""docs/optical_math.md says what its generator computes, and speeds within the aim."""

from __future__ import annotations

import re

import pytest

from vitruvius.benchmarks import optical_convolution as benchmark
from vitruvius.benchmarks.marked_page import replaced


def test_frames_and_errors_are_up_to_date() -> None:
    page = benchmark.PAGE.read_text(encoding="utf-8")
    lines = list(benchmark.frames())
    assert replaced(page, *benchmark.FRAMES, lines) == page
    assert not [line for line in lines if "above" in line]


@pytest.mark.parametrize("name", ["8-bit mask amplitude", "mask 0.1 off"])
def test_errors_of_devices_are_up_to_date(name: str) -> None:
    page = benchmark.PAGE.read_text(encoding="utf-8")
    begin, end = benchmark.DEVICES
    assert benchmark.device_row(name) in page.split(begin)[1].split(end)[0].splitlines()


def test_every_measured_ratio_is_within_three_transform_pairs() -> None:
    page = benchmark.PAGE.read_text(encoding="utf-8")
    begin, end = benchmark.SPEED
    rows = re.findall(r"^\| (\d+) x \1 \| (\d) \|(.*)\|$", page.split(begin)[1].split(end)[0], re.M)
    assert [(int(side), int(batch)) for side, batch, _ in rows] == [
        (side, batch) for side in (512, 1080, 2160) for batch in (1, 4, 8)
    ]
    for side, batch, cells in rows:
        _, *ratios = (float(cell) for cell in cells.split("|"))
        assert len(ratios) == 5
        assert max(ratios) <= 3, (side, batch)


@pytest.mark.parametrize("marks", [benchmark.FRAMES, benchmark.DEVICES, benchmark.SPEED])
def test_the_page_has_its_marks(marks: tuple[str, str]) -> None:
    page = benchmark.PAGE.read_text(encoding="utf-8")
    assert page.count(marks[0]) == page.count(marks[1]) == 1
