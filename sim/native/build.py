"""Compiles an accelerator together with the harness into one program, once per text."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ...errors import VitruviusError
from ..bench import borrow_runtime, cached_build, call_tool, compiler_version
from ..verilator import toolchain_environment, verilator_version
from ..wave_library import WAVE_FOLDER, write_wave_library

__all__ = ["INPUTS", "OUTPUTS", "PORT_BITS", "NativeBuild", "build_native", "port_bits_of"]

PORT_BITS = (64, 128, 256, 512)
_HARNESS = "harness.cpp"
# Measured on accelerators of 1024 multipliers, in seconds of one core and cycles per such second:
# -O1 90 s and 70,000; -O2 161 s and 92,000, which pays from 20 million cycles on. Without
# -march=native a sixth less speed; with a profile a tenth more, for two builds; -Os and two
# threads are slower; smaller files and --x-initial make no difference.
_ARGUMENTS = (
    "--cc", "--exe", "--prefix", "Vtop", "--timescale", "1ns/1ps", "--no-timing", "-Wno-fatal",
    "-Wno-lint", "-O3", "--x-assign", "fast", "--x-initial", "unique", "--noassert",
    "-CFLAGS", "-O1 -march=native",
)  # fmt: skip
_TRACE_ARGUMENTS = (
    "--trace-fst", "-CFLAGS", f"-I../{WAVE_FOLDER}", "-LDFLAGS", f"-L../{WAVE_FOLDER}",
)  # fmt: skip
_BURST = ("id", "addr", "len", "size", "burst", "cache", "prot", "valid")

OUTPUTS = frozenset(
    [
        *(f"memory_{channel}{name}" for channel in ("ar", "aw") for name in _BURST),
        *(f"memory_w{name}" for name in ("data", "strb", "last", "valid")),
        *(f"memory_{name}" for name in ("rready", "bready")),
        *(f"control_{name}" for name in ("awready", "wready", "arready")),
        *(f"control_{name}" for name in ("bresp", "bvalid", "rdata", "rresp", "rvalid")),
        "interrupt",
    ]
)
INPUTS = frozenset(
    [
        "clk",
        "rst",
        *(f"memory_{name}" for name in ("arready", "awready", "wready")),
        *(f"memory_r{name}" for name in ("id", "data", "resp", "last", "valid")),
        *(f"memory_b{name}" for name in ("id", "resp", "valid")),
        *(f"control_a{way}{name}" for way in "rw" for name in ("addr", "prot", "valid")),
        *(f"control_{name}" for name in ("wdata", "wstrb", "wvalid", "bready", "rready")),
    ]
)
"""Ports of the top module, seen from it."""


@dataclass(frozen=True)
class NativeBuild:
    """A compiled accelerator with its harness: where it is, and the seconds it took to make.

    ``port_bits``: width of the memory port, 0 if there is none; ``cached``: found ready;
    ``trace``: can write waves.
    """

    directory: Path
    port_bits: int
    build_s: float
    cached: bool
    trace: bool

    @property
    def executable(self) -> Path:
        return self.directory / "simulation"


def build_native(
    verilog: str, top: str = "vitruvius", *, trace: bool = False, jobs: int | None = None
) -> NativeBuild:
    """Compiles Verilog text with the harness, or finds the build of the same text.

    top: a module with exactly the ports `INPUTS` and `OUTPUTS`, those of the memory port all or
    none; its width is taken from the text. trace: able to write waves (FST), at some cost in
    speed. jobs: compilers at a time; by default one per core.

    Raises
    ------
    VitruviusError
        A port is missing or of another width, a tool is missing, or Verilator or the compiler
        fails; then the text ends with the log's tail.
    """
    port_bits = port_bits_of(verilog, top)
    arguments = [*_ARGUMENTS, *(_TRACE_ARGUMENTS if trace else [])]
    environment = toolchain_environment()
    path = environment["PATH"]
    tools = [*arguments, verilator_version(), compiler_version(path), _processor(path)]
    harness = _harness()
    key = [verilog, top, *harness, *harness.values(), *tools]
    with cached_build("native", key) as (folder, scratch):
        if scratch is not None:
            began = time.perf_counter()
            (scratch / "top.v").write_text(verilog)
            for name, text in harness.items():
                (scratch / name).write_text(text)
            write_wave_library(scratch)
            objects = scratch / "objects"
            define = ["-CFLAGS", f"-DPORT_BITS={port_bits} -I.."]
            translate = ["verilator", *arguments, *define, "--top-module", top]
            translate += ["-Mdir", str(objects), "-o", "../simulation"]
            call_tool([*translate, str(scratch / _HARNESS), "top.v"], scratch, environment)
            borrow_runtime(objects, tools, environment)
            _make(objects, jobs, environment)
            shutil.rmtree(objects)
            shutil.rmtree(scratch / WAVE_FOLDER)
            record = {"build_s": time.perf_counter() - began}
            (scratch / "build.json").write_text(json.dumps(record))
        build_s = json.loads(((scratch or folder) / "build.json").read_text())["build_s"]
    return NativeBuild(folder, port_bits, build_s, scratch is None, trace)


def _processor(path: str) -> str:
    """What g++ may use of this processor: a build runs only where all of it is there."""
    completed = subprocess.run(
        ["g++", "-march=native", "-dM", "-E", "-x", "c++", os.devnull],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return completed.stdout


def _make(objects: Path, jobs: int | None, environment: Mapping[str, str]) -> None:
    count = jobs or min(os.cpu_count() or 1, 8)
    make = ["make", "-j", str(count), "-C", str(objects), "-f", "Vtop.mk"]
    call_tool(make, objects.parent, environment)


def _harness() -> dict[str, str]:
    """Name -> text of the C++ files beside this one."""
    folder = resources.files(__package__)
    files = [file for file in folder.iterdir() if file.name.endswith((".cpp", ".h"))]
    return {file.name: file.read_text() for file in sorted(files, key=lambda file: file.name)}


def port_bits_of(verilog: str, top: str = "vitruvius") -> int:
    """Width of the memory port of the module ``top`` in Verilog text; 0 if there is no such port.

    Raises VitruviusError if the module is not there, a port is missing or has another direction,
    there is one too many, or the width is not in `PORT_BITS`.
    """
    module = re.search(rf"^\s*module {re.escape(top)}\b.*?^\s*endmodule", verilog, re.M | re.S)
    if module is None:
        raise VitruviusError(f"native build: expected a module '{top}' in the Verilog, found none")
    pattern = r"\b(input|output)\s+(?:wire\s+|reg\s+)?(?:\[(\d+):0\]\s*)?(\w+)"
    found = re.findall(pattern, module[0])
    port = any(name.startswith("memory_") for _, _, name in found)
    problems = []
    for direction, known in (("input", INPUTS), ("output", OUTPUTS)):
        expected = {name for name in known if port or not name.startswith("memory_")}
        ports = {name for way, _, name in found if way == direction}
        problems += [f"no {direction} {name}" for name in sorted(expected - ports)]
        problems += [f"an {direction} {name} too many" for name in sorted(ports - expected)]
    if problems:
        raise VitruviusError(
            f"native build: expected the accelerator's ports on module '{top}', found "
            + ", ".join(problems)
        )
    if not port:
        return 0
    width = next(int(top_bit or 0) + 1 for _, top_bit, name in found if name == "memory_rdata")
    if width not in PORT_BITS:
        raise VitruviusError(
            f"native build: expected memory_rdata of 64, 128, 256 or 512 bits, got {width}"
        )
    return width
