"""Writes the table of docs/packing.md: what the compute array takes of a device, packed and not.

    .venv/bin/python benchmarks/packing.py

Yosys' cells before placement, out of context, as `vitruvius generate --resources` counts them.
Takes about a quarter of an hour.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from vitruvius.benchmarks.marked_page import replaced
from vitruvius.fpga_targets.device import load_device
from vitruvius.fpga_targets.synthesis import Resources, synthesize
from vitruvius.hwgen.units.compute_array import ComputeArray
from vitruvius.hwgen.units.packed_product import PRIMITIVE_MACRO
from vitruvius.hwgen.verilog import to_verilog

PAGE = Path(__file__).parent.parent / "docs" / "packing.md"
BEGIN = "<!-- measured by benchmarks/packing.py; nothing from here on is typed by hand -->"
END = "<!-- end of what was measured -->"
DEVICE = "zcu102"
SIZES = ((4, 4, 4), (4, 8, 8), (4, 16, 16), (3, 5, 7))
# Name, whether the array packs, and what stands in front of its Verilog.
VARIANTS = (
    ("a DSP per product", False, ""),
    ("packed, sums in LUTs", True, f"`undef {PRIMITIVE_MACRO}\n"),
    ("packed, sums by fours in the DSPs", True, ""),
)


def measure(size: tuple[int, int, int], packing: bool, before: str) -> Resources:
    rows, cols, depth = size
    array = ComputeArray(rows=rows, cols=cols, depth=depth, packing=packing)
    with tempfile.TemporaryDirectory() as folder:
        return synthesize(
            before + to_verilog(array, "array"),
            "array",
            load_device(DEVICE),
            workdir=Path(folder),
        )


def main() -> None:
    device = load_device(DEVICE)
    lines = [
        f"Device: `{device.name}` ({device.part}: {device.dsp:,} DSP48E2, {device.lut:,} LUT, "
        f"{device.ff:,} FF).",
        "",
        "| rows x cols x depth | array | DSP | LUT | FF | carry bits | share of the DSPs |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for size in SIZES:
        for name, packing, before in VARIANTS:
            used = measure(size, packing, before)
            lines.append(
                f"| {' x '.join(map(str, size))} | {name} | {used.dsp:,} | {used.lut:,} "
                f"| {used.ff:,} | {used.carry:,} | {used.dsp / device.dsp:.1%} |"
            )
            print(lines[-1], flush=True)
            write(lines)


def write(lines: list[str]) -> None:
    page = replaced(PAGE.read_text(encoding="utf-8"), BEGIN, END, lines)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
