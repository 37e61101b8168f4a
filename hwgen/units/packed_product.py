"""Two int8 products in one DSP48E2: the words of two rows side by side, times the word they share.

``(high * 2**18 + low) * right = (high * right) * 2**18 + low * right`` is one 27 x 18 bit multiply.
The lower product is signed: where it is negative the upper field reads one too small. With 2**17
added beforehand the lower field is never negative, and the fields come apart with wires only.

How many products may be added before the fields must come apart: with left operands from -128 to
255 and ``right`` from -128 to 127 a product lies from -32640 (255 * -128) to 32385 (255 * 127).
The lower field holds -2**17 to 2**17 - 1, and 131072 / 32640 = 4.02: four. (A field of 19 bits
would hold eight, but 19 + 9 bits do not enter a multiplier of 27.)
"""

from __future__ import annotations

from amaranth.hdl import C, ClockSignal, Instance, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = [
    "FIELD_BITS",
    "PRIMITIVE_MACRO",
    "PRODUCT_MODULE",
    "PRODUCT_VERILOG",
    "SUMMED",
    "PackedDot",
    "hard_multipliers",
]

FIELD_BITS = 18
"""Bits from the lower field to the upper one: what 9 bits leave of the multiplier's 27."""

_LOWEST, _HIGHEST = 255 * -128, 255 * 127

