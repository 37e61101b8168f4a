import pytest
import torch

from vitruvius.hwgen.units.ivit.code_tables import ENTRIES
from vitruvius.hwgen.units.ivit.gelu_table import (
    ShiftGeluTables,
    cycles,
    table_entries,
    table_words,
)
from vitruvius.models.integer.ivit.dyadic import Dyadic31, dyadic31, requantize31
from vitruvius.models.integer.ivit.shift_gelu import LARGEST_STEP, shift_gelu

PORTS = ("codes", "table", "write_enable", "write_address", "write_data")


def layers(rng, count):
    """Steps and output factors: corners first, one with a negative factor, then random ones."""
    corners = [
        (20, dyadic31(0.0101)),
        (LARGEST_STEP, dyadic31(1 / 128)),
        (1, Dyadic31(0, 1)),
        (8, dyadic31(-0.02)),
    ]
    while len(corners) < count:
        corners.append((rng.randint(1, LARGEST_STEP), dyadic31(rng.uniform(0.002, 0.05))))
    return corners[:count]


def packed(lanes):
    return sum((code & 0xFF) << (8 * lane) for lane, code in enumerate(lanes))


def record(play, unit, rows):
    """The chunk at the output for each row of inputs, by row; absent ports are 0."""
    inputs = {name: [row.get(name, 0) for row in rows] for name in PORTS}
    if unit.tables == 1:
        del inputs["table"]  # a port of no bits
    bits = 8 * unit.lanes
    words = play(unit, inputs, {"out": bits}, extra=unit.LATENCY)["out"]
    assert len(words) == cycles(len(rows)) + 1  # the first input is in cycle 0
    return words[unit.LATENCY :]


@pytest.mark.parametrize(("lanes", "tables", "word"), [(1, 1, 1), (2, 5, 2), (3, 6, 4), (4, 3, 16)])
def test_every_code_of_every_layer_equals_the_golden(play, rng, lanes, tables, word):
    """Fails for a wrong place in the word, lane, table, or latency, and for a lane that shares its
    memory wrongly: every lane reads another code, the table changes every cycle.
    """
    steps = layers(rng, tables)
    words = [value for a, output in steps for value in table_words(table_entries(a, output), word)]
    order = list(enumerate(words))
    rng.shuffle(order)
    writes = [
        {"write_enable": 1, "write_address": address, "write_data": value}
        for address, value in order
    ]
    reads = []
    for lane in range(lanes):  # every lane meets every code of every table at least once
        places = [(code, table) for code in range(-128, 128) for table in range(tables)]
        rng.shuffle(places)
        for code, table in places:
            others = [rng.randint(-128, 127) for _ in range(lanes)]
            others[lane] = code
            reads.append((others, table))
    rows = [*writes, *({"codes": packed(codes), "table": table} for codes, table in reads)]
    found = record(play, ShiftGeluTables(lanes=lanes, tables=tables, word=word), rows)
    codes = torch.tensor([chunk for chunk, _ in reads])
    expected = torch.stack(
        [
            requantize31(shift_gelu(codes, a, "safe"), output.multiplier, output.shift, 8)
            for a, output in steps
        ]
    )
    which = torch.tensor([table for _, table in reads])
    golden = expected[which, torch.arange(len(reads))].tolist()
    assert found[len(writes) :] == [packed(chunk) for chunk in golden]
    assert len(set(codes.flatten().tolist())) == ENTRIES


def test_a_write_changes_its_word_alone_and_reads_go_on_beside_it(play, rng):
    """The odd lane has a port of its own: its result of the cycle of a write is as of any other;
    of the word that is being written it is the old one.
    """
    old = [rng.randint(-128, 127) for _ in range(ENTRIES)]
    new = [value ^ 0x55 for value in old]
    rows = [
        {"write_enable": 1, "write_address": address, "write_data": value}
        for address, value in enumerate(table_words(old, 4))
    ]
    begin = len(rows)
    codes = [rng.randrange(ENTRIES) for _ in range(64)]
    for code in codes:  # writes the word that holds the code, then reads both lanes
        word = code // 4
        value = table_words(new, 4)[word]
        write = {"write_enable": 1, "write_address": word, "write_data": value}
        rows += [{**write, "codes": packed([0, code])}, {"codes": packed([code, code])}]
    found = record(play, ShiftGeluTables(lanes=2, tables=1), rows)[begin:]
    written: set[int] = set()
    for index, code in enumerate(codes):
        before = (new if code // 4 in written else old)[code]
        written.add(code // 4)
        assert found[2 * index] >> 8 == before & 0xFF
        assert found[2 * index + 1] == packed([new[code], new[code]])
    assert len(written) < len(codes)


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="lanes: expected at least 1, got 0"):
        ShiftGeluTables(lanes=0, tables=1)
    with pytest.raises(ValueError, match="tables: expected at least 1, got 0"):
        ShiftGeluTables(lanes=1, tables=0)
    with pytest.raises(ValueError, match="word: expected 1, 2, 4, 8 or 16, got 3"):
        ShiftGeluTables(lanes=1, tables=1, word=3)
