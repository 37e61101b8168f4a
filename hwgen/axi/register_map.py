"""The register map of an accelerator: one table for the RTL, the driver and the documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "ADDRESS_BITS",
    "COUNTERS_AT",
    "DEBUG_DATA_AT",
    "MAX_COUNTERS",
    "REGISTERS",
    "ErrorCode",
    "Register",
    "register",
    "register_header",
    "register_map",
    "register_table",
]

ADDRESS_BITS = 16
COUNTERS_AT, MAX_COUNTERS = 0x100, 64
DEBUG_DATA_AT = 0x400


class ErrorCode(IntEnum):
    """Why a run stopped: bits 7:4 of STATUS."""

    NONE = 0
    READ = 1
    """Memory answered a read with an error; ERROR_ADDRESS is the burst's."""
    WRITE = 2
    """Memory answered a write with an error; ERROR_ADDRESS is the burst's."""
    FOREIGN = 3
    """PARAMETERS points to no parameter image, or to one for another machine."""
    WATCHDOG = 4
    """Memory did not go on within WATCHDOG cycles; ERROR_ADDRESS is what was waited for."""
    BUSY = 5
    """A start while busy was ignored; the run goes on."""
    TASK = 6
    """The program has no such task as TASK says."""


@dataclass(frozen=True)
class Register:
    """A 32-bit register (or a window of ``count`` of them) at byte address ``address``.

    ``access``: r, w or rw; ``w1c`` clears the bits that are written as 1.
    """

    name: str
    address: int
    access: str
    description: str
    count: int = 1


REGISTERS = (
    Register("CONTROL", 0x000, "w", "bit 0: start; bit 1: go on after a break; bit 2: soft reset"),
    Register(
        "STATUS",
        0x004,
        "r",
        "bit 0: busy; bit 1: done; bit 2: paused; bits 7:4: error; bits 31:16: current product",
    ),
    Register("ERROR_ADDRESS", 0x008, "r", "where the error was, bits 31:0"),
    Register("ERROR_ADDRESS_HIGH", 0x00C, "r", "bits 63:32"),
    Register("PARAMETERS", 0x010, "rw", "parameter image, a multiple of 4096, bits 31:0"),
    Register("PARAMETERS_HIGH", 0x014, "rw", "bits 63:32"),
    Register("IMAGES", 0x018, "rw", "first image, a multiple of a beat, bits 31:0"),
    Register("IMAGES_HIGH", 0x01C, "rw", "bits 63:32"),
    Register("RESULTS", 0x020, "rw", "first image's results, a multiple of a beat, bits 31:0"),
    Register("RESULTS_HIGH", 0x024, "rw", "bits 63:32"),
    Register("COUNT", 0x028, "rw", "images of a run; 0 counts as 1"),
    Register("IMAGE_PITCH", 0x02C, "rw", "bytes from image to image, a multiple of a beat"),
    Register("RESULT_PITCH", 0x030, "rw", "bytes from results to results, a multiple of a beat"),
    Register("TASK", 0x034, "rw", "task of a model that has several, from 0; looked at by a start"),
    Register("INTERRUPT", 0x038, "rw1c", "bit 0: done, paused, or stopped by an error"),
    Register("INTERRUPT_ENABLE", 0x03C, "rw", "bit 0: the interrupt pin follows INTERRUPT"),
    Register("WATCHDOG", 0x040, "rw", "cycles to wait for memory before an error; 0: for ever"),
    Register("MACHINE", 0x044, "r", "first 32 bits of the machine's digest"),
    Register("PROGRAM", 0x048, "r", "first 32 bits of the loaded program's digest"),
    Register("BREAK", 0x04C, "rw", "product before which to pause; 0: never"),
    Register("DEBUG_ADDRESS", 0x050, "rw", "bits 26:24: memory; bits 23:0: its word"),
    Register("RUN_OPTIONS", 0x054, "rw", "bit 0: load the parameters again at start"),
    Register(
        "MEMORY_ADDRESS", 0x058, "rw", "byte address in on-chip memory, a multiple of 4; advances"
    ),
    Register("MEMORY_DATA", 0x05C, "rw", "32 bits of on-chip memory, then MEMORY_ADDRESS += 4"),
    Register(
        "DEBUG_DATA", DEBUG_DATA_AT, "r", "the word at DEBUG_ADDRESS, lowest 32 bits first", 256
    ),
)


def register_map(counters: Sequence[str]) -> tuple[Register, ...]:
    """`REGISTERS` and one read-only register for each performance counter, by address.

    Raises
    ------
    ValueError
        More than `MAX_COUNTERS`, or a name that occurs twice.
    """
    if len(counters) > MAX_COUNTERS:
        raise ValueError(f"counters: expected at most {MAX_COUNTERS}, got {len(counters)}")
    names = [entry.name for entry in REGISTERS] + [name.upper() for name in counters]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f"counters: expected names of their own, got {', '.join(doubled)} twice")
    counted = tuple(
        Register(name.upper(), COUNTERS_AT + 4 * index, "r", f"counter: {name.replace('_', ' ')}")
        for index, name in enumerate(counters)
    )
    return tuple(sorted(REGISTERS + counted, key=lambda entry: entry.address))


def register(name: str, registers: Sequence[Register] = REGISTERS) -> int:
    """The byte address of the register called ``name``.

    >>> hex(register("COUNT"))
    '0x28'
    """
    return next(entry.address for entry in registers if entry.name == name)


def register_table(registers: Sequence[Register]) -> str:
    """The register map as a Markdown page; addresses are byte addresses."""
    lines = [
        "# Register map",
        "",
        "32-bit registers at byte addresses. An address that is not listed reads 0 and ignores",
        "what is written.",
        "",
        "| address | name | access | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for entry in registers:
        span = f"0x{entry.address:03x}"
        if entry.count > 1:
            span += f" to 0x{entry.address + 4 * (entry.count - 1):03x}"
        lines.append(f"| {span} | {entry.name} | {entry.access} | {entry.description} |")
    lines += ["", "| error | meaning |", "| --- | --- |"]
    lines += [f"| {code.value} | {code.name.lower()} |" for code in ErrorCode]
    return "\n".join(lines) + "\n"


def register_header(registers: Sequence[Register]) -> str:
    """The register map as a C header for host drivers."""
    lines = ["/* Byte addresses of the accelerator's 32-bit registers. */", "#pragma once", ""]
    for entry in registers:
        lines.append(
            f"#define VITRUVIUS_{entry.name} 0x{entry.address:03x}u /* {entry.description} */"
        )
    lines.append("")
    lines += [f"#define VITRUVIUS_ERROR_{code.name} {code.value}u" for code in ErrorCode]
    return "\n".join(lines) + "\n"
