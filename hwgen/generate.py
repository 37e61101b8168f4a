"""Writes an accelerator: Verilog and its lint waivers, parameter image, manifest, register map,
program listing.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ..errors import VitruviusError
from .axi.register_map import register_header, register_map, register_table
from .core.accelerator import COUNTERS, Accelerator
from .core.counters import COUNTER_BITS, Counter
from .core.image import ParameterImage
from .core.instruction import Norm, Product
from .core.machine import Machine
from .core.program import Fetch, Program
from .lint import waiver_file
from .manifest import PARAMETERS_FILE, manifest_of
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
    registers = register_map(COUNTERS)
    parameters = ParameterImage(program).to_bytes()
    texts = {
        f"{TOP}.v": verilog_of(program.machine),
        f"{TOP}.vlt": waiver_file(f"{TOP}.v"),
        "manifest.json": manifest_of(program, parameters).model_dump_json(indent=1) + "\n",
        "program.txt": listing(program),
        "registers.md": register_table(registers),
        f"{TOP}.h": register_header(registers),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise VitruviusError(f"output folder {out}: cannot be written: {error.strerror}") from None
    try:
        for name, text in texts.items():
            (staging / name).write_text(text)
        (staging / PARAMETERS_FILE).write_bytes(parameters)
        names = sorted([*texts, PARAMETERS_FILE])
        for name in names:
            (staging / name).replace(out / name)
    except OSError as error:
        raise VitruviusError(f"output folder {out}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [out / name for name in names]


def listing(program: Program) -> str:
    """The programs of the three engines as text: what each instruction does and waits for."""
    lines = [
        f"# {program.model.name} on {program.machine.name}",
        "# Counters begin at 0 with a run and grow with every image; a threshold is that of the",
        "# first image. DRAINED, WEIGHED, NORMALISED: rows; FETCHED: transfers; ISSUED: products;",
        "# ROUTED: tokens.",
        "",
        f"# {len(program.boot)} transfers at boot",
        *(_fetch(index, fetch) for index, fetch in enumerate(program.boot)),
        "",
        f"# {len(program.fetches)} transfers of an image",
        *(_fetch(index, fetch) for index, fetch in enumerate(program.fetches)),
        "",
        f"# {len(program.steps)} products",
        *(_product(index, step.name, step.instruction) for index, step in enumerate(program.steps)),
        "",
        f"# {len(program.norms)} normalisations",
        *(
            _norm(index, norm.operator, norm.instruction)
            for index, norm in enumerate(program.norms)
        ),
    ]
    return "\n".join(lines) + "\n"


def _fetch(index: int, fetch: Fetch) -> str:
    wait = "" if fetch.threshold is None else f" when ISSUED >= {fetch.threshold}"
    if fetch.expert:
        wait += f" and ROUTED >= {fetch.routed}, if expert {fetch.expert - 1} has tokens"
    if fetch.tasks > 1:
        wait += f"; of task TASK of {fetch.tasks}, so many words further on"
    return (
        f"{index:4d} {fetch.target.name:16s} {fetch.words} words from {fetch.source} "
        f"to {fetch.destination}{wait}"
    )


def _product(index: int, name: str, item: Product) -> str:
    waits = []
    if item.start_wait is not Counter.NONE:
        waits.append(f"begins when {item.start_wait.name} >= {_signed(item.start_threshold)}")
    if item.relative:
        waits.append("rows behind those of the product before")
    elif item.row_wait is not Counter.NONE:
        step = f" + {item.row_step} a row" if item.row_step else ""
        waits.append(f"rows when {item.row_wait.name} >= {_signed(item.row_threshold)}{step}")
    rows = f"{item.tokens} rows"
    if item.expert:
        how = ["gathered"] * item.gather + ["scattered by weight"] * item.scatter
        rows = f"rows of the queue of expert {item.expert - 1}, {' and '.join(how)},"
    return (
        f"{index:4d} {name:32s} {item.a_source.name} x {item.b_source.name} -> "
        f"{item.destination.name}, {rows} x {item.tiles} tiles x {item.words} words"
        + "".join(f"; {wait}" for wait in waits)
    )


def _norm(index: int, name: str, item: Norm) -> str:
    return (
        f"{index:4d} {name:32s} {item.tokens} rows x {item.tiles} tiles; begins when "
        f"ISSUED >= {_signed(item.start_threshold)}; rows when DRAINED >= "
        f"{_signed(item.row_threshold)}" + " + 1 a row" * item.row_step
    )


def _signed(threshold: int) -> int:
    """A threshold as the compiler meant it: those of an earlier image are negative."""
    return threshold - (1 << COUNTER_BITS) if threshold >> (COUNTER_BITS - 1) else threshold
