"""Cycles of the memory against the rules of `MemoryModel`, written out a second time here."""

from __future__ import annotations

import random

import pytest

from vitruvius.hwgen.axi.memory_model import MemoryModel
from vitruvius.sim.native.script import Script

SOURCE, TARGET = 0x10_0000, 0x20_0000
EDGES = [
    (MemoryModel(latency=1), 3, 4),
    (MemoryModel(latency=1, outstanding=1), 3, 1),
    (MemoryModel(latency=40, outstanding=2), 6, 8),
    (MemoryModel(latency=2, gap=5, outstanding=1), 4, 3),
]


def predict(model, bursts, beats):
    """(first beat, last beat, last response) of the copier, in cycles since its start."""
    first, end, beat, accepted = None, [], -(10**9), -1
    for index in range(bursts):
        accepted += 1
        if index >= model.outstanding:
            accepted = max(accepted, end[index - model.outstanding] + 1)
        for number in range(beats):
            earliest = accepted + model.latency if number == 0 else 0
            beat = max(earliest, beat + 1 + model.gap)
            first = beat if first is None else first
        end.append(beat)
    response, data, accepted, answers = -1, -(10**9), beat, []
    for index in range(bursts):
        accepted += 1
        if index >= model.outstanding:
            accepted = max(accepted, answers[index - model.outstanding] + 1)
        for _ in range(beats):
            data = max(accepted + 1, data + 1 + model.gap)
        response = max(data + model.latency, response + 1)
        answers.append(response)
    return first, beat, response


def random_cases():
    rng = random.Random(20)
    print("seed 20")
    for _ in range(25):
        model = MemoryModel(
            latency=rng.choice([1, 2, 5, 30, 90]),
            gap=rng.choice([0, 0, 1, 4]),
            outstanding=rng.choice([1, 2, 3, 8, 16]),
        )
        # 12 bursts of 7 beats end before 4 KB; the others divide it.
        yield model, rng.randint(1, 12), rng.choice([1, 2, 7, 16, 32])


@pytest.mark.parametrize(("model", "bursts", "beats"), [*EDGES, *random_cases()])
def test_every_answer_comes_in_its_cycle(copier, model, bursts, beats):
    script = Script()
    for register, value in ((0x010, SOURCE), (0x018, TARGET), (0x028, bursts), (0x02C, beats)):
        script.write(register, value)
    script.write(0x000, 1).wait_done(100_000)
    for register, name in ((0x104, "first_beat"), (0x108, "last_beat"), (0x10C, "response")):
        script.read(register, name)
    contents = bytes(16 * bursts * beats)
    values = copier().run(script, memory=[(SOURCE, contents)], model=model).values
    found = (values["first_beat"], values["last_beat"], values["response"])
    assert found == predict(model, bursts, beats)
