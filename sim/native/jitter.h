// Random waits from a seed, in phases from eager to slow; without a seed, none.
#pragma once

#include <cstdint>

class Jitter {
  public:
    void seed(uint64_t value) {
        on_ = true;
        state_ = value;
    }

    // Whether to wait in this cycle.
    bool wait() {
        if (!on_) return false;
        if (phase_left_-- == 0) {
            phase_left_ = next() % PHASE_CYCLES;
            chance_ = CHANCES[next() % 4];
        }
        return next() % 8 < chance_;
    }

    // A number of cycles, 0 to most.
    uint64_t cycles(uint64_t most) { return on_ ? next() % (most + 1) : 0; }

  private:
    static constexpr uint64_t PHASE_CYCLES = 200;
    static constexpr uint64_t CHANCES[4] = {0, 1, 4, 7};  // in eighths

    // splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
    uint64_t next() {
        uint64_t z = state_ += 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }

    bool on_ = false;
    uint64_t state_ = 0;
    uint64_t phase_left_ = 0;
    uint64_t chance_ = 0;
};
