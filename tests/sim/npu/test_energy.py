"""Energy: the published figures, what lies between them, and a source for each."""

from __future__ import annotations

import pytest

from vitruvius.fpga_targets.energy import load_energy
from vitruvius.sim.npu.energy import bank_sizes, npu_energy, sram_access_j
from vitruvius.sim.npu.target import load_npu, npu_names


@pytest.mark.parametrize(("kib", "joules"), [(8, 10e-12), (32, 20e-12), (1024, 100e-12)])
def test_a_published_size_has_its_published_energy(kib: int, joules: float) -> None:
    assert sram_access_j(kib) == pytest.approx(joules)


def test_larger_memories_cost_more_also_beyond_the_table() -> None:
    sizes = (1, 8, 20, 32, 64, 256, 1024, 8192)
    energies = [sram_access_j(kib) for kib in sizes]
    assert energies == sorted(energies)
    assert energies[0] == energies[1]
    assert energies[-1] == pytest.approx(100e-12 * 8 ** (0.464386), rel=1e-3)


@pytest.mark.parametrize("name", npu_names())
def test_every_coefficient_says_where_it_comes_from(name: str) -> None:
    target = load_npu(name)
    table = npu_energy(target)
    for item in table.coefficients.values():
        assert item.value > 0
        assert item.source
        assert item.basis in ("published", "assumed")
    for buffer in bank_sizes(target):
        assert f"{buffer}_buffer_byte" in table.coefficients


def test_a_buffer_is_as_many_banks_as_it_feeds() -> None:
    """64 KiB of accumulators under 16 columns are banks of 4 KiB, under one column one of 64."""
    target = load_npu("edge16")
    column = target.model_copy(update={"array": target.array.model_copy(update={"cols": 1})})
    banked = npu_energy(target).action("output_buffer_byte")
    whole = npu_energy(column).action("output_buffer_byte")
    assert banked.value == pytest.approx(1.25e-12)
    assert whole.value == pytest.approx(sram_access_j(64) / 8)
    assert whole.value > 2 * banked.value


def test_figures_of_the_same_table_agree_with_the_fpgas() -> None:
    """Both files quote the same figure of Horowitz; the FPGA's carries its factors."""
    asic = npu_energy(load_npu("edge16"))
    fpga = load_energy()
    assert asic.action("alu").value == pytest.approx(fpga.action("add_int32").value / 14)
    assert asic.action("multiply").value == pytest.approx(
        fpga.action("multiply_int32").value / 7.1 + fpga.action("add_int32").value / 14
    )
    assert asic.action("mac").value == pytest.approx(0.3e-12)


def test_dram_goes_by_its_kind() -> None:
    per_byte = {name: npu_energy(load_npu(name)).action("dram_byte").value for name in npu_names()}
    assert per_byte["gemmini16"] == pytest.approx(8 * 70e-12)
    assert per_byte["edge16"] == pytest.approx(8 * 8e-12)
    assert per_byte["array128"] == pytest.approx(8 * 3.9e-12)


def test_wider_cells_cost_more_and_are_assumed() -> None:
    target = load_npu("edge16")
    wide = target.model_copy(update={"array": target.array.model_copy(update={"cell_bits": 16})})
    mac = npu_energy(wide).action("mac")
    assert mac.value == pytest.approx(4 * 0.3e-12)
    assert mac.basis == "assumed"
