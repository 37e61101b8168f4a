"""What parts of the accelerator that the ideas are about take of a device, as Yosys counted them.

`benchmarks/ideas.py --synthesis` writes the file that is read here; nothing is synthesised here.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CELLS_FILE", "CellTable", "Cells", "load_cells"]

CELLS_FILE = Path(__file__).parent / "ideas_cells.toml"


@dataclass(frozen=True)
class Cells:
    """Cells before placement. idea: which it is about, "" for what others are compared with; text:
    what was synthesised.
    """

    idea: str
    text: str
    lut: int
    ff: int
    dsp: int
    bram36: float


@dataclass(frozen=True)
class CellTable:
    """device: of the counts; machine: in words, whose parts they are; command: what wrote them."""

    device: str
    machine: str
    command: str
    cells: tuple[Cells, ...]


def load_cells() -> CellTable:
    """The counts that are kept beside this file."""
    with CELLS_FILE.open("rb") as file:
        fields = tomllib.load(file)
    return CellTable(
        device=fields["device"],
        machine=fields["machine"],
        command=fields["command"],
        cells=tuple(Cells(**item) for item in fields["cells"]),
    )
