"""train digits: a short run leaves weights that the other verbs take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result


def test_one_epoch(vitruvius: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    result = vitruvius(
        "train",
        "digits",
        "--epochs",
        "1",
        "--seed",
        "3",
        "--out",
        out,
        "--json",
        tmp_path / "t.json",
    )
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "t.json").read_text())
    assert (record["epochs"], record["seed"], record["file"]) == (1, 3, str(out))
    assert 0 <= record["accuracy"] <= 1
    assert vitruvius("trace", "vit_digits", "--weights", out).exit_code == 0
