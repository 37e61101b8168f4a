"""Compiles an accelerator together with the harness into one program, once per text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["NativeBuild", "build_native"]


@dataclass(frozen=True)
class NativeBuild:
    """A compiled accelerator with its harness: where it is, and the seconds it took to make.

    ``port_bits``: width of the memory port; ``cached``: found ready; ``trace``: can write waves.
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

    top: a module with exactly the ports of the accelerator; the width of the memory port, 64 to
    512 bits, is taken from the text. trace: able to write waves (FST), at some cost in speed.
    jobs: compilers at a time; by default one per core.

    Raises
    ------
    VitruviusError
        A port is missing or of another width, a tool is missing, or Verilator or the compiler
        fails; then the text ends with the log's tail.
    """
    raise NotImplementedError
