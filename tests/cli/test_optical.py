"""``vitruvius optical run``: the tables, what is kept, and every mistake as one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import Result

from vitruvius.optical import run as optical_run

BAD = {
    "negative photons": (["--photons", "-5"], "photons: expected a number above 0, got -5"),
    "zero photons": (["--photons", "1e3,0"], "photons: expected a number above 0, got 0"),
    "photons in words": (["--photons", "many"], "--photons: expected numbers such as 1e3,1e4"),
    "half a bit": (["--panel-bits", "6.5"], "--panel-bits: expected whole numbers such as 6,8"),
    "no bits": (["--adc-bits", "0"], "adc_bits: expected 1 to 24 bits, got 0"),
    "negative noise": (["--read-noise", "-1"], "read_noise_e must not be negative, got -1"),
    "an unknown scheme": (["--scheme", "spilt"], "scheme: expected split, intensity, offset"),
    "an unknown form": (["--map", "conv+lineal"], "got 'lineal', did you mean 'linear'"),
    "a plane too small": (["--plane", "6"], "plane of 6 x 6 samples is too small"),
    "an odd plane": (["--plane", "65"], "plane: expected an even number of samples, got 65"),
    "more waves than images": (
        ["--images", "2", "--propagate", "3"],
        "--propagate: expected at most --images 2, got 3",
    ),
    "too many images": (["--images", "361"], "expected at most 360 (test images of digits)"),
    "another tiling": (["--tiling", "mixed"], "tiling: "),
    "three shifts": (["--mask-shift", "1,2,3"], "--mask-shift: expected one or two numbers"),
}


@pytest.mark.parametrize(("options", "reason"), BAD.values(), ids=BAD)
def test_mistakes(
    options: list[str], reason: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / "run.json"
    text = refused("optical", "run", "vit_digits", "--images", "2", *options, "--json", str(file))
    assert reason in text
    assert len(text.splitlines()) == 1
    assert not file.exists()


MODEL = """
import torch
from torch import nn

def made():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 4))
    return module, torch.zeros(1, 2, 6, 6)
