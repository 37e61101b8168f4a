"""What the unit tests share: a seeded generator, and units that run on Verilator."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from amaranth.hdl import Value

from vitruvius.hwgen.units.score_rows import ScoreRows
from vitruvius.hwgen.verilog import to_verilog
from vitruvius.sim.bench import build_cocotb, run_cocotb

_FOLDER = Path(__file__).parent


def pytest_configure(config):
    """A unit that refuses its parameters is never elaborated, which amaranth would warn of."""
    config.addinivalue_line("filterwarnings", "ignore::amaranth.hdl.UnusedElaboratable")


@pytest.fixture
def rng():
    """A random generator whose seed is printed; VITRUVIUS_SEED replays it."""
    seed = int(os.environ.get("VITRUVIUS_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"VITRUVIUS_SEED={seed}")
    return random.Random(seed)


def simulate(component, test, stimulus, folder, before=""):
    build = build_cocotb(before + to_verilog(component, "unit"), "unit")
    (folder / "stimulus.json").write_text(json.dumps(stimulus))
    run_cocotb(
        build,
        "player",
        test_filter=rf"\.{test}$",
        environment={
            "BENCH_STIMULUS": str(folder / "stimulus.json"),
            "BENCH_RECORD": str(folder / "record.json"),
        },
        result_dir=folder,
        python_path=[_FOLDER, _FOLDER.parent],
    )
    return json.loads((folder / "record.json").read_text())


@pytest.fixture
def play(tmp_path):
    """``play(component, inputs, outputs, extra)``: what comes out in every cycle.

    ``inputs``: {port: values, one a cycle}, ``outputs``: {port: bits}, negative for signed; the run
    is ``extra`` cycles longer than the inputs. ``before``: Verilog in front of the component's.
    """

    def run(component, inputs, outputs, *, extra, before=""):
        length = max(len(values) for values in inputs.values())
        masked = {
            name: [value & _mask(component, name) for value in values]
            for name, values in inputs.items()
        }
        stimulus = {"inputs": masked, "outputs": list(outputs), "cycles": length + extra}
        record = simulate(component, "cycles", stimulus, tmp_path, before)
        return {
            name: [signed(value, bits) for value in record[name]] for name, bits in outputs.items()
        }

    return run


@pytest.fixture
def play_streams(tmp_path):
    """``play_streams(component, offers, results)``: cycles of inputs, and results.

    ``offering`` and ``accepting`` are repeating patterns of the cycles in which a payload may first
    be offered, and in which a result is taken. ``setup``: port values of cycles before the first.
    """

    def run(
        component,
        offers,
        results,
        *,
        offering=(1,),
        accepting=(1,),
        limit=200_000,
        setup=(),
        **constants,
    ):
        stimulus = {
            "offers": list(offers),
            "results": results,
            "offering": list(offering),
            "accepting": list(accepting),
            "limit": limit,
            "setup": list(setup),
            "constants": constants,
        }
        record = simulate(component, "streams", stimulus, tmp_path)
        assert len(record["given"]) == results, f"{len(record['given'])} of {results} results"
        return record["taken"], [tuple(transfer) for transfer in record["given"]]

    return run


def _mask(component, name):
    return (1 << len(Value.cast(getattr(component, name)))) - 1


def signed(value, bits):
    """``value`` as a number of ``-bits`` signed bits, if ``bits`` is negative."""
    if bits < 0 and value >> (-bits - 1):
        return value - (1 << -bits)
    return value


class Arrivals:
    """Rows of scores that arrive in rotated order on interleaved slots, as a machine sends them.

    ``inputs``: the input ports of every cycle; ``arrivals``: the cycles of the rows' last
    chunks, in ``order`` of the rows' numbers.
    """

    def __init__(self, rng, rows, *, slots, lanes, score_bits, busyness):
        self.rows, self.slots, self.lanes, self.score_bits = rows, slots, lanes, score_bits
        length = len(rows[0])
        self.tiles = -(-length // lanes)
        self.last_count = length - (self.tiles - 1) * lanes
        ports = ("valid", "slot", "tile", "count", "first", "last", "row", "scores")
        self.inputs = {name: [] for name in ports}
        self.arrivals = []
        self.order = []
        self._interleave(rng, busyness)

    def _interleave(self, rng, busyness):
        waiting = list(range(len(self.rows)))
        current = {}  # slot -> (row, tiles still to come)
        history = {slot: [] for slot in range(self.slots)}
        cycle = 0
        while waiting or current:
            slot = rng.randrange(self.slots)
            chunk = None
            if rng.random() < busyness:
                if slot not in current and waiting and self._free(history[slot], cycle):
                    start = rng.randrange(self.tiles)
                    order = [(start + step) % self.tiles for step in range(self.tiles)]
                    current[slot] = (waiting.pop(0), order)
                    history[slot].append(None)
                if slot in current:
                    row, order = current[slot]
                    tile = order.pop(0)
                    chunk = (slot, tile, len(order) == self.tiles - 1, not order, row)
                    if not order:
                        del current[slot]
                        history[slot][-1] = len(self.arrivals)
                        self.arrivals.append(cycle)
                        self.order.append(row)
            self._put(rng, chunk)
            cycle += 1

    def _free(self, history, cycle):
        """Whether the row before the last of this slot has been read from its half."""
        if len(history) < 2:
            return True
        return cycle >= self.reads()[history[-2]] + self.tiles

    def reads(self):
        """The cycle of the first read of each row, in order of arrival."""
        begun, free = [], 0
        for arrival in self.arrivals:
            begun.append(max(arrival + ScoreRows.START, free))
            free = begun[-1] + self.tiles
        return begun

    def _put(self, rng, chunk):
        # Lanes that are not valid, and cycles without a chunk, carry the largest score.
        scores = [(1 << (self.score_bits - 1)) - 1] * self.lanes
        slot, tile, first, last, row, count = rng.randrange(self.slots), 0, 1, 1, 0, self.lanes
        if chunk is not None:
            slot, tile, first, last, row = chunk
            count = self.last_count if tile == self.tiles - 1 else self.lanes
            begin = tile * self.lanes
            scores[:count] = self.rows[row][begin : begin + count]
        mask = (1 << self.score_bits) - 1
        packed = sum(
            (score & mask) << (self.score_bits * lane) for lane, score in enumerate(scores)
        )
        values = (int(chunk is not None), slot, tile, count, int(first), int(last), row, packed)
        for name, value in zip(self.inputs, values, strict=True):
            self.inputs[name].append(value)


@pytest.fixture
def arrivals():
    """The class `Arrivals`."""
    return Arrivals


@pytest.fixture
def norm_row_examples():
    """``norm_row_examples(rng, width)``: rows of 16-bit codes for the units of LayerNorm.

    All equal, most negative, saturating both ways, maximum first and last, means that are ties, a
    single step from equal, then random ones.
    """

    def rows(rng, width):
        found = [
            [0] * width,
            [-32768] * width,
            [32767] * width,
            [32767] + [-32768] * (width - 1),
            [-32768] * (width - 1) + [32767],
            [-32768 if index % 2 else 32767 for index in range(width)],
            [1] + [0] * (width - 1),
            [index % 2 + 2 for index in range(width)],
            [-(index % 2) - 3 for index in range(width)],
        ]
        for _ in range(6):
            middle, spread = rng.randint(-8000, 8000), rng.choice([1, 30, 2000, 24000])
            found.append([middle + rng.randint(-spread, spread) for _ in range(width)])
        return [[max(-32768, min(32767, value)) for value in row] for row in found]

    return rows


@pytest.fixture
def pack():
    """``pack(layout, **fields)``: a structure as the number at its port."""

    def packed(layout, **fields):
        return sum(
            (fields[name] & ((1 << field.width) - 1)) << field.offset for name, field in layout
        )

    return packed
