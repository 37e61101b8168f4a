"""``vitruvius simulate``: on a machine, and on a systolic array with --systolic."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Command = Callable[..., Result]
Refused = Callable[..., str]

MACS = 3_495_040  # of vit_digits


def test_a_machine_tells_where_its_cycles_go(
    vitruvius: Command, quantized_file: Path, tmp_path: Path
) -> None:
    record, timeline = tmp_path / "r.json", tmp_path / "t.json"
    result = vitruvius(
        "simulate", quantized_file, "--machine", "medium", "--images", "2",
        "--json", record, "--timeline", timeline,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "vit_digits on medium: " in result.stdout
    assert "cycles for 2 images" in result.stdout
    assert json.loads(timeline.read_text())["traceEvents"]
    assert json.loads(record.read_text())["cycles"] > 2 * MACS / 256


def test_systolic_counts_the_products_of_a_traced_model(vitruvius: Command) -> None:
    """Extents from the model's card; see tests/sim/test_systolic_report.py for the sum on paper.
    Catches the option being read and the machine simulated all the same.
    """
    result = vitruvius("simulate", "vit_digits", "--systolic", "16x16:ws")
    assert result.exit_code == 0, result.output
    block = 63 * (4 * 12 + 4 * 4 + 4 * 16 + 16 * 4) + 4 * 63 * (1 * 2) + 4 * 63 * (2 * 1)
    cycles = 62 * 4 + 4 * block + 47 * 4
    assert "vit_digits on a 16 x 16 array, ws" in result.stdout
    assert f"products: {cycles:,} cycles, {MACS:,} multiply-accumulates" in result.stdout
    assert "multipliers" not in result.stdout


def test_systolic_counts_a_quantized_file_with_the_same_products(
    vitruvius: Command, quantized_file: Path
) -> None:
    """One cell: a cycle a product and, with outputs in it, no other; whatever its tiles."""
    result = vitruvius("simulate", quantized_file, "--systolic", "1x1:os", "--json", "-")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert (record["cycles"], record["macs"], record["utilisation"]) == (MACS, MACS, 1.0)
    assert (record["rows"], record["cols"], record["dataflow"]) == (1, 1, "os")
    assert len(record["products"]) == 1 + 4 * 8 + 1


def test_rows_columns_and_dataflow_arrive_in_their_places(
    vitruvius: Command, quantized_file: Path
) -> None:
    """Catches rows and columns exchanged, which a square array hides."""
    result = vitruvius("simulate", quantized_file, "--systolic", "64x8:is", "--json", "-")
    first = json.loads(result.stdout)["products"][0]
    gemm = first["gemm"]
    assert (gemm["M"], gemm["N"], gemm["K"]) == (16, 64, 4)
    folds = 1 * 2  # K along 64 rows, M along 8 columns
    assert first["cycles"] == folds * (2 * 64 + 8 + 64 - 2)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--machine", "large"], "--machine does"),
        (["--images", "1"], "--images does"),
        (["--latency", "100"], "--latency does"),
        (["--calibration", "images"], "--calibration does"),
        (["--gap", "0", "--outstanding", "16"], "--gap and --outstanding do"),
        (["--timeline", "t.json", "--machine", "x", "--images", "3"],
         "--machine, --images and --timeline do"),
    ],
)  # fmt: skip
def test_options_of_a_machine_do_not_go_with_it(
    options: list[str],
    names: str,
    refused: Refused,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even with their default values; nothing is loaded or written before."""
    monkeypatch.chdir(tmp_path)
    text = refused("simulate", "no_such_model", "--systolic", "16x16:ws", *options)
    assert text == (
        "--systolic counts the cycles of products on an array without a machine around it: "
        f"{names} not go with it"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "written", ["", "16", "16x16", "16x16:rs", "0x16:ws", "16x-1:ws", "axb:ws"]
)
def test_an_array_that_is_none(written: str, refused: Refused) -> None:
    """Told before the model is loaded."""
    text = refused("simulate", "no_such_model", "--systolic", written)
    assert text == (
        "--systolic: expected rows x cols and a dataflow out of ws, os, is, such as 16x16:ws, "
        f"got '{written}'"
    )


def test_the_model_is_checked_as_everywhere(
    refused: Refused, quantized_file: Path, tmp_path: Path
) -> None:
    array = ["--systolic", "16x16:ws"]
    assert "did you mean 'vit_digits'" in refused("simulate", "vit_digit", *array)
    assert "found none at" in refused("simulate", tmp_path / "missing.safetensors", *array)
    assert "--weights does not go with" in refused(
        "simulate", quantized_file, "--weights", quantized_file, *array
    )
    assert f"got the folder {tmp_path}" in refused(
        "simulate", "vit_digits", *array, "--json", tmp_path
    )
