"""``vitruvius mpc run``: the report, and every mistake as one sentence."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vitruvius.cli.main import app

BAD = {
    "a key that is unknown": (["--mpc", "maximun=tree"], "no setting 'maximun', did you mean"),
    "three parties": (["--mpc", "parties=3"], "protocol crypten is for 2 parties, got 3"),
    "another dealer": (["--mpc", "dealer=tfp"], "dealer=ttp, got tfp"),
    "too many images": (["--images", "361"], "expected at most 360 (test images of digits)"),
    "a port too large": (["--parties", "1", "--peer", "127.0.0.1:70000"], "expected HOST:PORT"),
    "no port": (["--parties", "0", "--listen", "here"], "--listen: expected HOST:PORT"),
    "a point too far left": (["--mpc", "fraction_bits=26"], "expected at most 22 fraction bits"),
}


@pytest.mark.parametrize(("options", "reason"), BAD.values(), ids=BAD)
def test_mistakes(options: list[str], reason: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    result = CliRunner().invoke(app, ["mpc", "run", "vit_digits", *options, "--json", str(file)])
    assert result.exit_code == 2
    assert reason in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not file.exists()


def test_operators_without_a_protocol_are_all_listed_with_advice() -> None:
    result = CliRunner().invoke(app, ["mpc", "run", "vit_mnistm_moe"])
    assert result.exit_code == 2
    assert result.stderr.count("the k largest are secret; use all experts") == 3


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.slow
def test_three_roles_started_by_hand(tmp_path: Path) -> None:
    """As on three machines: the same label and counts on both sides."""
    party, dealer = free_port(), free_port()
    command = [sys.executable, "-m", "vitruvius", "mpc", "run", "vit_digits"]
    dealing = ["--dealer", f"127.0.0.1:{dealer}"]
    roles = {
        "dealer": ["--parties", "dealer", "--listen", f"127.0.0.1:{dealer}"],
        "0": ["--parties", "0", "--listen", f"127.0.0.1:{party}", *dealing],
        "1": ["--parties", "1", "--peer", f"127.0.0.1:{party}", *dealing],
    }
    running = {
        role: subprocess.Popen(
            [*command, *options, "--json", str(tmp_path / f"{role}.json")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for role, options in roles.items()
    }
    for role, process in running.items():
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, f"{role}: {errors}"
    found = {role: json.loads((tmp_path / f"{role}.json").read_text()) for role in roles}
    assert found["dealer"]["images"] == 1
    assert found["0"]["labels"] == found["1"]["labels"] == [7]
    assert found["0"]["outputs"] == found["1"]["outputs"]
    for role in ("0", "1"):
        assert (found[role]["rounds"], found[role]["bytes_sent"]) == (691, 13_957_392)
    assert (found["0"]["offline_bytes"], found["1"]["offline_bytes"]) == (7_573_272, 0)


def test_help_states_the_threat_model() -> None:
    text = " ".join(CliRunner().invoke(app, ["mpc", "run", "--help"]).stdout.split())
    for words in ("semi-honest", "dealer that both trust", "not a product for secrets"):
        assert words in text.replace("│ ", "")
