"""``vitruvius optical show``: a figure, its record, and every mistake as one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

BAD = {
    "no such layer": (["--layer", "qkw"], "no layer 'qkw' on optics"),
    "electronics": (["--layer", "blocks.0.norm1"], "blocks.0.norm1 (LayerNorm) stays in"),
    "several": (["--layer", "blocks.0.attn"], "has 3 operators on optics, expected one of"),
    "no such kernel": (["--layer", "head", "--kernel", "10"], "kernel must be 0 to 9, got 10"),
    "no such head": (
        ["--layer", "blocks.1.attn.scores", "--channel", "4"],
        "head must be 0 to 3, got 4",
    ),
    "negative photons": (["--layer", "head", "--photons", "-3"], "photons: expected a number"),
    "noise in the dark": (["--layer", "head", "--read-noise", "5"], "which needs --photons"),
    "no such image": (["--layer", "head", "--image", "360"], "--image: expected 0 to 359 (test im"),
    "no picture": (["--layer", "head", "--out", "head.txt"], "ends in .png, .svg or .pdf, got"),
    "an unknown scheme": (["--layer", "head", "--scheme", "none"], "scheme: expected split"),
}


@pytest.mark.parametrize(("options", "reason"), BAD.values(), ids=BAD)
def test_mistakes(
    options: list[str],
    reason: str,
    refused: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert reason in refused("optical", "show", "vit_digits", *options)
    assert not list(tmp_path.iterdir())


def test_a_figure_and_its_record(vitruvius: Callable[..., Result], tmp_path: Path) -> None:
    figure, record = tmp_path / "layer.png", tmp_path / "layer.json"
    shown = vitruvius(
        *("optical", "show", "vit_digits", "--layer", "blocks.0.attn.scores", "--channel", "2"),
        *("--photons", "1e4", "--out", str(figure), "--json", str(record)),
    )
    assert shown.exit_code == 0, shown.output
    with Image.open(figure) as picture:
        assert min(picture.size) > 1000
    found = json.loads(record.read_text())
    # 17 queries of 4 x 4 in 4 x 5 tiles, and every query tile once for each of 4 x 5 key tiles
    assert found["plane"] == [64, 100]
    assert found["exposures"] == ["x+, k+", "x+, k-", "x-, k+", "x-, k-"]
    # 1e4 photons: 1 / (2 sqrt(N)) of the brightest amplitude in each of four exposures
    assert 0.005 < found["relative_error"] < 0.1
    assert sorted(tmp_path.iterdir()) == [record, figure]


def test_each_image_of_a_file_is_its_own(vitruvius: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "images.npy"
    values = np.random.default_rng(2).random((3, 1, 8, 8), dtype=np.float32)
    np.save(file, values)
    layer = ("optical", "show", "vit_digits", "--layer", "patch_embed", "--inputs", str(file))
    figures = [tmp_path / f"{n}.png" for n in range(3)]
    for n, figure in enumerate(figures):
        shown = vitruvius(*layer, "--image", str(n), "--out", figure)
        assert shown.exit_code == 0, shown.output
    assert len({figure.read_bytes() for figure in figures}) == 3
    assert "--image: expected 0 to 2" in vitruvius(*layer, "--image", "3").stderr


def test_without_a_layer_they_are_listed(vitruvius: Callable[..., Result]) -> None:
    shown = vitruvius("optical", "show", "vit_digits", "--json", "-")
    layers = [item["layer"] for item in json.loads(shown.stdout)]
    assert len(layers) == 1 + 4 * 5 + 1
    assert layers[:3] == ["patch_embed", "blocks.0.attn.qkv", "blocks.0.attn.scores"]
