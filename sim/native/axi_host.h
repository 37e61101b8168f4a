// The host on the AXI4-Lite port: one access at a time, and the rules of the port.
#pragma once

#include <cstdint>
#include <string>

#include "Vtop.h"
#include "failure.h"
#include "jitter.h"

class AxiHost {
  public:
    explicit AxiHost(Vtop& top) : top_(top) {}

    Jitter jitter;

    void reset() {
        address_left_ = data_left_ = answered_ = writing_ = reading_ = false;
        read_waits_ = write_waits_ = false;
        top_.control_awvalid = top_.control_wvalid = top_.control_arvalid = 0;
        top_.control_bready = top_.control_rready = 0;
        top_.control_awprot = top_.control_arprot = 0;
    }

    void start_write(uint32_t address, uint32_t value) {
        writing_ = address_left_ = data_left_ = true;
        answered_ = false;
        address_ = address;
        value_ = value;
        address_wait_ = jitter.cycles(JITTER_CYCLES);
        data_wait_ = jitter.cycles(JITTER_CYCLES);
    }

    void start_read(uint32_t address) {
        reading_ = address_left_ = true;
        answered_ = false;
        address_ = address;
        address_wait_ = jitter.cycles(JITTER_CYCLES);
    }

    bool answered() const { return answered_; }
    uint32_t value() const { return value_; }
    unsigned response() const { return response_; }

    // Sets the inputs of a cycle.
    void drive() {
        const bool address = address_left_ && !waits(address_wait_);
        const bool data = data_left_ && !waits(data_wait_);
        top_.control_awvalid = writing_ && address;
        top_.control_wvalid = data;
        top_.control_arvalid = reading_ && address;
        top_.control_awaddr = top_.control_araddr = address_;
        top_.control_wdata = data ? value_ : ~value_;
        top_.control_wstrb = 0xF;
        top_.control_bready = writing_ && !jitter.wait();
        top_.control_rready = reading_ && !jitter.wait();
    }

    // Looks at the outputs of a cycle, just before its rising edge.
    void sample() {
        sample_write();
        sample_read();
        if (top_.control_awvalid && top_.control_awready) address_left_ = false;
        if (top_.control_arvalid && top_.control_arready) address_left_ = false;
        if (top_.control_wvalid && top_.control_wready) data_left_ = false;
    }

  private:
    static constexpr uint64_t JITTER_CYCLES = 6;

    static bool waits(uint64_t& cycles) { return cycles && cycles--; }

    void sample_write() {
        const bool valid = top_.control_bvalid;
        if (write_waits_ && !valid) broken("control-b-dropped", "valid fell before ready came");
        if (valid && (!writing_ || address_left_ || data_left_)) {
            broken("control-b-unasked", "a response came before address and data were accepted");
        }
        if (write_waits_ && top_.control_bresp != response_) {
            broken("control-b-stable", "the response changed while it waited for ready");
        }
        response_ = valid ? top_.control_bresp : response_;
        write_waits_ = valid && !top_.control_bready;
        if (valid && top_.control_bready) {
            writing_ = false;
            answered_ = true;
        }
    }

    void sample_read() {
        const bool valid = top_.control_rvalid;
        if (read_waits_ && !valid) broken("control-r-dropped", "valid fell before ready came");
        if (valid && (!reading_ || address_left_)) {
            broken("control-r-unasked", "data came before the address was accepted");
        }
        if (read_waits_ && (top_.control_rdata != value_ || top_.control_rresp != response_)) {
            broken("control-r-stable", "data or response changed while they waited for ready");
        }
        read_waits_ = valid && !top_.control_rready;
        if (!valid) return;
        value_ = top_.control_rdata;
        response_ = top_.control_rresp;
        if (top_.control_rready) {
            reading_ = false;
            answered_ = true;
        }
    }

    Vtop& top_;
    bool writing_ = false, reading_ = false, answered_ = false;
    bool address_left_ = false, data_left_ = false;
    bool read_waits_ = false, write_waits_ = false;
    uint64_t address_wait_ = 0, data_wait_ = 0;
    uint32_t address_ = 0, value_ = 0;
    unsigned response_ = 0;
};
