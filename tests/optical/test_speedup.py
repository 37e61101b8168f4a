"""The bracket round 3.04, and the page and chart that say it."""

from __future__ import annotations

from dataclasses import replace
from math import isinf
from pathlib import Path

import pytest

from vitruvius.benchmarks.validation_optical import CHART, HEADING, chart, section
from vitruvius.benchmarks.validation_systolic import PAGE, replaced
from vitruvius.optical.published import published
from vitruvius.optical.speedup import (
    READINGS,
    ShareNetwork,
    frames_per_image,
    gpu_times,
    image_s,
    needed_hz,
)
from vitruvius.optical.target import load_optical

FAST = load_optical("optical:4f-2mhz").system
NETWORK = ShareNetwork()
GPU = published().gpu


def _took(name: str, rate_hz: float = 2e6) -> float:
    return image_s(NETWORK, FAST, rate_hz, READINGS[name], GPU)


def test_the_example_of_the_literature() -> None:
    """3,584 frames a plane load, two passes, 1,121 images: 3.2 us; 145 tokens: 502 images."""
    assert NETWORK.batch(FAST) == 1121
    assert ShareNetwork(tokens=145).batch(FAST) == 502
    assert frames_per_image(NETWORK, FAST, READINGS["bare"]) == pytest.approx(2 * 3584 / 1121)
    assert f"{_took('bare') * 1e6:.1f}" == "3.2"


def test_products_of_the_network_by_hand() -> None:
    d, tokens = 64, 65
    maps = tokens * (4 * d * d + 2 * d * 2 * d)
    products = 2 * tokens * tokens * d
    assert NETWORK.macs == 8 * (maps + products)


def test_what_is_counted_only_adds() -> None:
    assert _took("fatnet") == pytest.approx(2 * _took("bare"))
    assert _took("hidden") == pytest.approx(_took("bare") * 4096 / 3584)
    assert _took("signed") == pytest.approx(2 * _took("hidden"))
    # one plane of scores in each block of each image, four passes
    assert _took("scores") == pytest.approx(_took("signed") + 8 * 4 * 0.5e-6)
    # masks of k+ and k-: 2.5 N log2 N operations each
    assert _took("masks") - _took("scores") == pytest.approx(
        8 * 2 * 2.5 * 4_665_600 * 22.1536 / 13.4e12, rel=1e-4
    )
    # 65 tokens x 512 outputs of a block, four passes, a byte each
    results = 8 * (65 * (4 * 64 + 2 * 64) + 65 * 64) * 4 * 8 / 50e9
    assert _took("results") == pytest.approx(results, rel=0.01)
    whole = frames_per_image(NETWORK, FAST, READINGS["frames"]) * 2160 * 2160 * 8 / 50e9
    assert _took("frames") == pytest.approx(whole)


def test_published_gpu_times_become_rates() -> None:
    known = published()
    rates = {row.batch: known.gpu_flop_s(row) for row in known.fatnet if row.network == "FatNet"}
    assert f"{rates[64] / 1e12:.2f}" == f"{2 * known.macs('FatNet') / 4.565e-4 / 1e12:.2f}"
    times = gpu_times(NETWORK, known)
    assert len(times) == 5
    assert [item.seconds for item in times] == sorted(item.seconds for item in times)
    assert times[0].name == "roofline of an RTX 2080 Ti"
    assert times[0].seconds >= 2 * NETWORK.macs / 13.4e12


def test_the_frame_rate_for_a_ratio() -> None:
    wanted = 9.7e-6 / 3.04
    rate = needed_hz(NETWORK, FAST, READINGS["bare"], GPU, wanted)
    assert rate == pytest.approx(2 * 3584 / 1121 / wanted, rel=1e-6)
    assert isinf(needed_hz(NETWORK, FAST, READINGS["frames"], GPU, wanted))


def test_light_can_be_waited_for() -> None:
    dark = FAST.model_copy(update={"power_w": 1e-3})
    reading = replace(READINGS["bare"], name="dark")
    lit = image_s(NETWORK, dark, 2e6, reading, GPU, light=True)
    assert lit == pytest.approx(frames_per_image(NETWORK, dark, reading) * dark.light_s)


def test_the_section_is_up_to_date() -> None:
    """Fails when the model, a system or a published figure changed and the page did not."""
    page = PAGE.read_text(encoding="utf-8")
    lines = section()
    assert HEADING in page
    assert replaced(page, lines) == page
    assert not any("| NO |" in line for line in lines)


@pytest.mark.slow
def test_the_chart_is_the_same_every_time(tmp_path: Path) -> None:
    chart(tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").read_bytes() == CHART.read_bytes()
