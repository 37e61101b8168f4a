"""Devices as a user gives them: every mistake is one sentence."""

from __future__ import annotations

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.optical.options import DeviceOptions

BAD = {
    "negative photons": ({"photons": -5.0}, "photons: expected a number above 0, got -5"),
    "no photons": ({"photons": 0.0}, "photons: expected a number above 0, got 0"),
    "infinite photons": ({"photons": float("inf")}, "photons: expected a number above 0"),
    "no bits": ({"panel_bits": 0}, "panel_bits: expected 1 to 24 bits, got 0"),
    "negative noise": (
        {"photons": 1e3, "read_noise_e": -1.0},
        "camera: read_noise_e must not be negative, got -1",
    ),
    "an unknown scheme": ({"scheme": "magic"}, "scheme: expected split, intensity"),
    "an odd plane": ({"plane": 63}, "plane: expected an even number of samples, got 63"),
    "a shift to nowhere": ({"mask_shift": (float("nan"), 0.0)}, "mask_shift: expected finite"),
}


@pytest.mark.parametrize(("values", "reason"), BAD.values(), ids=BAD)
def test_mistakes(values: dict[str, object], reason: str) -> None:
    with pytest.raises(VitruviusError) as error:
        DeviceOptions.of(**values)
    assert reason in str(error.value)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(VitruviusError, match=r"photons.*; .*panel_bits|panel_bits.*; .*photons"):
        DeviceOptions.of(photons=-1.0, panel_bits=99)


def test_bits_are_levels_of_both_panels() -> None:
    bench = DeviceOptions(photons=100.0, read_noise_e=3.0, panel_bits=6, adc_bits=10).bench((4, 6))
    levels = (bench.input_levels, bench.mask_amplitude_levels, bench.mask_phase_levels)
    assert (bench.size, levels, bench.camera.adc_bits) == ((4, 6), (64, 64, 64), 10)
    assert (bench.camera.photons, bench.camera.read_noise_e) == (100.0, 3.0)


def test_ideal_is_a_matter_of_devices_not_of_schemes_and_planes() -> None:
    assert DeviceOptions(scheme="reference", plane=64).ideal
    assert not DeviceOptions(adc_bits=12).ideal
    assert not DeviceOptions(camera_shift=(0.1, 0.0)).ideal
