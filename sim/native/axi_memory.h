// The memory behind the AXI4 port: timing, contents, injected faults, and the rules of the port.
//
// The timing is that of hwgen/axi/memory_model.py, rule by rule. Nothing given to the accelerator
// in a cycle depends on what it gives in the same cycle. Data written are in memory from the
// cycle of their response on, not before.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "Vtop.h"
#include "failure.h"
#include "jitter.h"
#include "memory_settings.h"
#include "sparse_memory.h"

constexpr size_t BEAT_BYTES = PORT_BITS / 8;
constexpr unsigned BEAT_SIZE = __builtin_ctz(BEAT_BYTES);
constexpr unsigned INCR = 1, SLVERR = 2;

// A port's value as bytes, lowest first: Verilator keeps it little-endian, whatever its width.
using Beat = std::array<uint8_t, BEAT_BYTES>;

template <class Port>
void put(Port& port, const Beat& beat) {
    static_assert(sizeof port == BEAT_BYTES, "the data port's width is not PORT_BITS");
    std::memcpy(&port, beat.data(), BEAT_BYTES);
}

template <class Port>
Beat get(const Port& port) {
    static_assert(sizeof port == BEAT_BYTES, "the data port's width is not PORT_BITS");
    Beat beat;
    std::memcpy(beat.data(), &port, BEAT_BYTES);
    return beat;
}

// What AR and AW carry.
struct Address {
    uint64_t address;
    unsigned id, length, size, burst, cache, protection;

    bool operator==(const Address& other) const {
        return address == other.address && id == other.id && length == other.length &&
               size == other.size && burst == other.burst && cache == other.cache &&
               protection == other.protection;
    }
};

// Rules of AR or AW, looked at in every cycle.
class AddressRules {
  public:
    explicit AddressRules(const char* channel) : channel_(channel) {}

    void forget() { waiting_.reset(); }

    // Returns whether a burst is accepted.
    bool sample(bool valid, bool ready, const Address& now) {
        if (waiting_ && !valid) broken(rule("dropped"), "valid fell before ready came");
        if (waiting_ && !(*waiting_ == now)) {
            broken(rule("stable"),
                   format("the burst at 0x%llx changed to 0x%llx, or its other fields changed,"
                          " while it waited for ready",
                          hex(waiting_->address), hex(now.address)));
        }
        waiting_.reset();
        if (!valid) return false;
        check(now);
        if (!ready) waiting_ = now;
        return ready;
    }

  private:
    static unsigned long long hex(uint64_t value) { return value; }

    std::string rule(const char* name) const { return std::string(channel_) + "-" + name; }

    void check(const Address& now) const {
        const unsigned long long at = now.address;
        const unsigned beats = now.length + 1;
        if (now.id != 0) broken(rule("id"), format("expected id 0, got %u", now.id));
        if (now.burst != INCR) {
            broken(rule("burst"), format("expected burst type 1 (INCR), got %u", now.burst));
        }
        if (now.size != BEAT_SIZE) {
            broken(rule("size"), format("expected size %u (%zu bytes a beat), got %u", BEAT_SIZE,
                                        BEAT_BYTES, now.size));
        }
        if (now.address % BEAT_BYTES) {
            broken(rule("aligned"),
                   format("expected an address of whole beats (%zu bytes), got 0x%llx", BEAT_BYTES,
                          at));
        }
        if (now.address % 4096 + beats * BEAT_BYTES > 4096) {
            broken(rule("4kb"), format("the burst at 0x%llx of %u beats crosses a 4 KB line", at,
                                       beats));
        }
    }

    const char* channel_;
    std::optional<Address> waiting_;
};

class AxiMemory {
  public:
    AxiMemory(Vtop& top, SparseMemory& memory) : top_(top), memory_(memory) {}

    Timing timing;
    Faults faults;
    Traffic traffic;

    void jitter(uint64_t seed) {
        for (Jitter* channel : {&ar_, &r_, &aw_, &w_, &b_}) channel->seed(seed++);
    }

    // In reset: nothing is pending, nothing is given.
    void reset() {
        reads_.clear();
        writes_.clear();
        read_rules_.forget();
        write_rules_.forget();
        waiting_data_.reset();
        receiving_ = 0;
        next_beat_ = next_data_ = 0;
        top_.memory_arready = top_.memory_awready = top_.memory_wready = 0;
        withdraw_beat();
        withdraw_response();
    }

    // Sets the inputs of a cycle.
    void drive(uint64_t cycle) {
        drive_read(cycle);
        drive_write(cycle);
    }

    // Whether the accelerator offers anything, which it must not in reset.
    bool offered() const {
        return top_.memory_arvalid || top_.memory_awvalid || top_.memory_wvalid;
    }

    // Looks at the outputs of a cycle, just before its rising edge.
    void sample(uint64_t cycle) {
        sample_read(cycle);
        sample_write(cycle);
    }

  private:
    static constexpr uint64_t JITTER_CYCLES = 60;
    static constexpr uint8_t IDLE = 0xEE;  // on data lines that mean nothing

    struct Read {
        uint64_t address, beats, ready_at, sent = 0;
    };

    struct Write {
        uint64_t address, beats, ready_at = 0;
        std::vector<Beat> data = {};
        std::vector<uint64_t> strobes = {};
    };

    struct Data {
        Beat bytes;
        uint64_t strobe;
        bool last;
    };

    bool silent(uint64_t address) const {
        return faults.silent_from && address >= *faults.silent_from;
    }

    void withdraw_beat() {
        Beat idle;
        idle.fill(IDLE);
        put(top_.memory_rdata, idle);
        top_.memory_rvalid = top_.memory_rlast = top_.memory_rid = 0;
        top_.memory_rresp = OKAY;
        presented_ = false;
    }

