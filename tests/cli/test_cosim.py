"""cosim, estimate and demo: the keys others build on, and the exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import Result

from vitruvius.hwgen.axi.memory_model import DEFAULT_MEMORY, MemoryModel
from vitruvius.hwgen.core.program import Program
from vitruvius.sim.cosim import CosimReport, Mismatch, Progress
from vitruvius.sim.cycle import simulate

COSIM_KEYS = {
    "model", "machine", "engine", "images", "bit_exact_images", "predicted_cycles", "rtl_cycles",
    "cycles_per_s", "build_s", "wall_s",
}  # fmt: skip
ESTIMATE_KEYS = {"model", "target", "machine", "cycles", "latency_s", "energy_j", "operators"}


def golden_cosim(
    program: Program,
    images: Tensor,
    *,
    engine: str = "native",
    memory: MemoryModel = DEFAULT_MEMORY,
    progress: Callable[[Progress], None] | None = None,
    **_: object,
) -> CosimReport:
    """A co-simulation that finds what it should, without a simulator."""
    if progress is not None:
        progress(Progress("build", len(images), 0, 0.0, ""))
        progress(Progress("simulate", len(images), 1000, 1e5, "head"))
    report = simulate(program, images=len(images), memory=memory)
    return CosimReport(
        model=program.model.name,
        machine=program.machine.name,
        engine=engine,
        memory=memory,
        timed=True,
        images=len(images),
        bit_exact_images=len(images),
        cycles=report.cycles,
        predicted_cycles=report.image_cycles,
        rtl_cycles=report.image_cycles,
        counters={name: (value, value) for name, value in report.counters.items()},
        cycles_per_s=1e5,
        build_s=2.0,
        wall_s=3.0,
        logits=program.model.run(images).tolist(),
        tensors_compared=9 * len(images),
        mismatches=(),
    )


@pytest.fixture
def without_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitruvius.sim.cosim.cosimulate", golden_cosim)


@pytest.mark.usefixtures("without_simulator")
def test_cosim_json(vitruvius: Callable[..., Result], quantized_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    options = ["--images", "4", "--engine", "cocotb", "--json", str(path)]
    result = vitruvius("cosim", quantized_file, *options)
    assert result.exit_code == 0, result.output
    record = json.loads(path.read_text())
    assert record.keys() >= COSIM_KEYS
    assert (record["model"], record["machine"]) == ("vit_digits", "small")
    assert (record["engine"], record["images"], record["bit_exact_images"]) == ("cocotb", 4, 4)
    assert record["predicted_cycles"] == record["rtl_cycles"]
    assert len(record["rtl_cycles"]) == 4
    assert sum(record["rtl_cycles"]) == record["cycles"] == record["counters"]["CYCLES"]["measured"]
    assert record["memory"] == {"latency": 100, "gap": 0, "outstanding": 16}
    assert "4 of 4 images bit-exact, predicted cycles equal" in result.stdout


def _wrong_bit(report: CosimReport) -> CosimReport:
    wrong = Mismatch(1, "blocks.0.add", 3, 5, 17, 18, 1)
    return replace(report, bit_exact_images=report.images - 1, mismatches=(wrong,))


def _late(report: CosimReport) -> CosimReport:
    return replace(report, rtl_cycles=[cycles + 1 for cycles in report.rtl_cycles])


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (_wrong_bit, "1 of 2 images bit-exact, predicted cycles equal"),
        (_late, "2 of 2 images bit-exact, predicted cycles differ"),
    ],
)
def test_cosim_disagreement_ends_with_1(
    spoil: Callable[[CosimReport], CosimReport],
    text: str,
    vitruvius: Callable[..., Result],
    quantized_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoilt(program: Program, images: Tensor, **options: object) -> CosimReport:
        return spoil(golden_cosim(program, images))

    monkeypatch.setattr("vitruvius.sim.cosim.cosimulate", spoilt)
    path = tmp_path / "c.json"
    result = vitruvius("cosim", quantized_file, "--images", "2", "--json", path)
    assert result.exit_code == 1
    assert text in result.stdout
    record = json.loads(path.read_text())
    assert [item["tensor"] for item in record["mismatches"]] == (
        ["blocks.0.add"] if spoil is _wrong_bit else []
    )
    assert spoil is not _wrong_bit or "blocks.0.add" in result.stdout


def test_a_slower_memory_is_an_assumption_that_costs_cycles(
    vitruvius: Callable[..., Result], quantized_file: Path, tmp_path: Path
) -> None:
    cycles = []
    for options in ([], ["--latency", "900", "--gap", "2", "--outstanding", "1"]):
        path = tmp_path / "e.json"
        result = vitruvius("estimate", quantized_file, *options, "--json", path)
        assert result.exit_code == 0, result.output
        (record,) = json.loads(path.read_text())
        cycles.append(record["cycles"])
        texts = [item["text"] for item in record["assumptions"]]
    assert cycles[1] > 1.2 * cycles[0]
    assert any("answered after 900 cycles, 2 idle" in text for text in texts)
    assert "warning: products wait" in result.stdout
    assert "slower than the array" in record["warnings"][0]


def test_estimate_json(
    vitruvius: Callable[..., Result], quantized_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "e.json"
    targets = ["--on", "fpga:zcu102", "--on", "fpga:ecp5-85f"]
    result = vitruvius("estimate", quantized_file, *targets, "--json", path)
    assert result.exit_code == 0, result.output
    first, second = json.loads(path.read_text())
    assert (first["target"], second["target"]) == ("fpga:zcu102", "fpga:ecp5-85f")
    for record in (first, second):
        assert record.keys() >= ESTIMATE_KEYS
        assert (record["model"], record["machine"]) == ("vit_digits", "small")
        parts = record["operators"]
        assert sum(part["cycles"] for part in parts) == record["cycles"]
        assert sum(part["energy_j"] for part in parts) == pytest.approx(record["energy_j"])
        assert record["latency_s"] == pytest.approx(record["cycles"] / record["clock_hz"])
        assert all(part["source"] for part in parts)
        assert all(item["source"] for item in record["assumptions"])
    assert "vit_digits on fpga:zcu102, machine small" in result.stdout


@pytest.mark.usefixtures("without_simulator")
def test_demo_writes_the_page(vitruvius: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = vitruvius("demo", "--out", out, "--images", "3", "--json", tmp_path / "d.json")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "d.json").read_text())
    assert record["cosim"].keys() >= COSIM_KEYS
    assert record["estimate"].keys() >= ESTIMATE_KEYS
    # An image alone, with everything loaded: less than the first of a run, more than the others.
    first, second, _ = record["cosim"]["rtl_cycles"]
    assert first > record["estimate"]["cycles"] > second
    assert record["integer_accuracy"] >= record["float_accuracy"] - 0.005
    page = (out / "report.html").read_text()
    assert "3 of 3 images bit-exact, predicted cycles equal" in page
    assert "3 of 3 images bit-exact, predicted cycles equal" in result.stdout
    assert (out / "verilog" / "vitruvius.v").is_file()
    assert (out / "vit_digits.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["native", "cocotb"])
def test_cosim_of_real_digits(
    engine: str, vitruvius: Callable[..., Result], quantized_file: Path, tmp_path: Path
) -> None:
    """The real thing: generated Verilog, Verilator, every logit and block boundary."""
    path = tmp_path / "c.json"
    options = ["--images", "3", "--engine", engine, "--json", str(path)]
    result = vitruvius("cosim", quantized_file, *options)
    assert result.exit_code == 0, result.output
    record = json.loads(path.read_text())
    assert record["bit_exact_images"] == 3
    assert record["predicted_cycles"] == record["rtl_cycles"]
    assert len(torch.tensor(record["logits"]).unique()) > 10
