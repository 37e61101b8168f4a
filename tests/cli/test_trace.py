"""models and trace: what is listed, and the JSON others build on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from typer.testing import Result

from vitruvius.models.zoo.vit_digits import vit_digits

ERFINV = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(torch.erfinv(x))

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
    (tmp_path / "net.py").write_text(ERFINV)
    result = vitruvius(
        "trace", f"{tmp_path / 'net.py'}:net", "--unmapped", "host", "--json", tmp_path / "t.json"
    )
    assert result.exit_code == 0, result.output
    (item,) = json.loads((tmp_path / "t.json").read_text())["unmapped"]
    assert "erfinv" in item["target"]
    assert item["source"] == "net.py:10"
    assert item["reason"]
    assert "erfinv" in result.stdout


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


def test_a_saved_program_and_a_picture(vitruvius: Callable[..., Result], tmp_path: Path) -> None:
    program = torch.export.export(vit_digits().eval(), (torch.zeros(1, 1, 8, 8),))
    torch.export.save(program, tmp_path / "saved.pt2")
    result = vitruvius(
        *("trace", tmp_path / "saved.pt2", "--picture", tmp_path / "graph.svg"),
        *("--json", tmp_path / "saved.json", "--operators", "--depth", "3"),
    )
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "saved.json").read_text())
    assert record["model"] == "saved"
    assert record["total"]["params"] == sum(p.numel() for p in vit_digits().parameters())
    assert "qkv  ×4" in result.stdout
    assert "blocks.3.mlp.fc2" in result.stdout
    assert (tmp_path / "graph.svg").read_text().startswith("<svg ")
    assert f"picture: {tmp_path / 'graph.svg'}" in result.stdout


def test_a_folder_of_hugging_face(vitruvius: Callable[..., Result], tmp_path: Path) -> None:
    import transformers

    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "mine")
    result = vitruvius("trace", tmp_path / "mine")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("mine: ")
    assert "Attention: 2 regions" in result.stdout


def test_what_cannot_be_taken_is_said_in_one_sentence(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "cut.pt2").write_bytes(b"PK\x03\x04 and no more")
    assert "cut.pt2 is truncated or damaged" in refused("trace", tmp_path / "cut.pt2")
    (tmp_path / "empty").mkdir()
    assert "expected a config.json in the folder" in refused("trace", tmp_path / "empty")
    picture = tmp_path / "folder.svg"
    picture.mkdir()
    assert "expected a file to write to, got the folder" in refused(
        "trace", "vit_digits", "--picture", picture
    )
    picture = tmp_path / "graph.png"
    assert "ends in .svg, got" in refused("trace", "vit_digits", "--picture", picture)
    assert not picture.exists()
    assert "expected join to take no arguments" in refused("trace", "os.path:join")
