"""Devices against the vendors' tables, and files that a user gets wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.fpga_targets import device as module
from vitruvius.fpga_targets.device import Device, device_names, load_device, load_target

SHIPPED = Path(module.__file__).parent / "devices"


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        # DS891, DS987 and FPGA-DS-02012: LUT, FF, multiplier blocks, block memories, UltraRAM.
        ("zcu102", (274_080, 548_160, 2_520, 912, 0)),
        ("kv260", (117_120, 234_240, 1_248, 144, 64)),
        ("ecp5-85f", (83_640, 83_640, 156, 208, 0)),
    ],
)
def test_counts_are_the_data_sheets(name: str, counts: tuple[int, ...]) -> None:
    device = load_target(f"fpga:{name}")
    assert (device.lut, device.ff, device.dsp, device.bram, device.uram) == counts
    assert device.target == f"fpga:{name}"


def test_all_shipped_devices_load_and_carry_their_file_name() -> None:
    assert device_names() == ["ecp5-85f", "kv260", "zcu102"]
    assert [load_device(name).name for name in device_names()] == device_names()


@pytest.mark.parametrize("name", device_names())
def test_every_number_in_a_file_has_a_source(name: str) -> None:
    fields = tomllib.loads((SHIPPED / f"{name}.toml").read_text(encoding="utf-8"))
    sources = fields.pop("sources")
    numbers = {key for key, value in fields.items() if not isinstance(value, str)}
    assert numbers == set(sources)
    assert all(text.startswith(("published: ", "assumed: ")) for text in sources.values())


def test_onchip_bytes_leave_the_parity_bits_out() -> None:
    # KV260: 144 blocks of 4 KiB and 64 of 32 KiB; ECP5-85F: 208 blocks of 2 KiB.
    assert load_device("kv260").onchip_bytes == 144 * 4096 + 64 * 32768
    assert load_device("ecp5-85f").onchip_bytes == 208 * 2048


def test_memory_rate_is_width_times_transfers() -> None:
    memory = load_device("kv260").memory
    assert memory is not None
    assert memory.bytes_per_s == pytest.approx(2400e6 * memory.width_bits / 8)
    assert load_device("ecp5-85f").memory is None


@pytest.mark.parametrize("spec", ["fpga:zcu12", "zcu102", "fpga:ZCU102", "gpu:zcu102", ""])
def test_an_unknown_target_is_answered_with_the_known_ones(spec: str) -> None:
    with pytest.raises(VitruviusError, match=r"unknown target .*fpga:zcu102") as caught:
        load_target(spec)
    assert "\n" not in str(caught.value)


def test_the_nearest_target_comes_first() -> None:
    with pytest.raises(VitruviusError, match="did you mean 'fpga:zcu102'"):
        load_target("fpga:zcu12")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("lut = 0", "lut: Input should be greater than 0"),
        ("dsp = 1.5", "dsp: Input should be a valid integer"),
        ("family = 'virtex-2'", "family: Input should be 'ultrascale"),
        ("colour = 'red'", "colour: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: str, complaint: str) -> None:
    field = change.split(" =", maxsplit=1)[0]
    lines = (SHIPPED / "kv260.toml").read_text(encoding="utf-8").splitlines()
    head = lines.index("[memory]")
    kept = [line for line in lines[:head] if not line.startswith(f"{field} =")]
    path = tmp_path / "board.toml"
    path.write_text("\n".join([*kept, change, *lines[head:]]), encoding="utf-8")
    with pytest.raises(VitruviusError, match=complaint):
        load_target(f"fpga:{path}")


@pytest.mark.parametrize(
    ("line", "replacement", "complaint"),
    [
        ("uram = ", "", "no source for uram"),
        ("uram = ", 'uramm = "published: x"', "no source for uram"),
        ("uram = ", 'uram = "somebody said"', "uram must begin with"),
    ],
)
def test_a_number_without_a_source_is_refused(
    tmp_path: Path, line: str, replacement: str, complaint: str
) -> None:
    lines = (SHIPPED / "kv260.toml").read_text(encoding="utf-8").splitlines()
    at = next(n for n in range(lines.index("[sources]"), len(lines)) if lines[n].startswith(line))
    path = tmp_path / "board.toml"
    path.write_text("\n".join([*lines[:at], replacement, *lines[at + 1 :]]), encoding="utf-8")
    with pytest.raises(VitruviusError, match=complaint):
        load_device(str(path))


def test_a_source_for_what_is_not_there_is_refused() -> None:
    fields = load_device("ecp5-85f").model_dump()
    fields["sources"]["memory"] = "published: none"
    with pytest.raises(ValueError, match="a source for memory"):
        Device.model_validate(fields)


@pytest.mark.parametrize("content", [None, b"lut = ", b"\xff\xfe"])
def test_an_unreadable_file_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "board.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VitruviusError, match=r"board\.toml cannot be read"):
        load_target(f"fpga:{path}")
