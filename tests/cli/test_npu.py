"""``vitruvius npu`` and ``vitruvius estimate --on npu:``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Command = Callable[..., Result]
Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("flow", "cycles"),
    [("ws", 104_976), ("os", 103_896), ("is", 97_032)],  # SCALE-Sim's index of the last, and one
)
def test_without_overlap_scalesims_cycles_are_printed(
    vitruvius: Command, flow: str, cycles: int
) -> None:
    result = vitruvius(
        "npu", "gemm", "197", "576", "192", "--array", "16x16", "--dataflow", flow, "--no-overlap",
        "--json", "-",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    detail = record["detail"]
    assert detail["cycles"] == record["scalesim_cycles"] == cycles
    assert detail["folds"] == {"ws": 12 * 36, "os": 13 * 36, "is": 12 * 13}[flow]
    assert f"{cycles:,}" in result.stderr


def test_cycles_folds_utilisation_traffic_and_energy_are_told(
    vitruvius: Command, tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    result = vitruvius("npu", "gemm", "197", "576", "192", "--json", path)
    assert result.exit_code == 0, result.output
    for word in (
        "cycles",
        "folds",
        "mapping utilisation",
        "DRAM: weights",
        "SRAM: input",
        "energy",
    ):
        assert word in result.stdout
    record = json.loads(path.read_text())
    detail = record["detail"]
    assert record["ideal_cycles"] == 85_104 < detail["cycles"] < record["scalesim_cycles"]
    assert detail["product_cycles"] + sum(detail["stalls"].values()) == detail["cycles"]
    assert detail["dram_bytes"]["weights"] >= 576 * 192
    assert detail["energy_j"]["mac"] == pytest.approx(197 * 576 * 192 * 0.3e-12)


def test_rows_and_columns_arrive_in_their_places(vitruvius: Command) -> None:
    """Catches rows and columns exchanged, which a square array hides."""
    result = vitruvius(
        "npu", "gemm", "64", "16", "16", "--array", "16x8", "--dataflow", "os", "--no-overlap",
        "--json", "-",
    )  # fmt: skip
    assert json.loads(result.stdout)["detail"]["cycles"] == 4 * 2 * (16 + 8 + 16 - 2)


@pytest.mark.parametrize(
    ("array", "target"),
    [("64x64", "npu:edge16-64x64"), ("128x128", "npu:edge32-128x128"),
     ("256x256", "npu:array128-256x256")],
)  # fmt: skip
def test_an_array_finds_buffers_that_hold_its_tiles(
    vitruvius: Command, array: str, target: str
) -> None:
    result = vitruvius("npu", "gemm", "197", "576", "192", "--array", array, "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["target"] == target


def test_shipped_targets_are_listed(vitruvius: Command) -> None:
    result = vitruvius("npu", "targets")
    assert result.exit_code == 0, result.output
    for name in ("npu:edge16", "npu:edge32", "npu:gemmini16", "npu:array128", "npu:sa8295p"):
        assert name in result.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["0", "1", "1"], "at least 1 x 1 x 1, got 0 x 1 x 1"),
        (["99999999", "1", "1"], "expected extents up to 16,777,216 and at most 1e+18"),
        (["9999999", "9999999", "9999999"], "multiply-accumulates, got 9999999 x 9999999"),
        (
            ["1", "1", "1", "--array", "16"],
            "--array: expected rows x cols, such as 16x16, got '16'",
        ),
        (["1", "1", "1", "--array", "0x4"], "array.rows: expected a whole number from 1 to 1,024"),
        (
            ["1", "1", "1", "--array", "512x512", "--on", "npu:edge16"],
            "buffers.input_kib: half of it, 32768 bytes, does not hold the smallest tile",
        ),
        (["1", "1", "1", "--on", "npu:edge"], "unknown target 'npu:edge': did you mean"),
        (["1", "1", "1", "--on", "nowhere.toml"], "NPU file nowhere.toml cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(refused: Refused, options: list[str], told: str) -> None:
    assert told in refused("npu", "gemm", *options)


def test_estimate_takes_npus_beside_fpgas(vitruvius: Command, tmp_path: Path) -> None:
    """In the order in which they were asked for, each with the same record."""
    path = tmp_path / "e.json"
    result = vitruvius(
        "estimate", "vit_digits", "--on", "npu:edge16", "--on", "fpga:zcu102", "--on", "npu:edge32",
        "--json", path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    records = json.loads(path.read_text())
    assert [r["target"] for r in records] == ["npu:edge16", "fpga:zcu102", "npu:edge32"]
    assert records[1].keys() <= records[0].keys()
    assert records[0]["macs"] == 3_495_040
    assert len(records[0]["npu"]) == len(records[0]["operators"])


def test_a_quantized_file_has_no_graph_for_an_npu(refused: Refused, quantized_file: Path) -> None:
    text = refused("estimate", quantized_file, "--on", "npu:edge16")
    assert "npu:edge16: expected a model to trace" in text


def test_an_npu_that_is_not_known_is_refused_before_any_work(refused: Refused) -> None:
    assert "unknown target 'npu:edge1'" in refused("estimate", "vit_digits", "--on", "npu:edge1")
    text = refused("estimate", "vit_digits", "--on", "edge32")
    assert text.startswith("unknown target 'edge32': did you mean 'npu:edge32'")


def test_targets_with_commas_are_put_side_by_side_in_one_record(
    vitruvius: Command, tmp_path: Path
) -> None:
    path = tmp_path / "both.json"
    result = vitruvius("estimate", "vit_digits", "--on", "fpga:zcu102,npu:edge16", "--json", path)
    assert result.exit_code == 0, result.output
    record = json.loads(path.read_text())
    assert record["targets"] == ["fpga:zcu102", "npu:edge16"]
    assert [row["target"] for row in record["comparison"]] == record["targets"]
    fpga, npu = record["estimates"]
    assert [row["cycles"] for row in record["comparison"]] == [fpga["cycles"], npu["cycles"]]
    rows = {row["name"]: row for row in record["operators"]}
    # the accelerator's attention is one operator: on the NPU that is scores, softmax and apply
    own = [row for row in npu["operators"] if row["name"].startswith("blocks.0.attn.")]
    whole = [row["cycles"] for row in own if row["kind"] in ("MatMul", "Softmax")]
    assert rows["blocks.0.attn.apply"]["cycles"][1] == sum(whole)
    assert len(whole) == 3
    assert "side by side" in result.stdout and "attn.apply" in result.stdout


def test_a_language_model_is_estimated_over_its_context(vitruvius: Command, tmp_path: Path) -> None:
    path = tmp_path / "l.json"
    result = vitruvius(
        "estimate", "lfm2_tiny", "--on", "npu:sa8295p", "--precision", "w4a16", "--context", "8,1",
        "--json", path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (record,) = json.loads(path.read_text())
    points = [(point["phase"], point["context"]) for point in record["points"]]
    assert points == [("prefill", 1), ("prefill", 8), ("decode", 1), ("decode", 8)]
    assert record["weight_bits"] == 4 and "tokens/s" in result.stdout
    result = vitruvius("estimate", "lfm2_tiny", "--on", "npu:edge32", "--phase", "decode")
    assert result.exit_code == 0 and "prefill  " not in result.stdout


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--context", "0"), "lfm2_tiny: expected a context of 1 to 256 tokens, got 0"),
        (("--context", "-3"), "lfm2_tiny: expected a context of 1 to 256 tokens, got -3"),
        (("--context", "257"), "lfm2_tiny: expected a context of 1 to 256 tokens, got 257"),
        (("--piece", "0"), "lfm2_tiny: expected pieces of at least 1 token, got 0"),
        (("--context", "1,x"), "--context: expected numbers of tokens such as 1,1024,4096"),
        (("--precision", "w5a16"), "precision 'w5a16' is not defined"),
        (("--image-size", "64"), "no --weights, no images"),
        (("--on", "fpga:zcu102"), "--context is for NPUs, and fpga:zcu102 is none"),
    ],
)
def test_a_context_or_width_that_is_not_defined_is_refused(
    refused: Refused, options: tuple[str, ...], text: str
) -> None:
    on = () if "--on" in options else ("--on", "npu:edge32")
    more = ("--context", "4") if "--on" in options else ()
    assert text in refused("estimate", "lfm2_tiny", *on, *options, *more)


def test_options_of_language_models_and_images_are_refused_elsewhere(refused: Refused) -> None:
    on = ("--on", "npu:edge32")
    assert "no language model" in refused("estimate", "vit_digits", *on, "--context", "4")
    text = refused("estimate", "internvit_300m", *on, "--image-size", "768")
    assert "[768, 768] is not a multiple of patch_size 14" in text
    text = refused("estimate", "autoneural_encoder_tiny", *on, "--image-size", "100")
    assert "not a multiple of the stride 32" in text
    assert "has weights" in refused("estimate", "vit_digits", *on, "--image-size", "16")
    text = refused("estimate", "vit_digits", "--on", "npu:edge32,npu:edge32")
    assert "more than once" in text


def test_a_vision_encoder_that_does_not_fit_says_what_is_largest(vitruvius: Command) -> None:
    result = vitruvius("estimate", "internvit_300m", "--on", "npu:sa8295p", "--image-size", "756")
    assert result.exit_code == 0, result.output
    assert "does not fit" in result.stdout and "attn.softmax" in result.stdout
