"""The simulation's side of the fetch engine's tests: runs scenarios one after another."""

from __future__ import annotations

from bisect import bisect_right

import cocotb
from bench_memory import Contents, ReadMemory
from bench_side import record, start, stimulus


@cocotb.test()
async def scenarios(dut):
    """Each run of each scenario: when what was written, counted, raised. Cycles count from start.

    A run: ``start`` in its cycle 0 (or the cycles ``starts``), ``products`` follows ``issues``
    (cycles of increments), ``soft_reset`` in the cycle of that name, the memory does nothing in the
    cycles of ``hung``. If the engine has experts, ``routed`` is as ``issues``, ``queue_used`` lists
    [cycle, value], and ``task`` shows in cycle 0 only. A run ends ``tail`` cycles after the engine
    is idle and quiet.
    """
    edge = await start(dut)
    everything = []
    for scenario in stimulus():
        dut.soft_reset.value = 1
        await edge
        dut.soft_reset.value = 0
        await edge
        await edge
        memory = ReadMemory(
            dut,
            scenario["rules"],
            Contents(scenario["regions"]),
            bad_bursts=scenario.get("bad_bursts", ()),
        )
        for name in ("parameters", "images", "image_pitch"):
            getattr(dut, name).value = scenario[name]
        now = 0
        seen = []
        for run in scenario["runs"]:
            events, now = await one_run(dut, edge, memory, run, now)
            seen.append(events)
        everything.append({"runs": seen, "bursts": memory.accepted})
    record(everything)


async def one_run(dut, edge, memory, run, now):
    began = now
    issues, changes = run["issues"], list(run.get("queue_used", []))
    dut.count.value = run["count"]
    dut.reload.value = run.get("reload", 0)
    events = {"writes": [], "counted": [], "booted": None, "ended": None, "error": None}
    fetches, tail, products, was_booted = 0, None, 0, None
    while tail is None or now < tail:
        cycle = now - began
        assert cycle < run["limit"], f"cycle {cycle}: not over"
        dut.start.value = int(cycle in run.get("starts", [0]))
        dut.soft_reset.value = int(cycle == run.get("soft_reset"))
        memory.hung = run.get("hung", [0, 0])[0] <= cycle < run.get("hung", [0, 0])[1]
        issued = bisect_right(issues, cycle)
        if cycle == 0 or issued != products:
            dut.products.value = issued
            products = issued
        if "routed" in run:
            dut.routed.value = bisect_right(run["routed"], cycle)
            dut.task.value = run["task"] if cycle == 0 else 15 ^ run["task"]
            while changes and changes[0][0] <= cycle:
                dut.queue_used.value = changes.pop(0)[1]
        memory.step(now)
        if cycle:
            enable = int(dut.write_enable.value)
            if enable:
                word = int(dut.write_data.value)
                events["writes"].append([cycle, enable, int(dut.write_address.value), hex(word)])
            count = int(dut.fetches.value)
            if count != fetches:
                assert count == 0 or count > fetches
                events["counted"] += [cycle] * (count - fetches)
                fetches = count
            booted = int(dut.booted.value)
            if booted and was_booted == 0:
                events["booted"] = cycle
            was_booted = booted
            busy, quiet = int(dut.busy.value), int(dut.quiet.value)
            error = int(dut.error.value)
            if error and not events["error"]:
                events["error"] = [cycle, error, int(dut.error_address.value)]
            over = not busy and quiet and not memory.pending
            if tail is None and over and cycle > max(run.get("starts", [0])):
                events["ended"] = cycle
                tail = now + run["tail"]
        await edge
        now += 1
    for name in ("read_beats", "product_waits", "memory_waits", "program_digest"):
        events[name] = int(getattr(dut, name).value)
    return events, now
