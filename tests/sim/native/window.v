// 64 words of on-chip memory behind MEMORY_ADDRESS and MEMORY_DATA, and no memory port.
module vitruvius (
  input clk,
  input rst,
  input [15:0] control_awaddr,
  input [2:0] control_awprot,
  input control_awvalid,
  output control_awready,
  input [31:0] control_wdata,
  input [3:0] control_wstrb,
  input control_wvalid,
  output control_wready,
  output [1:0] control_bresp,
  output reg control_bvalid,
  input control_bready,
  input [15:0] control_araddr,
  input [2:0] control_arprot,
  input control_arvalid,
  output control_arready,
  output reg [31:0] control_rdata,
  output [1:0] control_rresp,
  output reg control_rvalid,
  input control_rready,
  output interrupt
);
  reg [31:0] words [0:63];
  reg [31:0] address;
  wire both = control_awvalid && control_wvalid && !control_bvalid;
  assign control_awready = both;
  assign control_wready = both;
  assign control_arready = !control_rvalid;
  assign control_bresp = 0;
  assign control_rresp = 0;
  assign interrupt = 0;
  always @(posedge clk) begin
    if (control_bready) control_bvalid <= 0;
    if (control_rready) control_rvalid <= 0;
    if (both) begin
      control_bvalid <= 1;
      if (control_awaddr == 16'h058) address <= control_wdata;
      if (control_awaddr == 16'h05C) begin
        words[address[7:2]] <= control_wdata;
        address <= address + 4;
      end
    end
    if (control_arvalid && control_arready) begin
      control_rvalid <= 1;
      control_rdata <= words[address[7:2]];
      if (control_araddr == 16'h05C) address <= address + 4;
    end
    if (rst) {control_bvalid, control_rvalid} <= 0;
  end
endmodule
