"""The FPGA estimate: nothing is free, parts make the total, and each coefficient is named."""

from __future__ import annotations

import json

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.fpga_targets.device import load_device
from vitruvius.fpga_targets.energy import load_energy
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.sim.cycle import simulate
from vitruvius.sim.estimate import estimate_fpga


@pytest.fixture
def program(digits_model):
    return compile_model(digits_model, load_machine("small"))


def test_every_operator_has_a_cost_and_the_costs_make_the_total(program, digits_model):
    estimate = estimate_fpga("vit_digits", program, "fpga:zcu102")
    names = [row.name for row in estimate.operators]
    assert names[:-1] == [operator.name for operator in digits_model.operators]
    cycles = simulate(program, booted=True).cycles
    assert estimate.cycles == cycles == sum(row.cycles for row in estimate.operators)
    for row in estimate.operators:
        if row.macs:
            assert row.cycles == row.product_cycles + sum(row.lost.values())
            assert 0 < row.utilisation <= 1
    assert estimate.latency_s == pytest.approx(estimate.cycles / estimate.clock_hz)
    assert estimate.energy_j == pytest.approx(sum(row.energy_j for row in estimate.operators))
    free = [row.name for row in estimate.operators if row.energy_j == 0]
    assert free == ["norm.token0"]  # choosing a row is addressing
    assert all(row.source.startswith("simulated: ") for row in estimate.operators)


def test_energy_of_the_last_layer_by_hand(program):
    """head: 1 token, 10 outputs in 3 tiles of 4 columns, 16 words of 4: counted on paper."""
    estimate = estimate_fpga("vit_digits", program, "fpga:zcu102")
    head = next(row for row in estimate.operators if row.name == "head")
    price = {
        name: load_energy().action(name).value
        for name in ("mac_int8", "requantize", "sram_read_byte", "sram_write_byte", "dram_byte")
    }
    macs, outputs, words = 3 * 16 * 4 * 4, 12, 16
    fetched = 3 * 16 * 16  # the matrix, into the weight buffer
    read = (words + 3 * words) * 4 + 3 * words * 16 + 3 * 4 * 54 // 8
    written = words * 4 + 2 * outputs + fetched
    dynamic = (
        macs * price["mac_int8"]
        + outputs * price["requantize"]
        + read * price["sram_read_byte"]
        + written * price["sram_write_byte"]
        + fetched * price["dram_byte"]
    )
    static = load_device("zcu102").static_w * head.latency_s
    assert head.energy_j == pytest.approx(dynamic + static)
    assert head.macs == 640
    assert head.on_chip_bytes == read + written
    assert head.off_chip_bytes == fetched


def test_every_byte_of_the_port_is_at_an_operator(program):
    """Each weight once, four columns of padding in the head, the image, and ten logits in beats."""
    estimate = estimate_fpga("vit_digits", program, "fpga:zcu102")
    off_chip = {row.name: row.off_chip_bytes for row in estimate.operators if row.off_chip_bytes}
    assert sum(off_chip.values()) == sum(estimate.traffic_bytes.values())
    assert off_chip["blocks.2.mlp.fc1"] == 64 * 256
    assert off_chip["results"] == 24
    assert off_chip["images"] == 16 * 8  # a word of four pixels takes a beat of eight bytes


def test_a_port_that_is_too_narrow_is_a_warning(digits_model):
    large = load_machine("large")
    wide = large.model_copy(update={"port_bits": 512, "outstanding": 16})
    warned, fine = (
        estimate_fpga("vit_digits", compile_model(digits_model, item), "fpga:zcu102")
        for item in (large, wide)
    )
    assert "memory port of 128 bits" in warned.warnings[0]
    assert fine.cycles < 0.7 * warned.cycles


def test_every_coefficient_used_is_an_assumption_with_its_source(program):
    estimate = estimate_fpga("vit_digits", program, "fpga:kv260")
    texts = " ".join(assumption.text for assumption in estimate.assumptions)
    for name in (
        "mac_int8",
        "requantize",
        "gelu",
        "softmax_weight",
        "layernorm_element",
        "static_w",
    ):
        assert f"{name}: " in texts
    for assumption in estimate.assumptions:
        assert assumption.source.startswith(("published: ", "assumed: ", "formula: "))
    record = estimate.record()
    assert {"model", "target", "machine", "cycles", "latency_s", "energy_j", "operators"} <= set(
        record
    )
    json.dumps(record)


def test_targets_that_do_not_exist_or_do_not_fit(digits_model, program):
    with pytest.raises(VitruviusError, match="did you mean 'fpga:zcu102'"):
        estimate_fpga("vit_digits", program, "fpga:zcu12")
    large = compile_model(digits_model, load_machine("large"))
    with pytest.raises(VitruviusError, match="needs 1024 multipliers, ecp5-85f has 156"):
        estimate_fpga("vit_digits", large, "fpga:ecp5-85f")
