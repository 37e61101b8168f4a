// What a script sets of the memory, and what is counted at its port.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

constexpr unsigned OKAY = 0;  // the response, of memory and of registers

struct Timing {
    uint64_t latency = 1, gap = 0, outstanding = 16;
};

struct Faults {
    std::optional<uint64_t> read, write, silent_from;
};

struct Traffic {
    uint64_t read_bursts = 0, read_beats = 0, write_bursts = 0, write_beats = 0;
    std::vector<uint64_t> answers;  // the cycle of every answer to a write burst
};
