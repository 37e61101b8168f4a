"""The simulation's side of the result store's tests."""

from __future__ import annotations

import cocotb
from bench_memory import Contents, WriteMemory
from bench_side import record, start, stimulus


@cocotb.test()
async def scenarios(dut):
    """Each scenario: fill the rows, store image after image; cycles count from each start."""
    edge = await start(dut)
    everything = []
    for scenario in stimulus():
        dut.soft_reset.value = 1
        await edge
        dut.soft_reset.value = 0
        await edge
        contents = Contents(scenario["regions"])
        memory = WriteMemory(
            dut, scenario["rules"], contents, bad_bursts=scenario.get("bad_bursts", ())
        )
        dut.results_address.value = scenario["results_address"]
        dut.pitch.value = scenario["pitch"]
        dut.count.value = scenario["count"]
        seen = []
        now = 0
        for index, image in enumerate(scenario["images"]):
            dut.fill_enable.value = 1
            for address, row in enumerate(image["rows"]):
                dut.fill_address.value = image["row"] + address
                dut.fill_data.value = int(row, 16)
                memory.step(now)
                await edge
                now += 1
            dut.fill_enable.value = 0
            dut.first.value = int(index == 0 or image.get("first", False))
            dut.row.value = image["row"]
            events, now = await one_image(dut, edge, memory, image, now)
            seen.append(events)
        regions = [data.hex() for _, data in contents.regions]
        everything.append(
            {
                "images": seen,
                "bursts": memory.accepted,
                "regions": regions,
                "strobed": memory.strobed,
                "written_beats": int(dut.written_beats.value),
            }
        )
    record(everything)


async def one_image(dut, edge, memory, image, now):
    began = now
    events = {"done": [], "taken": [], "error": None}
    over = None
    while over is None or now < over:
        cycle = now - began
        assert cycle < 100_000, "not over"
        dut.start.value = int(cycle == 0)
        dut.soft_reset.value = int(cycle == image.get("soft_reset"))
        memory.hung = image.get("hung", [0, 0])[0] <= cycle < image.get("hung", [0, 0])[1]
        memory.step(now)
        if cycle:
            if int(dut.done.value):
                events["done"].append(cycle)
            if int(dut.taken_before.value):
                events["taken"].append(cycle - 1)
            error = int(dut.error.value)
            if error and not events["error"]:
                events["error"] = [error, int(dut.error_address.value)]
            if over is None and not int(dut.busy.value):
                assert int(dut.quiet.value)
                assert not memory.pending
                over = now + image.get("tail", 1)
        await edge
        now += 1
    return events, now
