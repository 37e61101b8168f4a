"""What the tests of the AXI side share: a seeded generator, and units that run on Verilator."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

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


@pytest.fixture
def bench(tmp_path):
    """``bench(component, module, test, stimulus)``: what that cocotb test writes down."""

    def run(component, module, test, stimulus):
        build = build_cocotb(to_verilog(component, "unit"), "unit")
        (tmp_path / "stimulus.json").write_text(json.dumps(stimulus))
        run_cocotb(
            build,
            module,
            test_filter=rf"\.{test}$",
            environment={
                "BENCH_STIMULUS": str(tmp_path / "stimulus.json"),
                "BENCH_RECORD": str(tmp_path / "record.json"),
            },
            result_dir=tmp_path,
            python_path=[_FOLDER, _FOLDER.parent],
        )
        return json.loads((tmp_path / "record.json").read_text())

    return run
