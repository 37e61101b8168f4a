"""``vitruvius estimate --on optical:``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from vitruvius.optical import target as module

Command = Callable[..., Result]
Refused = Callable[..., str]


def test_a_table_and_a_record(vitruvius: Command, tmp_path: Path) -> None:
    path = tmp_path / "estimate.json"
    result = vitruvius("estimate", "vit_digits", "--on", "optical:4f-2mhz", "--json", path)
    assert result.exit_code == 0, result.output
    for text in (
        "vit_digits on optical:4f-2mhz, 2160 x 2160 pixels, npu:edge32",
        "latency of one image alone, its planes mostly empty: ",
        "throughput, 72,900 images at full planes: ",
        "if one thing set the pace: light 23.9 µs, panels 44.0 µs, read-out 0 s; panels rule",
        "products in electronics: blocks.0.attn.apply and 3 more: a weighted sum of value planes",
        "4f-2mhz, photons: 10000 (assumed)",
        "which no link does",
    ):
        assert text in " ".join(result.stdout.split()), text
    (record,) = json.loads(path.read_text())
    assert record["frames"] == 88
    assert record["latency_s"] > record["per_image_s"]
    assert len(record["operators"]) == len(record["optical"])


def test_a_file_of_the_user_beside_an_npu(vitruvius: Command, tmp_path: Path) -> None:
    shipped = Path(module.__file__).parent / "systems" / "4f-readout.toml"
    own = tmp_path / "mine.toml"
    own.write_text(shipped.read_text(encoding="utf-8").replace("rows = 2160", "rows = 512"))
    path = tmp_path / "both.json"
    on = f"optical:{own},npu:edge32"
    choices = ("--optical", "map=conv+linear,batch=64", "--optical", "tiling=input")
    result = vitruvius("estimate", "vit_digits", "--on", on, *choices, "--json", path)
    assert result.exit_code == 0, result.output
    assert "an image at full planes" in result.stdout
    # a long path would leave no room for the first column
    assert "  optical:mine.toml  " in result.stdout
    assert "In operators without a partner: 0 s of optical:mine.toml" in result.stdout
    record = json.loads(path.read_text())
    assert record["targets"] == on.split(",")
    optics, npu = record["comparison"]
    assert optics["machine"] == "512 x 2160 pixels, npu:edge32"
    assert optics["batch"] == 64
    assert optics["per_image_s"] < optics["latency_s"]
    assert "batch" not in npu
    assert len(record["operators"]) > 40


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--on", "optical:4f-3mhz"), "unknown target 'optical:4f-3mhz': did you mean 'optical:4f"),
        (("--on", "optic:4f-2mhz"), "unknown target 'optic:4f-2mhz': did you mean 'optical:4f-2mh"),
        (("--on", "optical:4f-2mhz", "--optical", "tile=x"), "--optical: no setting 'tile', did "),
        (("--on", "optical:4f-2mhz", "--optical", "photons=-3"), "photons: expected a number abo"),
        (("--on", "optical:4f-2mhz", "--optical", "rows=0"), "rows: expected an even number from"),
        (
            ("--on", "optical:4f-2mhz", "--optical", "input_panel_s=-1e-6"),
            "input_panel_s: expected a number from 0 to 3600, got '-1e-6'",
        ),
        (
            ("--on", "optical:4f-2mhz", "--optical", "electronics=mpc:semi2k-lan"),
            "electronics of optical:4f-2mhz: unknown target 'mpc:semi2k-lan'",
        ),
        (
            ("--on", "npu:edge32", "--optical", "batch=2"),
            "--optical is for 4f optics, and npu:edge",
        ),
        (("--on", "optical:4f-2mhz", "--phase", "decode"), "--phase is for NPUs, and optical:4f-2"),
        (("--on", "optical:none.toml"), "optical system none.toml cannot be read: No such file"),
    ],
)
def test_bad_input(refused: Refused, arguments: tuple[str, ...], text: str) -> None:
    assert text in refused("estimate", "vit_digits", *arguments)


def test_a_language_model_is_refused(refused: Refused) -> None:
    text = refused("estimate", "lfm2_tiny", "--on", "optical:4f-2mhz")
    assert "lfm2_tiny is a language model" in text
