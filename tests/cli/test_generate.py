"""generate: the files, what the buffers hold, and the same bytes every time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result


def test_generate_writes_verilog_and_images(
    vitruvius: Callable[..., Result], quantized_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "small"
    result = vitruvius(
        "generate",
        quantized_file,
        "--machine",
        "small",
        "--out",
        out,
        "--json",
        tmp_path / "g.json",
    )
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "g.json").read_text())
    assert (record["model"], record["machine"], record["multipliers"]) == (
        "vit_digits",
        "small",
        64,
    )
    assert {Path(item["path"]) for item in record["files"]} == set(out.iterdir())
    assert "module vitruvius" in (out / "vitruvius.v").read_text()
    assert all(item["used"] <= item["capacity"] for item in record["buffers"])
    assert record["macs"] == 3_495_040
    assert "4 x 4 x 4 = 64 multipliers" in result.stdout
    # From the model itself and from the file: the same bytes.
    vitruvius("generate", "vit_digits", "--machine", "small", "--out", tmp_path / "again")
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_an_unknown_device_is_refused_before_anything_is_written(
    vitruvius: Callable[..., Result], quantized_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    result = vitruvius("generate", quantized_file, "--out", out, "--resources", "fpga:zcu12")
    assert result.exit_code == 2
    assert "did you mean 'fpga:zcu102'" in result.stderr
    assert not out.exists()


@pytest.mark.slow
def test_resources_of_the_small_machine(
    vitruvius: Callable[..., Result], quantized_file: Path, tmp_path: Path
) -> None:
    """Every product of the array takes a DSP; the weight buffer alone takes 16 blocks of 4 KiB."""
    arguments = ["--resources", "fpga:zcu102", "--json", tmp_path / "g.json"]
    result = vitruvius("generate", quantized_file, "--out", tmp_path / "small", *arguments)
    assert result.exit_code == 0, result.output
    taken = json.loads((tmp_path / "g.json").read_text())["resources"]
    assert taken["target"] == "fpga:zcu102"
    assert taken["dsp"] >= 64
    assert taken["bram"] >= 16
    assert 0 < taken["utilisation"]["lut"] < 1
    assert "DSP48E2" in result.stdout
