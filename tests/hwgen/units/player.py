"""The simulation's side of the unit tests: plays stimuli, writes down what came out."""

from __future__ import annotations

import cocotb
from bench_side import record, start, stimulus


@cocotb.test()
async def cycles(dut):
    """Inputs of every cycle from lists; the listed outputs of every cycle into lists."""
    todo = stimulus()
    inputs = [(getattr(dut, name), values) for name, values in todo["inputs"].items()]
    outputs = [(getattr(dut, name), []) for name in todo["outputs"]]
    edge = await start(dut)
    for cycle in range(todo["cycles"]):
        for port, values in outputs:
            values.append(int(port.value))
        for port, values in inputs:
            if cycle < len(values) and (cycle == 0 or values[cycle] != values[cycle - 1]):
                port.value = values[cycle]
        await edge
    record({name: values for name, (_, values) in zip(todo["outputs"], outputs, strict=True)})


@cocotb.test()
async def streams(dut):
    """Offers payloads at ``i`` and takes those of ``o``, in the cycles that the patterns allow.

    The patterns repeat. Transfers are written down as (cycle, payload).
    """
    todo = stimulus()
    offers, offering, accepting = todo["offers"], todo["offering"], todo["accepting"]
    for name, value in todo["constants"].items():
        getattr(dut, name).value = value
    edge = await start(dut)
    for writes in todo["setup"]:
        for name, value in writes.items():
            getattr(dut, name).value = value
        await edge
    taken, given = [], []
    valid = False
    for cycle in range(todo["limit"]):
        if len(given) == todo["results"]:
            break
        ready = bool(accepting[cycle % len(accepting)])
        dut.o__ready.value = int(ready)
        if ready and int(dut.o__valid.value):
            given.append((cycle, int(dut.o__payload.value)))
        if len(taken) < len(offers):
            valid = valid or bool(offering[cycle % len(offering)])
            dut.i__valid.value = int(valid)
            dut.i__payload.value = offers[len(taken)]
            if valid and int(dut.i__ready.value):
                taken.append(cycle)
                valid = False
        else:
            dut.i__valid.value = 0
        await edge
    record({"taken": taken, "given": given})
