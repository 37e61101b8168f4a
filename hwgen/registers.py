"""The register map of an accelerator: one table for the RTL, the driver and the documents."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "ADDRESS_BITS",
    "REGISTERS",
    "DebugMemory",
    "Register",
    "register",
    "register_header",
    "register_table",
]

ADDRESS_BITS = 11


class DebugMemory(IntEnum):
    """Memories that can be read while the accelerator is idle or paused."""

    RESIDUAL = 0
    TOKEN = 1
    ATTENTION = 2


@dataclass(frozen=True)
class Register:
    """A 32-bit register (or a window of ``count`` of them) at word address ``address``."""

    name: str
    address: int
    access: str
    description: str
    count: int = 1


REGISTERS = (
    Register("CONTROL", 0x000, "w", "bit 0: start the program; bit 1: go on after a break"),
    Register(
        "STATUS", 0x001, "r", "bit 0: busy; bit 1: done; bit 2: paused; bits 31:16: current step"
    ),
    Register("CYCLES", 0x002, "r", "cycles since start, pauses left out"),
    Register("IMAGE_STALLED", 0x003, "r", "cycles in which LOAD waited for the image stream"),
    Register("LOGITS_STALLED", 0x004, "r", "cycles in which STORE waited for the receiver"),
    Register("WEIGHT_STALLED", 0x005, "r", "cycles in which a product waited for a weight"),
    Register("PRODUCT_CYCLES", 0x006, "r", "cycles in which the compute unit took a word"),
    Register("BREAK", 0x007, "rw", "step before which to pause; 0: never"),
    Register("DEBUG_ADDRESS", 0x008, "rw", "bits 25:24: memory; bits 23:0: its word address"),
    Register("MACHINE", 0x009, "r", "first 32 bits of the machine's digest"),
    Register("TOKEN_WORDS", 0x00A, "r", "words read from the token side of the compute unit"),
    Register("OTHER_WORDS", 0x00B, "r", "words read from the key, value or weight side"),
    Register(
        "DEBUG_DATA",
        0x100,
        "r",
        "the addressed word, 32 bits each, lowest first, two cycles after it is addressed",
        256,
    ),
    Register("STEP_CYCLES", 0x400, "r", "cycles of each step of the last run", 1024),
)


def register(name: str) -> int:
    """The word address of the register called ``name``."""
    return next(entry.address for entry in REGISTERS if entry.name == name)


def register_table(registers: tuple[Register, ...]) -> str:
    """The register map as a Markdown page; addresses are word addresses."""
    lines = [
        "# Register map",
        "",
        f"32-bit registers, {ADDRESS_BITS}-bit word addresses; "
        "reads answer one cycle after the address.",
        "",
        "| address | name | access | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for entry in registers:
        span = f"0x{entry.address:03x}"
        if entry.count > 1:
            span += f" to 0x{entry.address + entry.count - 1:03x}"
        lines.append(f"| {span} | {entry.name} | {entry.access} | {entry.description} |")
    return "\n".join(lines) + "\n"


def register_header(registers: tuple[Register, ...]) -> str:
    """The register map as a C header for host drivers."""
    lines = ["/* Word addresses of the accelerator's 32-bit registers. */", "#pragma once", ""]
    for entry in registers:
        lines.append(
            f"#define VITRUVIUS_{entry.name} 0x{entry.address:03x}u /* {entry.description} */"
        )
    return "\n".join(lines) + "\n"
