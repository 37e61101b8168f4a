"""``vitruvius sqnr``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result


def test_ratios_of_every_tensor_and_width_are_told(
    vitruvius: Callable[..., Result], tmp_path: Path
) -> None:
    path = tmp_path / "s.json"
    result = vitruvius(
        "sqnr", "vit_digits", "--bits", "w8a16, w4a16g16", "--tensors", "--json", path
    )
    assert result.exit_code == 0, result.output
    (record,) = json.loads(path.read_text())
    assert [item["widths"] for item in record["outputs"]] == ["w8a16", "w4a16g16"]
    assert record["outputs"][0]["sqnr_db"] > record["outputs"][1]["sqnr_db"]
    names = {row["name"] for row in record["rows"]}
    assert {"patch_embed", "blocks.0.attn.softmax", "head"} <= names
    assert "random weights" not in result.stdout and "blocks.0.attn.softmax" in result.stdout


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("vit_digits", "--bits", "w8a12"), "precision 'w8a12' is not defined: expected w4a8"),
        (("vit_digits", "--bits", "w4a16g3"), "a group of 16, 32, 64, 128, 256 weights, got 3"),
        (("vit_digits", "--bits", "w8a8,w8a8"), "expected different widths"),
        (("vit_digits", "--bits", ""), "precision '' is not defined"),
        (("lfm2_tiny",), "lfm2_tiny takes no images"),
        (("internvit_300m",), "more than 50 M parameters are not executed on codes"),
        (("vit_digit",), "unknown model 'vit_digit'"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    refused: Callable[..., str], options: tuple[str, ...], text: str
) -> None:
    assert text in refused("sqnr", *options)
