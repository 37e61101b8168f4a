"""search mpcvit: files, JSON and the sentence; what is wrong is one sentence at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import Result

from vitruvius.models.datasets import Dataset
from vitruvius.sim.mpc.search import lessons


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 digits to train on and 40 to test on."""
    real = lessons.load_lesson("digits")
    data = Dataset(
        "digits",
        real.data.train_images,
        real.data.train_labels[:64],
        real.data.test_images[:40],
        real.data.test_labels[:40],
    )
    config = real.config.model_copy(update={"dim": 16, "depth": 2, "heads": 2})
    made = replace(real, data=data, config=config)
    monkeypatch.setitem(lessons.LESSONS, "digits", lambda: made)


@pytest.mark.usefixtures("few")
def test_a_short_search(vitruvius: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = (
        *("search", "mpcvit", "--data", "digits", "--network", "lan", "--protocol", "crypten"),
        *("--mu", ".5", "--penalty", "l1", "--lambda", ".01", "--epochs", "1"),
        *("--search-epochs", "1", "--out", out, "--json", tmp_path / "s.json"),
    )
    result = vitruvius(*command)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "s.json").read_text())
    assert (record["protocol"], record["network"], record["test_images"]) == ("crypten", "lan", 40)
    assert [len(layer) for layer in record["alphas"][0]] == [2, 2]
    names = [row["name"] for row in record["summaries"]]
    assert names[:5] == ["softmax", "relu-softmax", "scale", "mpcformer", "the-x"]
    assert names[5:] == ["mpcvit-0.5", "mpcvit+-0.5"]
    stem = "pareto-crypten-lan-l1"
    assert sorted(path.name for path in out.iterdir()) == [
        *(f"{stem}.{suffix}" for suffix in ("md", "png", "svg")),
        "seed0",
    ]
    assert record["finding"] in (out / f"{stem}.md").read_text()
    assert "MPCFormer-like" in result.stdout
    first = {path.name: path.read_bytes() for path in out.glob("pareto*")}
    again = vitruvius(*command)
    assert again.exit_code == 0, again.output
    assert {path.name: path.read_bytes() for path in out.glob("pareto*")} == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mu", ".5,1.5"), "--mu: expected shares from 0 to 1, got 1.5"),
        (("--mu", "half"), "--mu: expected shares such as .1,.3,.5, got 'half'"),
        (("--data", "imagenet"), "unknown data 'imagenet', known: digits, mnistm"),
        (
            ("--lambda", "-1"),
            "--lambda: Input should be greater than or equal to 0, got -1.0",
        ),
        (("--seeds", "0"), "--seeds: expected at least 1, got 0"),
        (("--seed", "-4"), "--seeds: expected at least one, from 0 to 2^63 - 1, got [-4]"),
        (
            ("--epochs", "0", "--mu", "2"),
            "--mu: expected shares from 0 to 1, got 2.0; "
            "--epochs: Input should be greater than or equal to 1, got 0",
        ),
    ],
)
def test_wrong_options_are_one_sentence(
    options: tuple[str, ...], message: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert refused("search", "mpcvit", "--out", out, *options) == message
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--network", "wam"), "unknown network 'wam': did you mean 'wan'"),
        (("--protocol", "semi3k"), "'semi3k'"),
    ],
)
def test_unknown_names_are_told_with_the_nearest(
    options: tuple[str, ...], message: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    assert message in refused("search", "mpcvit", "--out", tmp_path / "out", *options)


def test_a_file_in_the_place_of_the_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("x")
    text = refused("search", "mpcvit", "--out", path)
    assert text == f"expected a folder to write to, got the file {path}"
