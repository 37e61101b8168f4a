"""``vitruvius mpc`` and ``vitruvius estimate --on mpc:``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Command = Callable[..., Result]
Refused = Callable[..., str]


def test_one_function_in_both_conventions(vitruvius: Command, tmp_path: Path) -> None:
    """CrypTen's own counters on 64 x 65: 115 rounds, 5,975,040 bytes."""
    path = tmp_path / "cost.json"
    result = vitruvius("mpc", "cost", "softmax", "--shape", "64x65", "--json", path)
    assert result.exit_code == 0, result.output
    record = json.loads(path.read_text())
    assert (record["rounds"], record["bytes_sent"], record["bytes_received"]) == (
        115, 2987520, 2987520,
    )  # fmt: skip
    assert record["crypten_sent_and_received"] == 5975040
    assert record["offline"]["bytes_received"] > 0
    assert "CrypTen's way, sent + received: 5,975,040 bytes" in result.stdout
    assert "SPU's way, sent: 2,987,520 bytes" in result.stdout


def test_options_and_protocols_of_one_function(vitruvius: Command) -> None:
    def cost(*arguments: str) -> tuple[int, int]:
        result = vitruvius("mpc", "cost", *arguments, "--json", "-")
        assert result.exit_code == 0, result.output
        record = json.loads(result.stdout)
        return record["rounds"], record["bytes_sent"]

    assert cost("max", "--shape", "64x64", "--maximum", "tree") == (54, 1870848 // 2)
    assert cost("matmul", "--shape", "65x256", "--shape", "256x512") == (1, 2363392 // 2)
    assert cost("divide", "--shape", "3x4", "--shape", "1", "--protocol", "semi2k") == (38, 745)
    by_element = ("--division", "element")
    shapes = ("--shape", "3x4", "--shape", "1", "--protocol", "semi2k")
    assert cost("divide", *shapes, *by_element) == (38, 6300)
    assert cost("ltz", "--shape", "1000", "--protocol", "aby3") == (8, 36000)
    assert cost("ltz", "--shape", "1000", "--protocol", "cheetah") == (7, 69000)


def test_lists(vitruvius: Command) -> None:
    result = vitruvius("mpc", "protocols", "--json", "-")
    assert result.exit_code == 0, result.output
    found = {item["name"]: item for item in json.loads(result.stdout)}
    assert {name: item["parties"] for name, item in found.items()} == {
        "crypten": 2, "semi2k": 2, "aby3": 3, "cheetah": 2,
    }  # fmt: skip
    result = vitruvius("mpc", "networks", "--json", "-")
    networks = {item["name"]: item for item in json.loads(result.stdout)}
    assert networks["wan"]["bandwidth_bit_s"] == 400e6
    assert "OpenCheetah" in networks["wan"]["source"]


def test_estimates_side_by_side_with_a_chart(vitruvius: Command, tmp_path: Path) -> None:
    path, chart = tmp_path / "r.json", tmp_path / "c.svg"
    result = vitruvius(
        "estimate", "vit_digits", "--on", "mpc:semi2k-wan,mpc:crypten-lan,npu:edge16",
        "--mpc", "softmax=relu,gelu=quad", "--chart", chart, "--json", path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = json.loads(path.read_text())
    assert record["targets"] == ["mpc:semi2k-wan", "mpc:crypten-lan", "npu:edge16"]
    semi2k, crypten, npu = record["estimates"]
    assert crypten["online"]["rounds"] == 1 + 9 * 20 + 17 + 8 + 4 * 38 + 4 * 1 + 1
    assert semi2k["readings"]["acknowledged"] > semi2k["readings"]["overlap"]
    assert {row["bottleneck"] for row in crypten["operators"]} >= {"rounds", "none: local"}
    assert "online" not in npu
    comparison = {row["target"]: row for row in record["comparison"]}
    assert comparison["npu:edge16"]["rounds"] == 0
    assert comparison["mpc:crypten-lan"]["rounds"] == crypten["online"]["rounds"]
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["cycles", "-", "-", "43,810"] in rows
    text = chart.read_text()
    for word in ("rounds", "LayerNorm", "semi2k-wan", "crypten-lan"):
        assert f"<!-- {word} -->" in text
    assert not list(tmp_path.glob("*.part"))


def test_a_network_of_ones_own(vitruvius: Command, tmp_path: Path) -> None:
    path = tmp_path / "office.toml"
    path.write_text('bandwidth_bit_s = 1e9\nping_s = 1.0\nsource = "measured here"\n')
    result = vitruvius("estimate", "vit_digits", "--on", f"mpc:crypten:{path}", "--json", "-")
    assert result.exit_code == 0, result.output
    (record,) = json.loads(result.stdout)
    assert record["network"] == "office"
    assert 691 / 2 < record["latency_s"] < 691 / 2 + 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["softmx", "--shape", "4x4"], "unknown function 'softmx': did you mean 'softmax'"),
        (["relu", "--shape", "4by4"], "--shape: expected extents such as 64x65, got '4by4'"),
        (["relu", "--shape", "0x4"], "expected extents of at least 1, got shape 0x4"),
        (["relu", "--shape", "4", "--maximum", "bush"], "maximum: expected reduction, tree, pairs"),
        (["relu", "--shape", "4", "--gelu", "quad"], "--gelu: expected tanh, sigmoid, pieces"),
        (["relu", "--shape", "4", "--protocol", "bgw"], "unknown protocol 'bgw'"),
        (["relu", "--shape", "4", "--parties", "3"], "protocol crypten is for 2 parties, got 3"),
        (["relu", "--shape", "4", "--dealer", "none"], "expected dealer ttp or tfp, got 'none'"),
        (["log", "--shape", "4", "--protocol", "aby3"], "protocol aby3 has no figures for log"),
    ],
)
def test_refusals_of_cost(refused: Refused, arguments: list[str], text: str) -> None:
    assert text in refused("mpc", "cost", *arguments)


def test_refusals_of_estimate(refused: Refused, tmp_path: Path) -> None:
    assert "unknown target 'mpc:crypten-man'" not in refused("estimate", "vit_digits", "--on", "x")
    text = refused("estimate", "vit_digits", "--on", "mpc:crypten-man")
    assert "unknown network 'man'" in text
    text = refused("estimate", "vit_digits", "--on", "npu:edge16", "--mpc", "maximum=tree")
    assert text.startswith("--mpc is for secure inference, and npu:edge16 is none")
    text = refused("estimate", "vit_digits", "--on", "npu:edge16", "--chart", tmp_path / "c.svg")
    assert text.startswith("--chart is for secure inference")
    text = refused("estimate", "vit_digits", "--on", "mpc:crypten-lan", "--chart", "c.gif")
    assert "ends in .svg or .png" in text
    text = refused("estimate", "vit_digits", "--on", "mpc:crypten-lan", "--precision", "w4a16")
    assert text == "--precision is for NPUs, and mpc:crypten-lan is none"
    text = refused("estimate", "lfm2_1.2b", "--on", "mpc:crypten-lan")
    assert "is a language model, which is estimated on NPUs only" in text
    text = refused("estimate", "vit_digits", "--on", "mpc:semi2k-lan", "--mpc", "parties=3")
    assert text.startswith("protocol semi2k is for 2 parties, got 3; ")
    network = tmp_path / "bad.toml"
    network.write_text('bandwidth_bit_s = -1\nping_s = 0\nsource = "me"\n')
    text = refused("estimate", "vit_digits", "--on", f"mpc:crypten:{network}")
    assert "bandwidth_bit_s: expected bits a second" in text
    assert "ping_s: expected seconds" in text
