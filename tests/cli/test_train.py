"""train: a short run leaves weights that the other verbs take, a stopped one nothing half-done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from vitruvius.models import train


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
    assert (record["model"], record["epochs"], record["seed"]) == ("vit_digits", 1, 3)
    assert record["file"] == str(out)
    assert 0 <= record["accuracy"] <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.json", "w.safetensors"]
    assert vitruvius("trace", "vit_digits", "--weights", out).exit_code == 0


def test_an_unfinished_run_with_another_setting_is_refused(
    vitruvius: Callable[..., Result],
    refused: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "w.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(train, "accuracy", stop)
        vitruvius("train", "digits", "--epochs", "1", "--seed", "3", "--out", out)
    unfinished = tmp_path / "w.safetensors.unfinished"
    assert [path.name for path in tmp_path.iterdir()] == [unfinished.name]
    assert refused("train", "digits", "--epochs", "2", "--seed", "3", "--out", out) == (
        f"{unfinished} is of an unfinished run with model vit_digits, epochs 1, seed 3; "
        "expected model vit_digits, epochs 2, seed 3: finish that run, or remove the file"
    )
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "model"), [("mnistm", "vit_mnistm"), ("mnistm-moe", "vit_mnistm_moe")]
)
def test_each_command_trains_its_model(
    command: str,
    model: str,
    vitruvius: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def trained(
        out: Path, *, epochs: int, seed: int, progress: object, experts: bool = False
    ) -> train.Training:
        asked.append((epochs, seed))
        name = "vit_mnistm_moe" if experts else "vit_mnistm"
        return train.Training(name, out, 0.5, epochs, seed, 1.0)

    monkeypatch.setattr(train, "train_mnistm", trained)
    result = vitruvius("train", command, "--epochs", "4", "--seed", "9", "--json", "-")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["model"], record["file"]) == (model, f"out/{model}.safetensors")
    assert asked == [(4, 9)]
    assert "test accuracy 50.00% after 4 epochs" in result.stderr


def test_convshare_trains_the_variant_that_is_asked_for(
    vitruvius: Callable[..., Result], refused: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "w.safetensors"
    arguments = ("--variant", "valid_k", "--data", "digits", "--epochs", "1", "--out", out)
    result = vitruvius("train", "convshare", *arguments, "--json", "-")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["model"], record["epochs"]) == ("convshare_valid_k_digits", 1)
    assert vitruvius("trace", "convshare_valid_k_digits", "--weights", out).exit_code == 0
    told = refused("trace", "convshare_same_digits", "--weights", out)
    assert "does not fit ConvShareVit" in told
    assert vitruvius("train", "convshare", "--variant", "other").exit_code == 2
    assert "epochs must be at least 1, got 0" in refused(
        "train", "convshare", "--data", "digits", "--epochs", "0", "--out", tmp_path / "x"
    )
