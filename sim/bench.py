"""Verilated builds that are shared and kept, and cocotb runs on them.

A build is known by what goes into it (Verilog, options, tool versions) and made once per cache
folder, whoever asks first: others wait for its lock. Verilator's own runtime, most of a small
build's compile time, is compiled once per set of options and linked into each build.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cocotb_tools.config
from cocotb import __version__ as cocotb_version

from ..errors import VitruviusError
from .verilator import find_libpython, toolchain_environment, verilator_version
from .wave_library import WAVE_FOLDER, write_wave_library

__all__ = [
    "BenchError",
    "Build",
    "TestResult",
    "borrow_runtime",
    "build_cocotb",
    "cache_folder",
    "cached_build",
    "call_tool",
    "cocotb_environment",
    "compiler_version",
    "run_cocotb",
    "run_logged",
]

_RUNTIME = ("verilated", "verilated_vpi", "verilated_threads", "verilated_fst_c")
_ARGUMENTS = (
    "--cc", "--exe", "--vpi", "--public-depth", "1", "--prefix", "Vtop", "--timescale", "1ns/1ps",
    "--no-timing", "-Wno-fatal", "-Wno-WIDTH", "-O3", "--x-assign", "fast", "--x-initial", "fast",
    "-CFLAGS", "-O2",
)  # fmt: skip
_TRACE_ARGUMENTS = (
    "--trace-fst", "-CFLAGS", f"-I../{WAVE_FOLDER}", "-LDFLAGS", f"-L../{WAVE_FOLDER}",
)  # fmt: skip
_TAIL_LINES = 40
_POLL_S = 0.1


class BenchError(RuntimeError):
    """A cocotb test failed, or the simulation ended early; the text ends with the log's tail."""


@dataclass(frozen=True)
class Build:
    """A verilated design: its folder, its top module, and the seconds it took to make.

    ``cached`` tells whether it was found ready; ``trace`` whether it can write waves.
    """

    directory: Path
    top: str
    build_s: float
    cached: bool
    trace: bool

    @property
    def executable(self) -> Path:
        return self.directory / "simulation"


@dataclass(frozen=True)
class TestResult:
    """One cocotb test that passed: its name, simulated time in ns and wall time in s."""

    __test__ = False  # pytest: not a class of tests

    name: str
    simulated_ns: float
    wall_s: float


def cache_folder() -> Path:
    """Where builds are kept: $VITRUVIUS_CACHE, or ``~/.cache/vitruvius``; made if it is not there.

    Raises
    ------
    VitruviusError
        The folder cannot be made or written.
    """
    folder = Path(os.environ.get("VITRUVIUS_CACHE") or Path.home() / ".cache" / "vitruvius")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise VitruviusError(
            "build cache: expected a writable folder (VITRUVIUS_CACHE names another),"
            f" got {folder}: {error.strerror}"
        ) from None
    return folder.resolve()