"""


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """A model that no shipped images fit, and six images of it."""
    model, images = tmp_path / "own.py", tmp_path / "own.npy"
    model.write_text(MODEL)
    values = torch.rand(6, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    np.save(images, values.numpy())
    return [f"{model}:made", "--inputs", str(images)]


def test_a_model_that_no_shipped_images_fit(
    own: list[str],
    refused: Callable[..., str],
    vitruvius: Callable[..., Result],
    tmp_path: Path,
) -> None:
    """It is refused with advice, and runs with images of its own, which have no labels."""
    file = tmp_path / "own.json"
    text = refused("optical", "run", own[0])
    assert "give some with --inputs" in text
    assert "[n, 2, 6, 6]" in text
    bare = ["--photons", "none", "--panel-bits", "none"]
    result = vitruvius("optical", "run", *own, *bare, "--images", "4", "--json", file)
    assert result.exit_code == 0, result.output
    record = json.loads(file.read_text())
    assert (record["images"], record["calibration_images"]) == (4, 2)
    assert record["exact_correct"] is None
    assert [cell["agree"] for cell in record["cells"]] == [4, 4]
    assert "expected more than 6 images" in refused("optical", "run", *own, "--images", "6")


def test_a_sweep_is_told_and_kept(
    own: list[str],
    vitruvius: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An interrupted sweep leaves its finished cells, and the next one does not compute them."""
    file = tmp_path / "sweep.json"
    command = ["optical", "run", *own, "--images", "4", "--photons", "1e4,1e2"]
    command += ["--json", str(file)]
    whole = optical_run.run_cell
    computed = []

    def interrupted(*given: object, **named: object) -> object:
        options = given[2]
        computed.append(options.photons)  # type: ignore[attr-defined]
        if len(computed) == 3:
            raise KeyboardInterrupt
        return whole(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(optical_run, "run_cell", interrupted)
    stopped = vitruvius(*command)
    assert (stopped.exit_code, stopped.stderr) == (130, "interrupted\n")
    kept = json.loads(file.read_text())
    assert (kept["finished"], len(kept["cells"])) == (False, 2)
    result = vitruvius(*command)
    assert result.exit_code == 0, result.output
    assert computed == [None, 1e4, 1e2, 1e2]
    record = json.loads(file.read_text())
    assert record["finished"]
    assert record["cells"][:2] == kept["cells"]
    assert [cell["options"]["photons"] for cell in record["cells"]] == [None, 1e4, 1e2]
    ideal, light, dark = record["cells"]
    assert ideal["agree"] == 4
    assert ideal["logit_error"] < 1e-5 < light["logit_error"] < dark["logit_error"]
    assert light["options"]["read_noise_e"] == 5.0
    text = " ".join(result.stdout.split())
    for words in (
        "Scheme split",
        "set by 2 other images",
        "own error",
        "moves values, computes none",
    ):
        assert words.lower() in text.lower()
    again = vitruvius(*command, "--seed", "1")
    assert again.exit_code == 0
    assert len(computed) == 7


def test_waves_beside_the_other_layers(vitruvius: Callable[..., Result], tmp_path: Path) -> None:
    """Only the first convolution goes on optics here, which is quick."""
    file = tmp_path / "waves.json"
    result = vitruvius(
        *("optical", "run", "vit_digits", "--images", "2", "--propagate", "1", "--map", "conv"),
        *("--photons", "none", "--adc-bits", "none", "--panel-bits", "8", "--json", str(file)),
    )
    assert result.exit_code == 0, result.output
    record = json.loads(file.read_text())
    assert record["exact_correct"] == record["cells"][0]["correct"] == 2
    layers = record["layers"]
    assert [layer["layer"] for layer in layers] == [
        "math",
        "propagation",
        "propagation with devices",
    ]
    assert max(layer["logit_error"] for layer in layers[:2]) < 1e-5
    assert layers[2]["logit_error"] > 1e-4


RETRAIN_BAD = {
    "negative photons": (["--photons", "-5"], "photons: expected a number above 0, got -5"),
    "two lights": (["--photons", "1e3,1e4"], "--photons: expected one number or none, got 2"),
    "no epochs": (["--epochs", "0"], "epochs must be at least 1, got 0"),
    "another layer": (["--scheme", "absolute"], "expects a scheme that computes convolutions"),
}


@pytest.mark.parametrize(("options", "reason"), RETRAIN_BAD.values(), ids=RETRAIN_BAD)
def test_mistakes_of_retraining(
    options: list[str], reason: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / "weights.safetensors"
    given = ["vit_digits", "--images", "1", "--map", "conv", "--out", str(file)]
    text = refused("optical", "retrain", *given, *options)
    assert reason in text
    assert len(text.splitlines()) == 1
    assert not file.exists()


def test_retraining_says_which_images_ship(
    own: list[str], refused: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / "weights.safetensors"
    text = refused("optical", "retrain", own[0], "--out", str(file))
    assert "reads images of 2 x 6 x 6, and no labelled ones of that shape ship" in text
    assert not file.exists()


@pytest.mark.slow
def test_retrained_weights_go_back_into_a_run(
    vitruvius: Callable[..., Result], tmp_path: Path
) -> None:
    """The file is one that ``run`` takes, and the figures are the same there."""
    file, told = tmp_path / "weights.safetensors", tmp_path / "told.json"
    result = vitruvius(
        *("optical", "retrain", "vit_digits", "--epochs", "1", "--photons", "1e3"),
        *("--images", "100", "--out", file, "--json", told),
    )
    assert result.exit_code == 0, result.output
    record = json.loads(told.read_text())
    assert record["before"][0]["correct"] > 95
    sweep = tmp_path / "sweep.json"
    again = vitruvius(
        *("optical", "run", "vit_digits", "--weights", file, "--photons", "1e3"),
        *("--images", "100", "--json", sweep),
    )
    assert again.exit_code == 0, again.output
    cell = json.loads(sweep.read_text())["cells"][1]
    assert cell["correct"] == record["after"][1]["correct"] > 80
