import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from vitruvius.errors import VitruviusError
from vitruvius.hwgen.verilog import to_verilog
from vitruvius.sim import bench
from vitruvius.sim.bench import BenchError, build_cocotb, cached_build, run_cocotb, run_logged

HERE = Path(__file__).parent


class Counter(wiring.Component):
    count: Out(16)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.count.eq(self.count + 1)
        return m


@pytest.fixture(scope="module")
def build():
    return build_cocotb(to_verilog(Counter(), "counter"), "counter")


def run(build, folder, name="counts", expected=100):
    return run_cocotb(
        build,
        "counter_bench",
        test_filter=rf"\.{name}$",
        environment={"EXPECTED": str(expected)},
        result_dir=folder,
        python_path=[HERE],
    )


def test_the_same_text_is_built_once(build):
    again = build_cocotb(to_verilog(Counter(), "counter"), "counter")
    assert again.cached
    assert again.directory == build.directory
    assert again.build_s == build.build_s > 0


def test_a_run_reports_its_tests(build, tmp_path):
    (result,) = run(build, tmp_path)
    assert result.name == "counts"
    assert result.simulated_ns == pytest.approx(102 * 10, abs=20)


def test_several_runs_at_the_same_time(build, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        jobs = [
            pool.submit(run, build, tmp_path / str(index), expected=50 * (index + 1))
            for index in range(3)
        ]
    assert [len(job.result()) for job in jobs] == [1, 1, 1]


def test_a_failing_test_is_named_with_its_log(build, tmp_path):
    with pytest.raises(BenchError, match=r"(?s)failed \(fails\).*three is not four"):
        run(build, tmp_path, name="fails")


def test_a_filter_that_finds_nothing_is_an_error(build, tmp_path):
    with pytest.raises(BenchError, match="no test result"):
        run(build, tmp_path, name="absent")


def test_bad_verilog_is_refused_with_the_reason():
    with pytest.raises(VitruviusError, match=r"(?s)verilator failed.*syntax error"):
        build_cocotb("module broken(input clk; endmodule", "broken")


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRUVIUS_CACHE", str(tmp_path))

    def attempt(fail):
        with cached_build("thing", ["key"]) as (folder, scratch):
            assert scratch is not None
            (scratch / "part").write_text("x")
            if fail:
                raise RuntimeError("stop")
        return folder

    with pytest.raises(RuntimeError, match="stop"):
        attempt(fail=True)
    assert [path for path in (tmp_path / "thing").iterdir() if path.is_dir()] == []
    assert (attempt(fail=False) / "part").read_text() == "x"
    with cached_build("thing", ["key"]) as (_, scratch):
        assert scratch is None


def test_processes_that_want_the_same_build_share_it(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRUVIUS_CACHE", str(tmp_path))
    made = []

    def make(index):
        with cached_build("thing", ["key"]) as (folder, scratch):
            if scratch is not None:
                made.append(index)
                (scratch / "part").write_text(str(index))
        return (folder / "part").read_text()

    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(make, range(8)))
    assert len(made) == 1
    assert texts == [str(made[0])] * 8


def test_a_cache_that_is_a_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("")
    monkeypatch.setenv("VITRUVIUS_CACHE", str(path))
    with pytest.raises(VitruviusError, match=f"expected a writable folder .*got {path}"):
        bench.cache_folder()


def test_waves_hold_the_signal_names(tmp_path):
    """The FST file's hierarchy block, unpacked by an LZ4 reader written from the format's text."""
    build = build_cocotb(to_verilog(Counter(), "counter"), "counter", trace=True)
    run(build, tmp_path)
    content = (tmp_path / "dump.fst").read_bytes()
    blocks = {}
    at = 0
    while at < len(content):
        kind, size = struct.unpack(">BQ", content[at : at + 9])
        blocks[kind] = content[at + 9 : at + 1 + size]
        at += 1 + size
    assert set(blocks) >= {0, 3, 6, 8}  # header, geometry, hierarchy (LZ4), value changes
    (size,) = struct.unpack(">Q", blocks[6][:8])
    names = unpack_lz4(blocks[6][8:])
    assert len(names) == size
    assert b"count" in names
    assert b"clk" in names


def unpack_lz4(block):
    out = bytearray()
    at = 0

    def length(nibble):
        nonlocal at
        total = nibble
        while nibble == 15:
            total += block[at]
            at += 1
            if block[at - 1] != 255:
                break
        return total

    while at < len(block):
        token = block[at]
        at += 1
        literals = length(token >> 4)
        out += block[at : at + literals]
        at += literals
        if at == len(block):
            break
        distance = block[at] | block[at + 1] << 8
        at += 2
        for _ in range(length(token & 15) + 4):
            out.append(out[-distance])
    return bytes(out)


def test_a_command_ends_when_it_is_told_to(tmp_path):
    """An interrupted co-simulation must not leave simulators behind, or wait for them."""
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    began = time.perf_counter()
    command = [sys.executable, "-c", "import time; print('on', flush=True); time.sleep(60)"]
    code = run_logged(command, tmp_path / "log", folder=tmp_path, stop=stop)
    assert code < 0
    assert time.perf_counter() - began < 30
    command = [sys.executable, "-c", "print('done'); raise SystemExit(3)"]
    assert run_logged(command, tmp_path / "log", folder=tmp_path) == 3
    assert (tmp_path / "log").read_text() == "done\n"


def test_a_python_without_its_library_is_told_apart(build, tmp_path, monkeypatch):
    """cocotb loads libpython into the simulator; the error names the package that has it."""
    monkeypatch.setattr("find_libpython.find_libpython", lambda: None)
    with pytest.raises(VitruviusError, match=r"apt-get install libpython3\.\d+"):
        run(build, tmp_path)
