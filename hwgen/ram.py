"""The on-chip memory: one read port, one write port, one clock, no initial contents.

It is a Verilog module of its own, in the form that every synthesis tool maps to block RAM. An
Amaranth memory would write one line of initial contents per word into the Verilog, which is most
of the text and of the time it takes to make it.
"""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RAM_MODULE", "RAM_VERILOG", "Ram"]

RAM_MODULE = "vitruvius_ram"
RAM_VERILOG = f"""
module {RAM_MODULE} #(
  parameter WIDTH = 8,
  parameter DEPTH = 2,
  parameter ADDRESS = 1,
  parameter LANES = 1
) (
  input clk,
  input [ADDRESS-1:0] read_address,
  input read_enable,
  output reg [WIDTH-1:0] read_data,
  input [ADDRESS-1:0] write_address,
  input [LANES-1:0] write_enable,
  input [WIDTH-1:0] write_data
);
  localparam LANE = WIDTH / LANES;
  reg [WIDTH-1:0] contents [0:DEPTH-1];
  integer lane;
  always @(posedge clk) begin
    if (read_enable) read_data <= contents[read_address];
    for (lane = 0; lane < LANES; lane = lane + 1)
      if (write_enable[lane])
        contents[write_address][lane*LANE +: LANE] <= write_data[lane*LANE +: LANE];
  end
endmodule
"""


class Ram(wiring.Component):
    """``depth`` words of ``width`` bits; a read answers one cycle later and holds while not
    enabled.

    A read in the cycle of a write to the same address gives the old word.

    Parameters
    ----------
    width, depth : bits per word, at least 1; words, at least 2.
    lanes : separately enabled parts of a word when writing; divides ``width``.

    Members
    -------
    read_address, read_enable : In; read_data : Out
    write_address, write_enable (one bit per lane), write_data : In
    """

    def __init__(self, *, width: int, depth: int, lanes: int = 1) -> None:
        if depth < 2:
            raise ValueError(f"depth: expected at least 2 words, got {depth}")
        if width < 1 or lanes < 1 or width % lanes:
            raise ValueError(f"width: expected a multiple of {lanes} lanes, got {width}")
        self.width, self.depth, self.lanes = width, depth, lanes
        super().__init__(
            {
                "read_address": In(range(depth)),
                "read_enable": In(1, init=1),
                "read_data": Out(width),
                "write_address": In(range(depth)),
                "write_enable": In(lanes),
                "write_data": In(width),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.words = Instance(
            RAM_MODULE,
            p_WIDTH=self.width,
            p_DEPTH=self.depth,
            p_ADDRESS=len(self.read_address),
            p_LANES=self.lanes,
            i_clk=ClockSignal(),
            i_read_address=self.read_address,
            i_read_enable=self.read_enable,
            o_read_data=self.read_data,
            i_write_address=self.write_address,
            i_write_enable=self.write_enable,
            i_write_data=self.write_data,
        )
        return m
