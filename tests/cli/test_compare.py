"""``vitruvius compare``: Edge-MoE's ideas with and without each, as tables, JSON and a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.models.integer_model import IntegerModel
from vitruvius.sim.cycle import simulate

Command = Callable[..., Result]
Refused = Callable[..., str]


def test_tables_record_and_page(vitruvius: Command, quantized_file: Path, tmp_path: Path) -> None:
    """All of them have the cycles that simulate finds, and say whose figures they are."""
    record, page = tmp_path / "r.json", tmp_path / "pages" / "ideas.md"
    result = vitruvius(
        "compare", quantized_file, "--machine", "small", "--images", "2", "--latency", "40",
        "--json", record, "--out", page,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(record.read_text())
    counters = vitruvius(
        "simulate", quantized_file, "--machine", "small", "--images", "2", "--latency", "40",
        "--json", "-",
    )  # fmt: skip
    cycles = json.loads(counters.stdout)["cycles"]
    assert found["ladder"][-1]["cycles"] == cycles
    assert found["ladder"][-1]["source"] == "RTL"
    sources = {row["source"] for row in found["ladder"] + found["alone"]}
    assert sources == {"RTL", "simulated", "formula"}
    for text in (" ".join(result.stdout.split()), page.read_text()):
        assert f"{cycles:,}" in text
        assert "simulated: a design described to the cycle simulator" in text
        assert "expert-by-expert order: nothing to switch off, the model has no experts" in text
        assert "yosys, before placement, zcu102" in text
    assert "](ideas.svg)" in page.read_text()
    assert (page.parent / "ideas.svg").read_text().startswith("<?xml")


def test_the_naive_order_is_measured_where_the_machine_has_it(
    vitruvius: Command, quantized_file: Path
) -> None:
    """A model without experts on a machine with a router: that machine without it is RTL."""
    result = vitruvius("compare", quantized_file, "--json", "-")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    (row,) = (row for row in found["alone"] if row["peak_query_words"] > 1)
    assert (row["idea"], row["source"]) == ("attention order", "RTL")
    experts = load_machine("experts")
    buffers = experts.buffers.model_copy(update={"experts": 0})
    naive = experts.model_copy(update={"order": "naive", "buffers": buffers})
    program = compile_model(IntegerModel.load(quantized_file), naive)
    assert row["cycles"] == simulate(program).cycles


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no_such_model"], "no_such_model"),
        (["vit_digits", "--machine", "tiny"], "unknown machine 'tiny'"),
        (["vit_digits", "--out", "chart.svg"], "expected the name of a page, such as ideas.md"),
    ],
)
def test_what_a_user_can_get_wrong(
    arguments: list[str],
    text: str,
    refused: Refused,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One sentence, exit code 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    assert text in refused("compare", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_lacks_the_order(
    refused: Refused, quantized_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "naive.toml"
    shipped = Path(load_machine.__code__.co_filename).parent / "machines" / "small.toml"
    path.write_text(shipped.read_text().replace("rows = 4", 'rows = 4\norder = "naive"', 1))
    assert refused("compare", quantized_file, "--machine", path) == (
        "machine 'small': expected order reordered, the one of the ideas that the comparison takes "
        "away itself, got naive"
    )


def test_a_folder_is_no_page(refused: Refused, quantized_file: Path, tmp_path: Path) -> None:
    text = refused("compare", quantized_file, "--out", tmp_path)
    assert text == f"expected a file to write to, got the folder {tmp_path}"
