// Copies memory with the accelerator's ports: all bursts are read, then all are written.
// RUN_OPTIONS makes it break one rule of the bus, so that every check is seen to fire.
module vitruvius (
  input clk,
  input rst,
  output memory_arid,
  output [63:0] memory_araddr,
  output [7:0] memory_arlen,
  output [2:0] memory_arsize,
  output [1:0] memory_arburst,
  output [3:0] memory_arcache,
  output [2:0] memory_arprot,
  output memory_arvalid,
  input memory_arready,
  input memory_rid,
  input [@MSB@:0] memory_rdata,
  input [1:0] memory_rresp,
  input memory_rlast,
  input memory_rvalid,
  output memory_rready,
  output memory_awid,
  output [63:0] memory_awaddr,
  output [7:0] memory_awlen,
  output [2:0] memory_awsize,
  output [1:0] memory_awburst,
  output [3:0] memory_awcache,
  output [2:0] memory_awprot,
  output memory_awvalid,
  input memory_awready,
  output [@MSB@:0] memory_wdata,
  output [@STROBE_MSB@:0] memory_wstrb,
  output memory_wlast,
  output memory_wvalid,
  input memory_wready,
  input memory_bid,
  input [1:0] memory_bresp,
  input memory_bvalid,
  output memory_bready,
  input [15:0] control_awaddr,
  input [2:0] control_awprot,
  input control_awvalid,
  output control_awready,
  input [31:0] control_wdata,
  input [3:0] control_wstrb,
  input control_wvalid,
  output control_wready,
  output [1:0] control_bresp,
  output control_bvalid,
  input control_bready,
  input [15:0] control_araddr,
  input [2:0] control_arprot,
  input control_arvalid,
  output control_arready,
  output [31:0] control_rdata,
  output [1:0] control_rresp,
  output control_rvalid,
  input control_rready,
  output interrupt
);
  localparam BITS = @MSB@ + 1;
  localparam BYTES = BITS / 8;
  localparam SIZE = $clog2(BYTES);

  // What RUN_OPTIONS can break; numbers as in test_rules.py.
  localparam AR_STABLE = 1, AR_DROPPED = 2, AR_ID = 3, AR_BURST = 4, AR_SIZE = 5, AR_ALIGNED = 6;
  localparam AW_STABLE = 7, AW_DROPPED = 8, AW_ID = 9, AW_BURST = 10, AW_SIZE = 11;
  localparam AW_ALIGNED = 12, W_STABLE = 13, W_DROPPED = 14, W_EARLY = 15, W_LAST_EARLY = 16;
  localparam W_LAST_NEVER = 17, R_READY = 18, B_READY = 19, RESET_VALID = 20, B_DROPPED = 21;
  localparam B_UNASKED = 22, B_STABLE = 23, READ_DROPPED = 24, READ_UNASKED = 25, READ_STABLE = 26;
  localparam NO_ANSWER = 27, BAD_RESPONSE = 28, AR_LENGTH = 29, W_LAST_STABLE = 30;

  reg [31:0] source, target, bursts, beats, strobe, fault_register;
  reg enable, pending, busy, done;
  reg [3:0] error;
  reg [31:0] cycles, first_beat, last_beat, last_response, debug_address, debug_word;
  reg [31:0] sticky_fault = 0;  // not reset: RESET_VALID must outlive the reset
  wire [31:0] fault = fault_register;

  // Control port: one access of each kind at a time.
  reg aw_held, w_held, b_valid, r_valid;
  reg [15:0] aw_address;
  reg [31:0] w_data, r_data;
  wire refuse = fault == NO_ANSWER;
  assign control_awready = !aw_held && !b_valid;
  assign control_wready = !w_held && !b_valid;
  assign control_arready = !r_valid && !refuse;
  wire write_now = aw_held && w_held && !b_valid;
  wire start = write_now && aw_address == 16'h000 && w_data[0];
  reg b_waited, r_waited;
  assign control_bvalid = (b_valid && !(fault == B_DROPPED && b_waited)) ||
                          (fault == B_UNASKED && !b_valid && !aw_held && !w_held);
  assign control_bresp = fault == BAD_RESPONSE || (fault == B_STABLE && b_waited) ? 2 : 0;
  assign control_rvalid = (r_valid && !(fault == READ_DROPPED && r_waited)) ||
                          (fault == READ_UNASKED && !r_valid);
  assign control_rdata = fault == READ_STABLE && r_waited ? ~r_data : r_data;
  assign control_rresp = fault == BAD_RESPONSE ? 2 : 0;
  assign interrupt = enable && pending;

  // Bursts asked for, and beats received.
  reg [31:0] asked, received, announced, sending, sent, answered;
  reg [BITS-1:0] buffer [0:8191];
  wire [31:0] total = bursts * beats;
  wire reading = busy && received != total;
  wire writing = busy && !reading;
  wire ar_valid = busy && asked != bursts;
  wire aw_valid = writing && announced != bursts;
  wire w_valid = writing && sending < announced || fault == W_EARLY && writing && sending == 0;
  reg ar_waited, aw_waited, w_waited;
  assign memory_arvalid = ar_valid && !(fault == AR_DROPPED && ar_waited) ||
                          rst && sticky_fault == RESET_VALID;
  assign memory_araddr = source + asked * beats * BYTES +
                         (fault == AR_STABLE && ar_waited ? BYTES : 0) + (fault == AR_ALIGNED);
  assign memory_arlen = beats - 1 - (fault == AR_LENGTH && ar_waited);
  assign memory_arid = fault == AR_ID;
  assign memory_arsize = SIZE - (fault == AR_SIZE);
  assign memory_arburst = fault == AR_BURST ? 2 : 1;
  assign memory_arcache = 3;
  assign memory_arprot = 0;
  assign memory_rready = !(fault == R_READY && received == 1);
  assign memory_awvalid = aw_valid && !(fault == AW_DROPPED && aw_waited);
  assign memory_awaddr = target + announced * beats * BYTES +
                         (fault == AW_STABLE && aw_waited ? BYTES : 0) + (fault == AW_ALIGNED);
  assign memory_awlen = beats - 1;
  assign memory_awid = fault == AW_ID;
  assign memory_awsize = SIZE - (fault == AW_SIZE);
  assign memory_awburst = fault == AW_BURST ? 0 : 1;
  assign memory_awcache = 3;
  assign memory_awprot = 0;
  assign memory_wvalid = w_valid && !(fault == W_DROPPED && w_waited);
  assign memory_wdata = buffer[sending * beats + sent] ^ (fault == W_STABLE && w_waited);
  assign memory_wstrb = {(BYTES / 8){strobe[7:0]}};
  wire last = sent + 1 == beats;
  assign memory_wlast = fault == W_LAST_NEVER ? 0 : fault == W_LAST_EARLY ? 1 :
                        last ^ (fault == W_LAST_STABLE && w_waited);
  assign memory_bready = fault != B_READY;

  always @(posedge clk) begin
    ar_waited <= memory_arvalid && !memory_arready;
    aw_waited <= memory_awvalid && !memory_awready;
    w_waited <= memory_wvalid && !memory_wready;
    b_waited <= control_bvalid && !control_bready;
    r_waited <= control_rvalid && !control_rready;
    sticky_fault <= fault_register;
    cycles <= cycles + busy;
    if (ar_valid && memory_arready) asked <= asked + 1;
    if (busy && memory_rvalid) begin
      buffer[received] <= memory_rdata;
      received <= received + 1;
      last_beat <= cycles;
      if (received == 0) first_beat <= cycles;
      if (memory_rresp != 0) error <= 1;
    end
    if (aw_valid && memory_awready) announced <= announced + 1;
    if (w_valid && memory_wready) begin
      sent <= last ? 0 : sent + 1;
      sending <= sending + last;
    end
    if (busy && memory_bvalid) begin
      answered <= answered + 1;
      last_response <= cycles;
      if (memory_bresp != 0) error <= 2;
      if (answered + 1 == bursts) begin
        busy <= 0;
        done <= 1;
        pending <= 1;
      end
    end

    if (control_awvalid && control_awready) begin
      aw_held <= 1;
      aw_address <= control_awaddr;
    end
    if (control_wvalid && control_wready) begin
      w_held <= 1;
      w_data <= control_wdata;
    end
    if (write_now) begin
      aw_held <= 0;
      w_held <= 0;
      b_valid <= 1;
      case (aw_address)
        16'h010: source <= w_data;
        16'h018: target <= w_data;
        16'h028: bursts <= w_data;
        16'h02C: beats <= w_data;
        16'h034: strobe <= w_data;
        16'h038: if (w_data[0]) pending <= 0;
        16'h03C: enable <= w_data[0];
        16'h050: debug_address <= w_data;
        16'h054: fault_register <= w_data;
      endcase
    end
    if (start) begin
      {asked, received, announced, sending, sent, answered} <= 0;
      {cycles, done, error} <= 0;
      busy <= 1;
    end
    if (b_valid && control_bready) b_valid <= 0;
    debug_word <= debug_address * 32'h9E3779B1;
    if (control_arvalid && control_arready) begin
      r_valid <= 1;
      case (control_araddr)
        16'h004: r_data <= {announced[15:0], 8'd0, error, 2'd0, done, busy};
        16'h038: r_data <= pending;
        16'h100: r_data <= cycles;
        16'h104: r_data <= first_beat;
        16'h108: r_data <= last_beat;
        16'h10C: r_data <= last_response;
        16'h110: r_data <= buffer[8191][31:0];
        default: r_data <= control_araddr[15:10] == 1 ? debug_word + control_araddr[9:2] : 0;
      endcase
    end
    if (r_valid && control_rready) r_valid <= 0;
    if (rst) begin
      {aw_held, w_held, b_valid, r_valid, busy, done, error, enable, pending} <= 0;
      {asked, received, announced, sending, sent, answered, bursts, fault_register} <= 0;
      {ar_waited, aw_waited, w_waited, b_waited, r_waited} <= 0;
      strobe <= 255;
      sticky_fault <= sticky_fault;
    end
  end
endmodule
