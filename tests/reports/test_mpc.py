"""Secure inference drawn and told: the same file every time, both conventions, nothing hidden."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from vitruvius.errors import VitruviusError
from vitruvius.models.trace import trace
from vitruvius.reports.mpc import conventions, mpc_estimate_table
from vitruvius.reports.mpc_chart import mpc_chart
from vitruvius.sim.mpc.report import MpcEstimate, estimate_mpc
from vitruvius.sim.mpc.traffic import Traffic


@pytest.fixture(scope="module")
def estimate() -> MpcEstimate:
    module = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    graph = trace(module.eval(), (torch.zeros(1, 4, 8),), name="small")
    return estimate_mpc(graph, "mpc:crypten-wan")


def test_the_chart_is_the_same_every_time(estimate: MpcEstimate, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        mpc_chart([estimate, estimate], tmp_path / name)
    for kind in ("svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    text = (tmp_path / "a.svg").read_text()
    for word in ("Gelu", "LayerNorm", "Relu", "Linear", "crypten-wan", "rounds", "latency"):
        assert f"<!-- {word} -->" in text
    assert len(list(tmp_path.iterdir())) == 4


def test_kinds_that_are_too_small_to_see_are_one(tmp_path: Path) -> None:
    """Of many layers the opening of the result and one small product take nothing to speak of."""
    layers = [layer for _ in range(8) for layer in (nn.LayerNorm(64), nn.GELU())]
    module = nn.Sequential(*layers, nn.Linear(64, 1), nn.Flatten())
    graph = trace(module.eval(), (torch.zeros(1, 8, 64),), name="deep")
    mpc_chart([estimate_mpc(graph, "mpc:crypten-lan")], tmp_path / "c.svg")
    text = (tmp_path / "c.svg").read_text()
    assert "<!-- the rest -->" in text
    assert "<!-- Output -->" not in text


def test_a_chart_has_an_ending(estimate: MpcEstimate, tmp_path: Path) -> None:
    with pytest.raises(VitruviusError, match=r"ends in \.svg or \.png, got .*c\.pdf"):
        mpc_chart([estimate], tmp_path / "c.pdf")


def test_the_table_tells_both_conventions_and_readings(estimate: MpcEstimate) -> None:
    recorder = Console(width=200, file=StringIO())
    recorder.print(mpc_estimate_table(estimate))
    assert isinstance(recorder.file, StringIO)
    text = recorder.file.getvalue()
    assert conventions(estimate.online) in text
    assert "read as 'overlap'" in text
    assert "read as 'acknowledged'" in text
    assert "offline: " in text
    for detail in estimate.mpc:
        assert (detail.name in text) == (detail.online.rounds > 0)


def test_conventions() -> None:
    assert conventions(Traffic(1, 1000, 200)) == (
        "CrypTen's way, sent + received: 1,200 bytes; SPU's way, sent: 1,000 bytes"
    )