    void withdraw_response() {
        top_.memory_bvalid = top_.memory_bid = 0;
        top_.memory_bresp = OKAY;
        responding_ = false;
    }

    void drive_read(uint64_t cycle) {
        top_.memory_arready = reads_.size() < timing.outstanding && !ar_.wait();
        if (presented_) withdraw_beat();
        if (reads_.empty()) return;
        Read& read = reads_.front();
        if (cycle < read.ready_at || cycle < next_beat_ || silent(read.address) || r_.wait()) {
            return;
        }
        const uint64_t address = read.address + read.sent * BEAT_BYTES;
        const bool error = faults.read && *faults.read / BEAT_BYTES == address / BEAT_BYTES;
        Beat beat;
        memory_.read_beat(address, beat.data(), BEAT_BYTES);
        if (error) beat.fill(IDLE);
        put(top_.memory_rdata, beat);
        top_.memory_rresp = error ? SLVERR : OKAY;
        top_.memory_rlast = read.sent + 1 == read.beats;
        top_.memory_rvalid = 1;
        presented_ = true;
    }

    void sample_read(uint64_t cycle) {
        if (!reads_.empty() && !top_.memory_rready) {
            broken("r-ready", "ready is low while beats are outstanding");
        }
        if (presented_) {
            Read& read = reads_.front();
            ++traffic.read_beats;
            next_beat_ = cycle + 1 + timing.gap;
            if (++read.sent == read.beats) reads_.pop_front();
        }
        const Address now{top_.memory_araddr, top_.memory_arid,    top_.memory_arlen,
                          top_.memory_arsize, top_.memory_arburst, top_.memory_arcache,
                          top_.memory_arprot};
        if (read_rules_.sample(top_.memory_arvalid, top_.memory_arready, now)) {
            ++traffic.read_bursts;
            const uint64_t wait = timing.latency + r_.cycles(JITTER_CYCLES);
            reads_.push_back({now.address, now.length + 1u, cycle + wait});
        }
    }

    void drive_write(uint64_t cycle) {
        top_.memory_awready = writes_.size() < timing.outstanding && !aw_.wait();
        top_.memory_wready = cycle >= next_data_ && !w_.wait();
        if (responding_) withdraw_response();
        if (writes_.empty()) return;
        const Write& write = writes_.front();
        if (write.data.size() < write.beats || cycle < write.ready_at || silent(write.address) ||
            b_.wait()) {
            return;
        }
        const bool error = faults.write && *faults.write >= write.address &&
                           *faults.write < write.address + write.beats * BEAT_BYTES;
        if (!error) store(write);
        top_.memory_bresp = error ? SLVERR : OKAY;
        top_.memory_bvalid = 1;
        responding_ = true;
    }

    void store(const Write& write) {
        for (size_t beat = 0; beat < write.beats; ++beat) {
            for (size_t lane = 0; lane < BEAT_BYTES; ++lane) {
                if (write.strobes[beat] >> lane & 1) {
                    memory_.write_byte(write.address + beat * BEAT_BYTES + lane,
                                       write.data[beat][lane]);
                }
            }
        }
    }

    void sample_write(uint64_t cycle) {
        if (!writes_.empty() && !top_.memory_bready) {
            broken("b-ready", "ready is low while responses are outstanding");
        }
        if (responding_) {
            writes_.pop_front();
            --receiving_;
            traffic.answers.push_back(cycle);
        }
        sample_data(cycle);
        const Address now{top_.memory_awaddr, top_.memory_awid,    top_.memory_awlen,
                          top_.memory_awsize, top_.memory_awburst, top_.memory_awcache,
                          top_.memory_awprot};
        if (write_rules_.sample(top_.memory_awvalid, top_.memory_awready, now)) {
            ++traffic.write_bursts;
            writes_.push_back({now.address, now.length + 1u});
        }
    }

    void sample_data(uint64_t cycle) {
        const bool valid = top_.memory_wvalid;
        const Data now{get(top_.memory_wdata), top_.memory_wstrb, bool(top_.memory_wlast)};
        if (waiting_data_ && !valid) broken("w-dropped", "valid fell before ready came");
        if (waiting_data_ && (waiting_data_->bytes != now.bytes ||
                              waiting_data_->strobe != now.strobe ||
                              waiting_data_->last != now.last)) {
            broken("w-stable", "data, strobes or last changed while the beat waited for ready");
        }
        waiting_data_.reset();
        if (!valid) return;
        if (receiving_ == writes_.size()) {
            broken("w-early", "data came before the address of their burst was accepted");
        }
        if (!top_.memory_wready) {
            waiting_data_ = now;
            return;
        }
        Write& write = writes_[receiving_];
        write.data.push_back(now.bytes);
        write.strobes.push_back(now.strobe);
        const bool last = write.data.size() == write.beats;
        if (last != now.last) {
            broken("w-last", format("beat %zu of %llu in the burst at 0x%llx came with last = %d",
                                    write.data.size(), (unsigned long long)write.beats,
                                    (unsigned long long)write.address, int(now.last)));
        }
        ++traffic.write_beats;
        next_data_ = cycle + 1 + timing.gap;
        if (last) {
            write.ready_at = cycle + timing.latency + b_.cycles(JITTER_CYCLES);
            ++receiving_;
        }
    }

    Vtop& top_;
    SparseMemory& memory_;
    Jitter ar_, r_, aw_, w_, b_;
    AddressRules read_rules_{"ar"}, write_rules_{"aw"};
    std::deque<Read> reads_;
    std::deque<Write> writes_;
    size_t receiving_ = 0;  // bursts at the front of writes_ whose data are complete
    std::optional<Data> waiting_data_;
    uint64_t next_beat_ = 0, next_data_ = 0;
    bool presented_ = false, responding_ = false;
};
