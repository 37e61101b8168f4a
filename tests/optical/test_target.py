"""Optical systems: the shipped ones, files of a user, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.optical import target as module
from vitruvius.optical.target import load_optical, optical_names, setting_values

SHIPPED = Path(module.__file__).parent / "systems"


def _file(folder: Path, *changes: tuple[str, str]) -> str:
    """4f-2mhz as a user's file, with texts replaced."""
    text = (SHIPPED / "4f-2mhz.toml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return f"optical:{path}"


def test_shipped_systems() -> None:
    assert optical_names() == [
        "4f-1mhz", "4f-2mhz", "4f-dmd", "4f-dmd-20khz", "4f-fatnet", "4f-readout",
    ]  # fmt: skip
    for name in optical_names():
        found = load_optical(f"optical:{name}")
        assert found.system.name == name
        assert all(len(text) > 15 for text in found.system.sources.values()), name
        assert found.npu.target == "npu:edge32"


def test_the_bench_needs_the_power_that_was_published() -> None:
    bench = load_optical("optical:4f-dmd").system
    assert bench.static_w == pytest.approx(17 + 2 * 6.3)
    assert not bench.pipelined
    # the camera's link is what its own 2 kHz need
    assert bench.pixels * bench.read_bits * 2000 == pytest.approx(bench.read_bits_per_s, rel=2e-3)


def test_a_file_of_the_user(tmp_path: Path) -> None:
    found = load_optical(_file(tmp_path, ("rows = 2160", "rows = 512")))
    assert (found.system.name, found.system.rows) == ("mine", 512)


def test_choices_replace_figures_and_say_who_says_so() -> None:
    found = load_optical(
        "optical:4f-2mhz",
        [
            "scheme=reference,photons=100",
            "timing=serial,map=conv+scores,batch=7,electronics=edge16",
        ],
    )
    assert (found.system.scheme, found.system.photons) == ("reference", 100.0)
    assert not found.system.pipelined
    assert found.system.sources["photons"] == "assumed: given by the user"
    assert found.system.sources["rows"].startswith("assumed: the short side")
    assert (found.settings.map, found.settings.batch) == (("conv", "scores"), 7)
    assert found.npu.target == "npu:edge16"
    assert load_optical("optical:4f-2mhz", ["map=none"]).settings.map == ()


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("optical:4f-2mh", r"unknown target 'optical:4f-2mh': did you mean 'optical:4f-2mhz'"),
        ("optical:", r"unknown target 'optical:': .*known: .*optical:4f-readout.*FILE\.toml"),
        ("optical:gone.toml", r"optical system gone\.toml cannot be read: No such file"),
    ],
)
def test_unknown_systems(spec: str, text: str) -> None:
    with pytest.raises(VitruviusError, match=text):
        load_optical(spec)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("input_panel_s = 5e-7", "input_panel_s = -1"), "input_panel_s: expected a number from 0"),
        (("photons = 1e4", "photons = -5"), r"photons: expected a number above 0 .* got -5"),
        (("rows = 2160", "rows = 33"), "rows: expected an even number from 2 to 65536, got 33"),
        (("photons = 1e4", "photon = 1e4"), r"photons: missing.*photon: no such field, did you"),
        (('scheme = "split"', 'scheme = "splits"'), "scheme: expected split, intensity, offset"),
        (('wall_plug = "published', 'wall_plug = "rumour'), "wall_plug must begin with 'published"),
        (("read_bits_per_s = inf", "read_bits_per_s = 0"), "read_bits_per_s: expected a number ab"),
        (("wavelength_m = 532e-9", "wavelength_m = nan"), "wavelength_m: expected a number above"),
    ],
)
def test_bad_figures_of_a_file(tmp_path: Path, change: tuple[str, str], text: str) -> None:
    with pytest.raises(VitruviusError, match=text) as raised:
        load_optical(_file(tmp_path, change))
    assert str(raised.value).startswith("optical system ")
    assert "mine.toml" in str(raised.value)


def test_all_bad_figures_are_named_at_once(tmp_path: Path) -> None:
    spec = _file(tmp_path, ("photons = 1e4", "photons = 0"), ("cols = 2160", "cols = 1"))
    with pytest.raises(VitruviusError, match=r"cols: expected .*; photons: expected"):
        load_optical(spec)


def test_a_system_that_never_takes_time_is_refused(tmp_path: Path) -> None:
    none = [(f"{name}_s = 5e-7", f"{name}_s = 0") for name in ("input_panel", "filter_panel")]
    with pytest.raises(VitruviusError, match="exposure_s: one must be above 0"):
        load_optical(_file(tmp_path, *none, ("exposure_s = 5e-7", "exposure_s = 0")))


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ("tile=input", r"no setting 'tile', did you mean 'tiling'\? known: adc_j, batch, cols, "),
        ("tiling", "expected KEY=VALUE, got 'tiling'"),
        ("tiling=", "expected KEY=VALUE, got 'tiling='"),
        ("tiling=most", "tiling: expected none, input, kernel, channel, mixed, auto, got 'most'"),
        ("batch=0", "batch: expected a whole number from 1 to 1e.07, got '0'"),
        ("batch=2.5", "batch: expected a whole number"),
        ("photons=-1", "photons: expected a number above 0 to 1e.12, got '-1'"),
        ("map=conv+lin", r"map: expected conv, linear, scores with \+ between them, or none"),
        ("timing=both", "timing: expected pipelined or serial, got 'both'"),
        ("rows=64,rows=32", "rows is given more than once"),
        ("pipelined=true", "no setting 'pipelined'"),
        ("sources=x", "no setting 'sources'"),
        ("electronics=fpga:zcu102", "electronics of optical:4f-2mhz: unknown target 'fpga:zcu102'"),
    ],
)
def test_bad_choices(choice: str, text: str) -> None:
    with pytest.raises(VitruviusError, match=text):
        load_optical("optical:4f-2mhz", [choice])


def test_every_setting_says_what_it_takes() -> None:
    values = setting_values()
    assert values["timing"] == "pipelined or serial"
    assert values["read"] == "frame, results"
    assert all(values.values())
