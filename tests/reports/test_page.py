"""The page: complete, correct, self-contained, readable by machines, and the same every time."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

from vitruvius.reports.demo import DemoReport
from vitruvius.reports.page import demo_page

VOID = {"meta", "rect", "br", "link", "img", "input", "hr"}
OUTSIDE = re.compile(
    r"https?://|//cdn|@import|<script|<link|<img|<iframe|src=|url\(", re.IGNORECASE
)


class Reader(HTMLParser):
    """Text of the page; asserts that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and data.strip():
            self.text.append(data.strip().replace("\N{NO-BREAK SPACE}", " "))


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def test_everything_that_was_found_is_there(report: DemoReport) -> None:
    text = read(demo_page(report)).text
    for expected in (
        "tiny <model> on small",
        "3 of 3 images bit-exact, predicted cycles equal",
        "99.17 %",  # float accuracy
        "98.89 %",  # integer accuracy
        "-0.28 points",
        "1,100 to 1,300",
        "3,500",
        "the port is narrow",
        "6.17 µs",
        "4.56 µJ",
        "123 kcycles/s",
        "a product costs 1 pJ",
        "published: a & b, 2014",
        "host_part",
        "no rule for it",
        "simulated: cycles",
        "vitruvius 0.1.0 · torch 2.13.0",
    ):
        assert any(expected in part for part in text), expected


def test_logits_stand_side_by_side(report: DemoReport) -> None:
    text = read(demo_page(report)).text
    start = text.index("test image 0")
    row = text.index("-3.0100", start)
    assert text[row : row + 3] == ["-3.0100", "-3.0000", "-3.0000"]
    assert text[start + 1 : start + 3] == ["labelled 0", "bit-exact"]


def test_the_digit_is_drawn_dot_by_dot(report: DemoReport) -> None:
    page = demo_page(replace(report, samples=report.samples[:1]))
    dots = [a for tag, a in read(page).elements if tag == "rect" and a.get("fill") == "#111"]
    drawn = {(d["x"], d["y"], d["fill-opacity"]) for d in dots}
    assert drawn == {("1", "0", "1.000"), ("0", "1", "0.500"), ("1", "1", "0.250")}


def test_bars_are_as_long_as_the_cycles(report: DemoReport) -> None:
    """The longest counter and the longest part fill the scale of 196, the others in proportion."""
    elements = read(demo_page(report)).elements

    def widths(kind: str) -> list[float]:
        bars = [a for tag, a in elements if tag == "rect" and a.get("class") == kind]
        return [float(a["width"] or 0) for a in bars if a["y"] == "2"]

    assert widths("rtl") == [196.0, round(196 * 900 / 3500, 2)]
    assert widths("lost") == [196.0, round(196 * 200 / 1000, 2)]
    assert widths("busy") == [round(196 * 750 / 1000, 2), round(196 * 200 / 1000, 2)]


def test_causes_sum_to_the_total(report: DemoReport) -> None:
    text = read(demo_page(report)).text
    start = text.index("cycles by cause")
    causes = {"PRODUCT_CYCLES": "950", "WAIT_FETCHED": "240", "SWITCH_CYCLES": "10"}
    for name, cycles in causes.items():
        assert text[text.index(name, start) + 1] == cycles


def test_a_difference_is_shown(spoilt: DemoReport, report: DemoReport) -> None:
    page = demo_page(spoilt)
    text = read(page).text
    assert any("2 of 3 images bit-exact, predicted cycles differ" in part for part in text)
    assert any("1,100 to 1,300" in part for part in text)
    assert "differs" in text
    classes = {str(a.get("class")) for _, a in read(page).elements}
    assert "verdict bad" in classes
    assert not any("bad" in str(a.get("class")) for _, a in read(demo_page(report)).elements)


def test_the_page_needs_nothing_from_outside(report: DemoReport) -> None:
    page = demo_page(report)
    assert OUTSIDE.findall(page) == []
    assert page.startswith("<!doctype html>")
    assert 'name="viewport"' in page
    assert "prefers-color-scheme:dark" in page


def test_the_same_report_gives_the_same_bytes(report: DemoReport) -> None:
    again = replace(report)
    assert demo_page(report) == demo_page(again)
    assert demo_page(report) != demo_page(replace(report, test_images=361))
