"""What the unit tests share: a seeded generator, and units that run on Verilator."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from amaranth.hdl import Value

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
