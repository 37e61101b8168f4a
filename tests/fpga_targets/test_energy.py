"""The energy table against the figures it cites."""

from __future__ import annotations

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.fpga_targets.device import device_names, load_device
from vitruvius.fpga_targets.energy import load_energy

PJ = 1e-12


@pytest.mark.parametrize(
    ("action", "energy_j"),
    [
        # Horowitz, ISSCC 2014, figure 1.1.9 (45 nm), times 14 for fabric and 7.1 for hard blocks.
        ("add_int8", 0.03 * 14 * PJ),
        ("add_int32", 0.1 * 14 * PJ),
        ("multiply_int8", 0.2 * 7.1 * PJ),
        ("multiply_int32", 3.1 * 7.1 * PJ),
        ("sram_read_byte", 10 / 8 * 7.1 * PJ),
        ("sram_write_byte", 10 / 8 * 7.1 * PJ),
        ("dram_byte", (1300 + 2600) / 2 / 8 * PJ),
        # The written formulas, worked out by hand.
        ("mac_int8", 2.82 * PJ),
        ("requantize", 24.81 * PJ),
        ("softmax_weight", (3 * 1.4 + 8.875) * PJ),
        ("layernorm_element", (4 * 22.01 + 6 * 1.4) * PJ),
        ("gelu", (22.01 + 4 * 1.4 + 4 * 8.875) * PJ),
    ],
)
def test_energy_per_action(action: str, energy_j: float) -> None:
    coefficient = load_energy().action(action)
    assert coefficient.value == pytest.approx(energy_j, rel=1e-12)
    assert coefficient.unit == "J"


def test_every_coefficient_names_its_source() -> None:
    table = load_energy(load_device("zcu102"))
    primitives = {"add", "multiply", "sram", "dram", "static"}
    for name, coefficient in table.coefficients.items():
        assert coefficient.name == name
        if name.split("_")[0] in primitives:
            assert "published: " in coefficient.source or "assumed: " in coefficient.source
        else:
            parts = [part.split(" x ")[1] for part in coefficient.source.split(":")[0].split(" + ")]
            assert parts
            assert all(part in table.coefficients for part in parts)


def test_one_assumed_part_makes_the_whole_assumed() -> None:
    table = load_energy()
    assert table.action("add_int32").basis == "published"
    assert table.action("dram_byte").basis == "published"
    assert table.action("multiply_int8").basis == "assumed"  # the factor of hard blocks is
    assert table.action("mac_int8").basis == "assumed"


@pytest.mark.parametrize("name", device_names())
def test_static_power_is_the_devices(name: str) -> None:
    device = load_device(name)
    static = load_energy(device).action("static_w")
    assert (static.value, static.unit) == (device.static_w, "W")
    assert device.sources["static_w"] in static.source


def test_static_power_needs_a_device() -> None:
    with pytest.raises(VitruviusError, match="no energy is known for the action 'static_w'"):
        load_energy().action("static_w")


def test_an_unknown_action_is_answered_with_the_nearest() -> None:
    with pytest.raises(VitruviusError, match="'mac_int16': did you mean 'mac_int8'"):
        load_energy().action("mac_int16")
