// In place of axi_memory.h for an accelerator whose memory is on the chip: there is no port.
#pragma once

#include <cstdint>

#include "Vtop.h"
#include "memory_settings.h"
#include "sparse_memory.h"

class AxiMemory {
  public:
    AxiMemory(Vtop&, SparseMemory&) {}

    Timing timing;
    Faults faults;
    Traffic traffic;

    void jitter(uint64_t) {}
    void reset() {}
    void drive(uint64_t) {}
    void sample(uint64_t) {}
    bool offered() const { return false; }
};
