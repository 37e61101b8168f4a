"""models and trace: what is listed, and the JSON others build on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from typer.testing import Result

from vitruvius.models.zoo.vit_digits import vit_digits

CUMSUM = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(torch.cumsum(x, dim=1))

def net():
    return Net(), torch.zeros(1, 4)
"""


def test_models(vitruvius: Callable[..., Result], tmp_path: Path) -> None:
    result = vitruvius("models", "--json", tmp_path / "models.json")
    assert result.exit_code == 0
    assert "vit_digits" in result.stdout
    entries = {entry["name"]: entry for entry in json.loads((tmp_path / "models.json").read_text())}
    assert entries["vit_digits"]["input_shape"] == [1, 1, 8, 8]
    assert entries["vit_digits"]["weights"] is True


def test_trace_json(vitruvius: Callable[..., Result], tmp_path: Path) -> None:
    """Totals against torch's own parameter count and the model's arithmetic."""
    result = vitruvius("trace", "vit_digits", "--json", tmp_path / "trace.json")
    assert result.exit_code == 0
    record = json.loads((tmp_path / "trace.json").read_text())
    assert record["unmapped"] == []
    assert all(
        {"name", "kind", "path", "macs", "params"} <= operator.keys()
        for operator in record["operators"]
    )
    assert record["total"]["params"] == sum(p.numel() for p in vit_digits().parameters())
    tokens, dim, hidden, depth = 17, 64, 256, 4
    block = tokens * dim * (3 * dim + dim + 2 * hidden) + 2 * tokens * tokens * dim
    assert record["total"]["macs"] == 16 * 4 * dim + depth * block + dim * 10
    assert len(record["attention"]) == depth
    # The same numbers are on the terminal.
    assert f"{record['total']['macs']:,}" in result.stdout
    assert f"{record['total']['params']:,}" in result.stdout


def test_json_on_standard_output_is_alone(vitruvius: Callable[..., Result]) -> None:
    result = vitruvius("trace", "vit_digits", "--json", "-")
    assert json.loads(result.stdout)["model"] == "vit_digits"
    assert "patch_embed" in result.stderr


def test_unmapped_operators_stay_on_the_host(
    vitruvius: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(CUMSUM)
    result = vitruvius(
        "trace", f"{tmp_path / 'net.py'}:net", "--unmapped", "host", "--json", tmp_path / "t.json"
    )
    assert result.exit_code == 0, result.output
    (item,) = json.loads((tmp_path / "t.json").read_text())["unmapped"]
    assert "cumsum" in item["target"]
    assert item["source"] == "net.py:10"
    assert item["reason"]
    assert "cumsum" in result.stdout


def test_own_weights(vitruvius: Callable[..., Result], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(vit_digits().state_dict(), tmp_path / "w.safetensors")
    result = vitruvius("trace", "vit_digits", "--weights", tmp_path / "w.safetensors")
    assert result.exit_code == 0, result.output


def test_the_json_is_the_same_every_time(vitruvius: Callable[..., Result], tmp_path: Path) -> None:
    torch.manual_seed(1)
    vitruvius("trace", "vit_digits", "--json", tmp_path / "a.json")
    torch.manual_seed(2)
    vitruvius("trace", "vit_digits", "--json", tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
