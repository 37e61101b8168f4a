import pytest
import torch

from vitruvius.hwgen.units.ivit.shift_gelu import ShiftGelu, cycles
from vitruvius.models.integer.ivit.shift_gelu import LARGEST_STEP, shift_gelu

CODES = list(range(-128, 128))
FILLING = ShiftGelu.filling()
PORTS = ("load", "step", "table", "codes")


def packed(lanes):
    return sum((code & 0xFF) << (8 * lane) for lane, code in enumerate(lanes))


def unpacked(word, lanes):
    """Signed 16-bit results of the lanes."""
    parts = [(word >> (16 * lane)) & 0xFFFF for lane in range(lanes)]
    return [part - (1 << 16) if part >> 15 else part for part in parts]


def loads(step, table=0):
    """Rows of inputs that fill a table. A later load, of another step, must not count."""
    return [
        {"load": 1, "step": step, "table": table},
        *[{"load": 1, "step": step ^ 1, "table": 0}] * FILLING,
    ]


def record(play, unit, rows):
    """Results of each row of inputs, a list of the lanes, and ``ready`` in each cycle."""
    inputs = {name: [row.get(name, 0) for row in rows] for name in PORTS}
    if unit.tables == 1:
        del inputs["table"]  # a port of no bits
    found = play(unit, inputs, {"results": 16 * unit.lanes, "ready": 1}, extra=unit.LATENCY)
    assert len(found["ready"]) == cycles(len(rows)) + 1  # the first input is in cycle 0
    return [unpacked(word, unit.lanes) for word in found["results"][unit.LATENCY :]], found["ready"]


def golden(codes, step):
    return shift_gelu(torch.tensor(codes), step, "safe").tolist()


@pytest.mark.slow
def test_every_code_with_every_step_equals_the_golden(play):
    """Fails for a digit, an octave or a sign that is wrong, a lane that reads another's code, and
    for a table that is ready a cycle early or late: a load comes as soon as it can, and the first
    code after it in the first cycle that counts.
    """
    chunks = [[code, ~code, (5 * code + 128) % 256 - 128] for code in CODES]
    reads = [{"codes": packed(chunk)} for chunk in chunks]
    steps = range(1, LARGEST_STEP + 1)
    rows = [row for step in steps for row in (*loads(step), *reads)]
    results, ready = record(play, ShiftGelu(lanes=3), rows)
    period = 1 + FILLING + len(reads)
    for index, step in enumerate(steps):
        begin = index * period
        found = results[begin + 1 + FILLING : begin + period]
        assert found == golden(chunks, step), f"step {step}"
        assert ready[begin : begin + period] == [1] + [0] * FILLING + [1] * len(reads)


def test_tables_of_layers_do_not_mix(play, rng):
    """Fails for a table that another's filling changes, or that is read for another layer."""
    steps = [rng.randint(1, LARGEST_STEP) for _ in range(3)]
    rows = [row for table, step in enumerate(steps) for row in loads(step, table)]
    begin = len(rows)
    reads = [(rng.randrange(3), [rng.randint(-128, 127) for _ in range(2)]) for _ in range(500)]
    rows += [{"table": table, "codes": packed(chunk)} for table, chunk in reads]
    results, _ = record(play, ShiftGelu(lanes=2, tables=3), rows)
    assert results[begin:] == [golden(chunk, steps[table]) for table, chunk in reads]


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="lanes: expected at least 1, got 0"):
        ShiftGelu(lanes=0)
    with pytest.raises(ValueError, match="tables: expected at least 1, got 0"):
        ShiftGelu(lanes=1, tables=0)
