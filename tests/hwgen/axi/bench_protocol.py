"""The simulation's side of the monitor's test: plays wires, writes down the rules broken."""

from __future__ import annotations

import cocotb
from bench_side import record, start, stimulus

QUIET = {
    "read_rready": 1, "write_bready": 1, "read_arburst": 1, "write_awburst": 1,
    "read_arsize": 4, "write_awsize": 4,
}  # fmt: skip


@cocotb.test()
async def sequences(dut):
    """Each sequence after a reset: a list of cycles, each the wires that differ from quiet ones."""
    todo = stimulus()
    edge = await start(dut)
    wires = [handle for handle in dut if handle._name.startswith(("read_", "write_"))]
    found = []
    for sequence in todo:
        dut.rst.value = 1
        await edge
        dut.rst.value = 0
        broken = set()
        for cycle in [*sequence, {}]:
            for wire in wires:
                wire.value = cycle.get(wire._name, QUIET.get(wire._name, 0))
            await edge
            # The values of the cycle before this edge, a register later.
            value = int(dut.violations_before.value)
            broken |= {rule for rule in range(10) if value >> rule & 1}
        found.append(sorted(broken))
    record(found)
