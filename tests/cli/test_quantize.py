"""quantize: the file, the accuracies, the layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from typer.testing import Result

from vitruvius.models.datasets import digits
from vitruvius.models.integer_model import IntegerModel

SMALL = """
import torch
from vitruvius.models.zoo.vit import VisionTransformer, VisionTransformerConfig

def small():
    torch.manual_seed(0)
    config = VisionTransformerConfig(
        image_size=8, patch_size=2, channels=1, classes=10, dim=16, depth=1, heads=2, mlp_ratio=2
    )
    return VisionTransformer(config), torch.zeros(1, 1, 8, 8)
"""


def test_quantize_writes_a_model_with_its_accuracy(
    vitruvius: Callable[..., Result], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "m.safetensors"
    result = vitruvius("quantize", "vit_digits", "--out", out, "--json", tmp_path / "q.json")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "q.json").read_text())
    assert record["accuracy"]["images"] == 360
    assert record["accuracy"]["float"] >= 0.97
    assert record["accuracy"]["integer"] >= record["accuracy"]["float"] - 0.005
    assert all(layer["sqnr_db"] > 20 for layer in record["layers"])
    assert "accuracy on 360 test images" in result.stdout
    # What is on disk is the model that was measured.
    data = digits()
    loaded = IntegerModel.load(out).accuracy(data.test_images, data.test_labels)
    assert loaded == record["accuracy"]["integer"]


def test_the_file_is_the_same_every_time(
    vitruvius: Callable[..., Result], quantized_file: Path, tmp_path: Path
) -> None:
    vitruvius("quantize", "vit_digits", "--out", tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").read_bytes() == quantized_file.read_bytes()


def test_a_users_model_with_calibration_images(
    vitruvius: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    np.save(tmp_path / "images.npy", digits().train_images[:40].numpy())
    result = vitruvius(
        "quantize",
        f"{tmp_path / 'small.py'}:small",
        "--calibration",
        tmp_path / "images.npy",
        "--json",
        "-",
    )
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    # Of 40 images the last fifth is held out, to compare on.
    assert record["calibration_images"] == 32
    assert record["agreement"]["images"] == 8
    assert record["agreement"]["held_out_of_calibration"] is True
    assert record["accuracy"] is None
    assert record["file"] is None