@contextmanager
def cached_build(kind: str, key_parts: Sequence[str]) -> Iterator[tuple[Path, Path | None]]:
    """(folder, scratch): the kept folder of what ``key_parts`` name, and where to make it.

    ``scratch`` is None if the folder is there already. Otherwise the body fills ``scratch``, which
    becomes ``folder`` when the body ends without error; others that want the same wait meanwhile.
    """
    key = hashlib.sha256("\0".join(key_parts).encode()).hexdigest()[:32]
    shelf = cache_folder() / kind
    shelf.mkdir(parents=True, exist_ok=True)
    folder = shelf / key
    if folder.is_dir():
        yield folder, None
        return
    with (shelf / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            yield folder, None
            return
        scratch = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=shelf))
        try:
            yield folder, scratch
            scratch.replace(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def build_cocotb(verilog: str, top: str, *, trace: bool = False) -> Build:
    """Compile Verilog text for cocotb, or find the build of the same text.

    cocotb sees the top module's signals only: what is visible cannot be optimised.

    ``trace``: able to write waves (FST), at some cost in speed.

    Raises
    ------
    VitruviusError
        A tool is missing, or Verilator or the compiler fails; the text ends with the log's tail.
    """
    arguments = [*_ARGUMENTS, *(_TRACE_ARGUMENTS if trace else [])]
    environment = toolchain_environment()
    versions = [verilator_version(), cocotb_version, compiler_version(environment["PATH"])]
    with cached_build("verilator", [verilog, top, *arguments, *versions]) as (folder, scratch):
        if scratch is not None:
            _compile(scratch, verilog, top, arguments, versions, environment)
        record = json.loads(((scratch or folder) / "build.json").read_text())
    return Build(folder, top, record["build_s"], scratch is None, trace)


def _compile(
    scratch: Path,
    verilog: str,
    top: str,
    arguments: list[str],
    versions: list[str],
    environment: dict[str, str],
) -> None:
    began = time.perf_counter()
    (scratch / "top.v").write_text(verilog)
    write_wave_library(scratch)
    libraries = Path(cocotb_tools.config.libs_dir)
    main = Path(cocotb_tools.config.share_dir) / "lib" / "verilator" / "verilator.cpp"
    objects = scratch / "objects"
    translate = ["verilator", *arguments, "--top-module", top, "-Mdir", str(objects)]
    translate += ["-o", "../simulation", "-LDFLAGS", f"-L{libraries} -lcocotbvpi_verilator"]
    call_tool([*translate, str(main), "top.v"], scratch, environment)
    borrow_runtime(objects, [*arguments, *versions], environment)
    make = ["make", "-j", str(min(os.cpu_count() or 1, 8)), "-C", str(objects), "-f", "Vtop.mk"]
    call_tool(make, scratch, environment)
    shutil.rmtree(objects)
    shutil.rmtree(scratch / WAVE_FOLDER)
    record = {"build_s": time.perf_counter() - began}
    (scratch / "build.json").write_text(json.dumps(record))


def borrow_runtime(objects: Path, key_parts: list[str], environment: dict[str, str]) -> None:
    """Put the compiled Verilator runtime beside a fresh Vtop.mk; the first time, compile it."""
    wanted = [f"{name}.o" for name in _RUNTIME if f" {name} " in _runtime_list(objects)]
    with cached_build("runtime", key_parts) as (folder, scratch):
        if scratch is not None:
            make = ["make", "-j", str(os.cpu_count() or 1), "-C", str(objects), "-f", "Vtop.mk"]
            call_tool([*make, *wanted], objects.parent, environment)
            for name in wanted:
                shutil.copy2(objects / name, scratch / name)
    for name in wanted:
        shutil.copyfile(folder / name, objects / name)


def _runtime_list(objects: Path) -> str:
    """Names of the runtime's source files in Vtop_classes.mk, each between spaces."""
    words = (objects / "Vtop_classes.mk").read_text().split()
    return " " + " ".join(words) + " "


def run_cocotb(
    build: Build,
    module: str,
    *,
    environment: Mapping[str, str],
    result_dir: Path,
    test_filter: str | None = None,
    python_path: Sequence[Path] = (),
    stop: threading.Event | None = None,
) -> list[TestResult]:
    """Run the cocotb tests of a Python module on a build, in ``result_dir``.

    Parameters
    ----------
    build
        the design; a build can run any number of times, also at the same time.
    module
        import name, found on ``python_path`` or this process's own path.
    environment
        variables that the tests read, added to this process's own.
    result_dir
        made if needed; receives ``simulation.log``, ``results.xml`` and, for a build with
        ``trace``, the waves ``dump.fst``. Runs at the same time need different folders.
    test_filter
        regular expression; only tests whose full name (module.test) it finds are run.
    python_path
        folders that the simulation's Python searches first.
    stop
        once set, the simulation is ended.

    Raises
    ------
    BenchError
        A test failed, none ran, or the simulation ended early.
    """
    result_dir = result_dir.resolve()
    result_dir.mkdir(parents=True, exist_ok=True)
    results = result_dir / "results.xml"
    results.unlink(missing_ok=True)
    log = result_dir / "simulation.log"
    variables = cocotb_environment(build.top, module, results, python_path=python_path)
    variables.update(environment)
    if test_filter is not None:
        variables["COCOTB_TEST_FILTER"] = test_filter
    command = [str(build.executable), *(["--trace"] if build.trace else [])]
    code = run_logged(command, log, folder=result_dir, environment=variables, stop=stop)
    passed, failed = _read_results(results)
    if failed or code != 0 or not passed:
        reason = ", ".join(failed) if failed else f"no test result, exit code {code}"
        raise BenchError(f"cocotb module {module} failed ({reason}):\n{_tail(log)}")
    return passed


def run_logged(
    command: Sequence[str],
    log: Path,
    *,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> int:
    """Run a command with all its output in ``log``; its exit code. It ends once ``stop`` is set."""
    with (
        log.open("w") as stream,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=stream, stderr=stream
        ) as process,
    ):
        while True:
            try:
                return process.wait(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                if stop is not None and stop.is_set():
                    process.kill()


def cocotb_environment(
    top: str, module: str, results: Path, *, python_path: Sequence[Path] = ()
) -> dict[str, str]:
    """Environment of this process, and what cocotb's own runner sets for Verilator (cocotb 2.1,
    custom flows). The Python inside searches ``python_path``, then what this one searches.

    Raises VitruviusError if this Python has no shared library.
    """
    libraries = str(cocotb_tools.config.libs_dir)
    library = find_libpython()
    if library.path is None:
        raise VitruviusError(
            f"cocotb needs the shared library of {sys.executable}, which was not found: "
            + library.remedy
        )
    return {
        **os.environ,
        "COCOTB_TOPLEVEL": top,
        "COCOTB_TEST_MODULES": module,
        "COCOTB_RESULTS_FILE": str(results),
        "COCOTB_TRUST_INERTIAL_WRITES": "1",
        "GPI_USERS": f"{library.path};{cocotb_tools.config.pygpi_entry_point()}",
        "LD_LIBRARY_PATH": os.pathsep.join(
            filter(None, [libraries, os.environ.get("LD_LIBRARY_PATH", "")])
        ),
        "PYGPI_PYTHON_BIN": sys.executable,
        "PYTHONPATH": os.pathsep.join([*map(str, python_path), *sys.path]),
        "TOPLEVEL_LANG": "verilog",
    }


def _read_results(path: Path) -> tuple[list[TestResult], list[str]]:
    """(passed tests, names of failed tests) of a results file; none if it is missing or cut."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError):
        return [], []
    passed: list[TestResult] = []
    failed: list[str] = []
    for case in root.iter("testcase"):
        name = case.get("name", "")
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
        elif case.find("skipped") is None:
            properties = {item.get("name"): item.get("value") for item in case.iter("property")}
            simulated = float(properties.get("sim_time_duration") or 0)
            passed.append(TestResult(name, simulated, float(case.get("time", 0))))
    return passed, failed


def call_tool(command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Run a step of a build; its output is kept only in the error."""
    completed = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if completed.returncode != 0:
        tail = "\n".join(completed.stdout.splitlines()[-_TAIL_LINES:])
        raise VitruviusError(f"{command[0]} failed with exit code {completed.returncode}:\n{tail}")


def compiler_version(path: str) -> str:
    """What g++ says its version is, of the first g++ in a list of folders as PATH has it."""
    completed = subprocess.run(
        ["g++", "-dumpfullversion", "-dumpversion"],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return completed.stdout.strip()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
