"""Training ConvShareViT: it goes on where it stopped, every variant alike, and learns."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vitruvius.errors import VitruviusError
from vitruvius.models import train
from vitruvius.models.datasets import Dataset
from vitruvius.models.train_convshare import (
    EPOCHS,
    VARIANTS,
    convshare_model,
    convshare_recipe,
    train_convshare,
)
from vitruvius.models.weights import load_weights
from vitruvius.models.zoo.convshare import ConvShareVit
from vitruvius.models.zoo.convshare_config import ConvShareConfig
from vitruvius.models.zoo.network_file import NETWORKS

BLOCK = ("attn.proj", "attn.qkv", "mlp.fc1", "mlp.fc2")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, digit_images: Dataset) -> None:
    """96 images to train on and 40 to test on."""
    data = Dataset(
        "digits",
        digit_images.train_images[:96],
        digit_images.train_labels[:96],
        digit_images.test_images[:40],
        digit_images.test_labels[:40],
    )
    monkeypatch.setattr(train, "digits", lambda: data)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("variant", ["valid_full", "depthwise"])
def test_an_interrupted_run_goes_on_to_the_same_bytes(variant: str, tmp_path: Path) -> None:
    def stop(epoch: int, epochs: int, loss: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    whole, parted = tmp_path / "whole.safetensors", tmp_path / "parted.safetensors"
    train_convshare(whole, variant=variant, data="digits", epochs=3, seed=1)
    with pytest.raises(KeyboardInterrupt):
        train_convshare(parted, variant=variant, data="digits", epochs=3, seed=1, progress=stop)
    assert not parted.exists()
    later: list[int] = []
    train_convshare(
        parted,
        variant=variant,
        data="digits",
        epochs=3,
        seed=1,
        progress=lambda epoch, epochs, loss: later.append(epoch),
    )
    assert later == [3]
    assert parted.read_bytes() == whole.read_bytes()
    metadata = load_weights(whole)[1]
    assert (metadata["model"], metadata["test_images"]) == (f"convshare_{variant}_digits", "40")


@pytest.mark.usefixtures("few")
def test_matrices_and_kernels_of_a_whole_token_learn_the_same(tmp_path: Path) -> None:
    """The same seed, images and optimizer: losses differ by rounding alone in ten steps."""
    losses: dict[str, list[float]] = {}
    for variant in ("linear", "valid_full", "valid_k"):
        seen = losses.setdefault(variant, [])
        train_convshare(
            tmp_path / f"{variant}.safetensors",
            variant=variant,
            data="digits",
            epochs=5,
            seed=4,
            progress=lambda epoch, epochs, loss, seen=seen: seen.append(loss),
        )
    assert losses["valid_full"] == pytest.approx(losses["linear"], rel=1e-3)
    assert losses["valid_k"] != pytest.approx(losses["linear"], rel=1e-3)


@pytest.mark.usefixtures("few")
def test_another_variant_does_not_go_on_from_an_unfinished_run(tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "w.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_convshare(out, variant="linear", data="digits", epochs=2, progress=stop)
    with pytest.raises(VitruviusError, match="unfinished run with model convshare_linear_digits"):
        train_convshare(out, variant="valid_full", data="digits", epochs=2)


def test_kernels_are_trained_as_matrices_are() -> None:
    """A bias, norm or position among Muon's would be refused by it, a kernel left out would not."""
    for variant in VARIANTS:
        model = convshare_model(variant, "digits")
        config = NETWORKS[model].config
        assert isinstance(config, ConvShareConfig)
        torch.manual_seed(3)
        module = ConvShareVit(config)
        before = {name: value.clone() for name, value in module.state_dict().items()}
        others, matrices = convshare_recipe(model, config, "digits").prepare(module)
        held = {id(part) for part in matrices.param_groups[0]["params"]}
        names = {name for name, part in module.named_parameters() if id(part) in held}
        layers = range(module.config.depth)
        assert names == {f"blocks.{n}.{part}.weight" for n in layers for part in BLOCK}
        assert others.param_groups[0]["lr"] == 5e-3
        after = module.state_dict()
        torch.testing.assert_close(after["stem.bias"], -before["stem.weight"].sum((1, 2, 3)) / 2)
        for part, factor in zip(BLOCK, (0.3, 1, 1, 0.3), strict=True):
            name = f"blocks.1.{part}.weight"
            torch.testing.assert_close(after[name], factor * before[name])


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VitruviusError, match="unknown variant 'valid', did you mean"):
        train_convshare(tmp_path / "w", variant="valid")
    with pytest.raises(VitruviusError, match="unknown data 'mnist'"):
        train_convshare(tmp_path / "w", data="mnist")


def test_every_variant_has_its_networks() -> None:
    for variant in VARIANTS:
        for data in EPOCHS:
            assert convshare_model(variant, data) in NETWORKS


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_bytes_and_learns(tmp_path: Path) -> None:
    def command(out: Path) -> list[str]:
        start = "from vitruvius.cli.main import main; main()"
        options = ["--variant", "valid_full", "--data", "digits", "--epochs", "12", "--seed", "2"]
        return [sys.executable, "-c", start, "train", "convshare", *options, "--out", str(out)]

    whole, parted = tmp_path / "whole.safetensors", tmp_path / "parted.safetensors"
    subprocess.run(command(whole), check=True, capture_output=True)
    unfinished = tmp_path / "parted.safetensors.unfinished"
    running = subprocess.Popen(
        command(parted), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not unfinished.exists():
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not parted.exists()
    subprocess.run(command(parted), check=True, capture_output=True)
    assert parted.read_bytes() == whole.read_bytes()
    assert float(load_weights(whole)[1]["test_accuracy"]) > 0.6  # chance is 0.1
