"""Writes an accelerator: Verilog, memory images, manifest, register map, program listing."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ..errors import VitruviusError
from .accelerator import Accelerator
from .instruction import LAYOUT, Opcode
from .machine import Machine
from .manifest import IMAGE_FILES, manifest_of
from .program import Program
from .registers import REGISTERS, register_header, register_table
from .verilog import to_verilog

__all__ = ["TOP", "generate", "verilog_of"]

TOP = "vitruvius"
"""Name of the top module."""


def verilog_of(machine: Machine) -> str:
    """Verilog of the accelerator of ``machine``; it depends on nothing else."""
    return to_verilog(Accelerator(machine), TOP)


def generate(program: Program, out: Path) -> list[Path]:
    """Writes the accelerator of ``program`` into the folder ``out`` and returns the files.

    Everything is written beside the folder first and then moved in, so a failure leaves nothing
    half-written.
    Raises VitruviusError if ``out`` is a file or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise VitruviusError(f"output folder {out}: expected a folder, found a file")
    texts = {
        f"{TOP}.v": verilog_of(program.machine),
        "manifest.json": manifest_of(program).model_dump_json(indent=1) + "\n",
        "program.txt": _listing(program),
        "registers.md": register_table(REGISTERS),
        f"{TOP}.h": register_header(REGISTERS),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise VitruviusError(f"output folder {out}: cannot be written: {error.strerror}") from None
    try:
        for name, text in texts.items():
            (staging / name).write_text(text)
        for target, name in IMAGE_FILES.items():
            (staging / name).write_bytes(program.image_of(target))
        names = sorted([*texts, *IMAGE_FILES.values()])
        for name in names:
            (staging / name).replace(out / name)
    except OSError as error:
        raise VitruviusError(f"output folder {out}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [out / name for name in names]


def _listing(program: Program) -> str:
    """The program as text, one step a line, fields that are not zero."""
    lines = [f"# {program.model.name} on {program.machine.name}, {len(program.steps)} steps"]
    for index, step in enumerate(program.steps):
        item = step.instruction
        parts = [f"{index:4d} {item.opcode.name:8s} {step.name:32s}"]
        if item.opcode is Opcode.PRODUCT:
            parts.append(f"{item.a_source.name} x {item.b_source.name} -> {item.destination.name}")
        for name, _ in LAYOUT:
            value = int(getattr(item, str(name)))
            if value and name not in ("opcode", "a_source", "b_source", "destination"):
                parts.append(f"{name}={value}")
        lines.append(" ".join(parts).rstrip())
    return "\n".join(lines) + "\n"