SUMMED = min((1 << FIELD_BITS - 1) // -_LOWEST, ((1 << FIELD_BITS - 1) - 1) // _HIGHEST)
"""Packed products whose sum keeps both fields apart: 4."""

PRODUCT_MODULE = "vitruvius_packed_product"
PRIMITIVE_MACRO = "VITRUVIUS_DSP48E2"
"""Verilog macro under which the product is a DSP48E2 by name; without it, the same in operators."""

# One packed product: registers behind the pre-adder and behind the multiplier, then an adder,
# and a register behind it where REGISTER is set. The modes: AMD UG579, INMODE with A2 and D added,
# OPMODE with X and Y from the multiplier and Z from PCIN or C, ALUMODE Z + X + Y.
PRODUCT_VERILOG = f"""
module {PRODUCT_MODULE} #(
  parameter CASCADE = 0,
  parameter REGISTER = 0
) (
  input clk,
  input signed [8:0] high,
  input signed [8:0] low,
  input signed [7:0] right,
  input [47:0] cascade,
  output [47:0] onward,
  output [47:0] sum
);
  localparam [47:0] HALF = 48'd{1 << FIELD_BITS - 1};
`ifdef {PRIMITIVE_MACRO}
  DSP48E2 #(
    .AREG(0), .ACASCREG(0), .DREG(0), .ADREG(1), .BREG(1), .BCASCREG(1), .CREG(0),
    .MREG(1), .PREG(REGISTER), .INMODEREG(0), .OPMODEREG(0), .ALUMODEREG(0),
    .CARRYINREG(0), .CARRYINSELREG(0),
    .AMULTSEL("AD"), .BMULTSEL("B"), .PREADDINSEL("A"), .USE_MULT("MULTIPLY"), .USE_SIMD("ONE48")
  ) dsp (
    .CLK(clk),
    .A({{{{3{{high[8]}}}}, high, {FIELD_BITS}'b0}}),
    .D({{{{18{{low[8]}}}}, low}}),
    .B({{{{10{{right[7]}}}}, right}}),
    .C(HALF),
    .PCIN(cascade), .PCOUT(onward), .P(sum),
    .INMODE(5'b00100), .OPMODE(CASCADE ? 9'b000010101 : 9'b000110101), .ALUMODE(4'b0000),
    .CARRYIN(1'b0), .CARRYINSEL(3'b000),
    .ACIN(30'b0), .BCIN(18'b0), .CARRYCASCIN(1'b0), .MULTSIGNIN(1'b0),
    .CEA1(1'b0), .CEA2(1'b0), .CEAD(1'b1), .CEB1(1'b0), .CEB2(1'b1), .CEC(1'b0), .CED(1'b0),
    .CEM(1'b1), .CEP(1'b1), .CECTRL(1'b0), .CEALUMODE(1'b0), .CEINMODE(1'b0), .CECARRYIN(1'b0),
    .RSTA(1'b0), .RSTB(1'b0), .RSTC(1'b0), .RSTD(1'b0), .RSTM(1'b0), .RSTP(1'b0),
    .RSTCTRL(1'b0), .RSTALUMODE(1'b0), .RSTINMODE(1'b0), .RSTALLCARRYIN(1'b0)
  );
`else
  reg signed [26:0] left;
  reg signed [7:0] shared;
  reg signed [34:0] product;
  always @(posedge clk) begin
    left <= $signed({{high, {FIELD_BITS}'b0}}) + low;
    shared <= right;
    product <= left * shared;
  end
  wire signed [{2 * FIELD_BITS - 1}:0] partial_sum = product + $signed(
    CASCADE != 0 ? cascade[{2 * FIELD_BITS - 1}:0] : HALF[{2 * FIELD_BITS - 1}:0]
  );
  wire signed [47:0] total = {{
    {{{48 - 2 * FIELD_BITS}{{partial_sum[{2 * FIELD_BITS - 1}]}}}}, partial_sum
  }};
  generate
    if (REGISTER != 0) begin : registered
      reg [47:0] kept;
      always @(posedge clk) kept <= total;
      assign sum = kept;
    end else begin : direct
      assign sum = total;
    end
  endgenerate
  assign onward = sum;
`endif
endmodule
"""


def hard_multipliers(*, rows: int, cols: int, depth: int) -> int:
    """DSP48E2 that a packed array takes: two rows share one, the last of an odd number has its own.

    >>> hard_multipliers(rows=3, cols=5, depth=7)
    70
    """
    return -(-rows // 2) * cols * depth


class PackedDot(wiring.Component):
    """Sums of up to four products of two left operands with one right operand, a DSP48E2 per lane.

    The results of the operands in cycle t stand at the outputs in cycle t + ``LATENCY``: registers
    behind the pre-adder, the multipliers and the chain of adders, all inside the DSPs. There is no
    reset and no flow control.

    Parameters
    ----------
    lanes : products summed, 1 to `SUMMED`.

    Members
    -------
    high, low : In, ``lanes`` signed 9-bit from -128 to 255
    right : In, ``lanes`` signed 8-bit
    high_sum, low_sum : Out, signed 18-bit, sums of ``high * right`` and of ``low * right``

    Raises
    ------
    ValueError
        More lanes than the fields hold, or none.
    """

    LATENCY = 3

    def __init__(self, *, lanes: int) -> None:
        if not 1 <= lanes <= SUMMED:
            raise ValueError(f"lanes: expected 1 to {SUMMED}, got {lanes}")
        self.lanes = lanes
        super().__init__(
            {
                "high": In(data.ArrayLayout(signed(9), lanes)),
                "low": In(data.ArrayLayout(signed(9), lanes)),
                "right": In(data.ArrayLayout(signed(8), lanes)),
                "high_sum": Out(signed(FIELD_BITS)),
                "low_sum": Out(signed(FIELD_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        passed, total = C(0, 48), Signal(48)
        for lane in range(self.lanes):
            onward, total = Signal(48, name=f"onward{lane}"), Signal(48, name=f"total{lane}")
            m.submodules[f"product{lane}"] = Instance(
                PRODUCT_MODULE,
                p_CASCADE=int(lane > 0),
                p_REGISTER=int(lane == self.lanes - 1),
                i_clk=ClockSignal(),
                i_high=self.high[lane],
                i_low=self.low[lane],
                i_right=self.right[lane],
                i_cascade=passed,
                o_onward=onward,
                o_sum=total,
            )
            passed = onward
        # Taking 2**17 off the lower field again is turning its top bit over.
        low = Signal(FIELD_BITS)
        m.d.comb += [
            low.eq(total[:FIELD_BITS] ^ (1 << FIELD_BITS - 1)),
            self.low_sum.eq(low.as_signed()),
            self.high_sum.eq(total[FIELD_BITS : 2 * FIELD_BITS].as_signed()),
        ]
        return m
