"""NPU files: what is shipped, and what a user gets wrong."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.sim.npu import target as module
from vitruvius.sim.npu.target import NpuTarget, load_npu, npu_names, with_array, with_precision

SHIPPED = Path(module.__file__).parent / "targets"
NAMES = ["array128", "edge16", "edge32", "gemmini16", "sa8295p"]


def written(folder: Path, old: str, new: str, name: str = "edge16") -> str:
    """The shipped file with one line changed."""
    text = (SHIPPED / f"{name}.toml").read_text(encoding="utf-8")
    assert text.count(old) >= 1, old
    path = folder / "mine.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return str(path)


def test_all_shipped_targets_load_and_carry_their_file_name() -> None:
    assert npu_names() == NAMES
    assert [load_npu(name).name for name in NAMES] == NAMES
    assert [load_npu(f"npu:{name}").target for name in NAMES] == [f"npu:{name}" for name in NAMES]


def test_a_file_of_ones_own_is_loaded(tmp_path: Path) -> None:
    path = written(tmp_path, 'name = "edge16"', 'name = "mine"')
    assert load_npu(path).target == load_npu(f"npu:{path}").target == "npu:mine"


def test_gemminis_sizes_are_those_of_its_default_configuration() -> None:
    target = load_npu("gemmini16")
    assert (target.array.rows, target.array.cols, target.array.dataflow) == (16, 16, "ws")
    assert target.buffers.operand_halves[2] == 128 * 1024
    assert target.buffers.output_half == 32 * 1024
    assert target.dram_bytes_per_cycle == 8.0


def test_everything_unknown_of_the_sa8295p_is_marked() -> None:
    sources = load_npu("sa8295p").sources
    for field in ("array", "buffers", "dram.efficiency", "vector.interval", "vector.latency"):
        assert sources[field].startswith("assumed: ")
    peak = 2 * 104 * 104 * 1.4e9
    assert peak == pytest.approx(30e12, rel=0.02)  # the rate that is published


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("rows = 16", "rows = 0", "array.rows: expected a whole number from 1 to 1,024, got 0"),
        ("rows = 16", 'rows = "a"', "array.rows: expected a whole number from 1 to 1,024, got 'a'"),
        ("rows = 16", "row = 16", "array.row: no such field, did you mean 'rows'?"),
        ("rows = 16\n", "", "array.rows: missing, expected a whole number from 1 to 1,024"),
        (
            'dataflow = "best"',
            'dataflow = "rs"',
            "array.dataflow: expected one of ws, os, is, best, got 'rs'",
        ),
        (
            "efficiency = 0.75",
            "efficiency = 1.5",
            "dram.efficiency: expected a number, more than 0 and at most 1, got 1.5",
        ),
        (
            'kind = "lpddr4"',
            'kind = "sram"',
            "dram.kind: expected one of lpddr4, ddr3, gddr5, hbm2, got 'sram'",
        ),
        ("exp = 2", "exp = 0", "vector.interval.exp: expected a whole number from 1 to 256, got 0"),
        ("fused = true", "fused = 3", "vector.fused: expected true or false, got 3"),
        ("[vector.latency]", "[vector.delay]", "vector.delay: no such field, did you mean"),
        ("weight = 8", "weight = 65", "widths.weight: expected a whole number from 1 to 64, got"),
        (
            "input_kib = 64",
            "scratchpad_kib = 64",
            "buffers: expected input_kib and weight_kib, or scratchpad_kib for both, got "
            "scratchpad_kib, weight_kib",
        ),
        ("clock_hz = 500e6", "clock_hz = -1", "clock_hz: expected a number, more than 0"),
        (
            'clock_hz = "assumed:',
            'clock_hz = "somebody said:',
            "sources: clock_hz must begin with 'published: ' or 'assumed: '",
        ),
        ('"array" = ', '"arrays" = ', "sources: none for array.rows, array.cols"),
        ("[sources]", '[sources]\nspeed = "assumed: x"', "sources: speed is no field"),
    ],
)
def test_a_wrong_field_is_named_with_its_range(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    path = written(tmp_path, old, new)
    with pytest.raises(VitruviusError, match=re.escape(f"NPU file {path}: ")) as error:
        load_npu(path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("input_kib = 128", "input_kib = 3", "buffers.input_kib: half of it, 1536 bytes, does not"),
        ("weight_kib = 128", "weight_kib = 1", "the smallest tile, 32 x 32 weights in 1024 bytes"),
        (
            "output_kib = 128",
            "output_kib = 7",
            "32 x 32 sums in 4096 bytes; expected at least 8 Ki",
        ),
        ("rows = 32", "rows = 1024", "buffers.output_kib: half of it, 65536 bytes, does not hold"),
    ],
)
def test_a_buffer_smaller_than_a_tile_is_named(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    """Inputs may be softmax outputs of 16 bits."""
    with pytest.raises(VitruviusError) as error:
        load_npu(written(tmp_path, old, new, "edge32"))
    assert told in str(error.value)


def test_a_buffer_of_exactly_two_tiles_is_enough(tmp_path: Path) -> None:
    path = written(tmp_path, "output_kib = 128", "output_kib = 8", "edge32")
    assert load_npu(path).buffers.output_half == 4096


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "rows = 16\ncols = 16", "rows = 0\ncols = 0")
    with pytest.raises(VitruviusError, match=r"array\.rows: .*; array\.cols: "):
        load_npu(path)


@pytest.mark.parametrize("spec", ["edge17", "npu:edge17", "fpga:edge16", ""])
def test_an_unknown_target_is_answered_with_the_known_ones(spec: str) -> None:
    with pytest.raises(VitruviusError, match=r"unknown target .*npu:array128, npu:edge16"):
        load_npu(spec)


@pytest.mark.parametrize("text", [None, "not [ toml", b"\xff\xfe"])
def test_an_unreadable_file_is_named(tmp_path: Path, text: str | bytes | None) -> None:
    path = tmp_path / "mine.toml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(VitruviusError, match=f"NPU file {re.escape(str(path))} cannot be read"):
        load_npu(str(path))


def test_another_array_is_marked_as_given() -> None:
    target = with_array(load_npu("edge16"), 8, 4, "os")
    assert (target.array.rows, target.array.cols, target.array.dataflow) == (8, 4, "os")
    assert target.sources["array.rows"] == "assumed: given by the user"
    assert target.name == "edge16-8x4"


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_a_file_has_a_source(name: str) -> None:
    """The check itself, by taking each source away in turn."""
    fields = tomllib.loads((SHIPPED / f"{name}.toml").read_text(encoding="utf-8"))
    for path in fields["sources"]:
        less = {key: text for key, text in fields["sources"].items() if key != path}
        covered = any(path.startswith(f"{other}.") for other in less)
        if covered:
            NpuTarget.model_validate(fields | {"sources": less})
        else:
            with pytest.raises(ValueError, match="sources: none for"):
                NpuTarget.model_validate(fields | {"sources": less})


def test_a_precision_replaces_the_widths_and_says_so() -> None:
    target = with_precision(load_npu("sa8295p"), "w4a16g32")
    widths = target.widths
    assert (widths.weight, widths.activation, widths.probability, widths.residual) == (
        4,
        16,
        16,
        16,
    )
    # 64 weights of 4 bits and two scales of 16: scales left out would give 32
    assert widths.weight_bytes(1, 64) == 32 + 4
    assert with_precision(load_npu("edge16"), "w8a8").widths.weight_bytes(2, 64) == 2 * 64 + 2 * 2
    assert target.sources["widths.weight"].startswith("assumed: ")
    # two passes of 8-bit cells for 16-bit activations, none more for 4-bit weights
    assert target.passes(widths.activation, widths.weight) == 2


@pytest.mark.parametrize("text", ["w3a16", "w4", "a16w4", "w16a16", "w4a16g", "W4A16", "", "w4a12"])
def test_widths_that_are_not_defined_are_refused(text: str) -> None:
    with pytest.raises(VitruviusError, match=f"precision '{text}' is not defined: expected w4a8"):
        with_precision(load_npu("edge16"), text)


def test_a_group_that_is_not_defined_is_refused() -> None:
    with pytest.raises(VitruviusError, match="a group of 16, 32, 64, 128, 256 weights, got 5"):
        with_precision(load_npu("edge16"), "w4a16g5")
