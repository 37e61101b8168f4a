"""Energy of every action of an NPU: the coefficients of ``energy.toml`` for one target."""

from __future__ import annotations

import tomllib
from functools import cache
from math import exp, log
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ...fpga_targets.energy import Coefficient, EnergyTable
from .target import NpuTarget

__all__ = ["bank_sizes", "npu_energy", "sram_access_j"]

_TABLE = Path(__file__).parent / "energy.toml"
_SOURCE = r"^(published|assumed): \S"
_BYTES = 8  # of a 64-bit access


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Action(_Row):
    name: str
    energy_j: float = Field(gt=0)
    source: str = Field(pattern=_SOURCE)


class _Sram(_Row):
    kib: int = Field(gt=0)
    energy_j: float = Field(gt=0)
    source: str


class _Dram(_Row):
    kind: str
    bit_j: float = Field(gt=0)
    source: str = Field(pattern=_SOURCE)


class _Table(_Row):
    action: list[_Action]
    sram: list[_Sram]
    dram: list[_Dram]


@cache
def _table() -> _Table:
    return _Table.model_validate(tomllib.loads(_TABLE.read_text(encoding="utf-8")))


def sram_access_j(kib: float) -> float:
    """J of a 64-bit access to a memory of ``kib`` KiB: a power law through the two published sizes
    next to it; below the smallest one, that of the smallest.

    >>> f"{sram_access_j(2):.3g} {sram_access_j(64):.3g} {sram_access_j(1024):.3g}"
    '1e-11 2.76e-11 1e-10'
    """
    points = _table().sram
    if kib <= points[0].kib:
        return points[0].energy_j
    above = next((i for i, p in enumerate(points) if p.kib >= kib), len(points) - 1)
    low, high = points[above - 1], points[above]
    slope = log(high.energy_j / low.energy_j) / log(high.kib / low.kib)
    return low.energy_j * exp(slope * log(kib / low.kib))


def bank_sizes(target: NpuTarget) -> dict[str, float]:
    """KiB of a bank of every buffer that the target has, by name: a bank for each row or column of
    the array that a buffer feeds at once; one for each 8 bytes that the activation buffer moves.

    >>> from .target import load_npu
    >>> bank_sizes(load_npu("edge16"))
    {'input': 4.0, 'weight': 4.0, 'output': 4.0, 'activation': 64.0}
    """
    buffers, array = target.buffers, target.array
    shared = buffers.scratchpad_kib
    words = max(1, buffers.activation_bytes_per_cycle // _BYTES)
    sizes = {
        "input": (buffers.input_kib or shared or 0) / array.rows,
        "weight": (buffers.weight_kib or shared or 0) / array.cols,
        "output": buffers.output_kib / array.cols,
        "activation": buffers.activation_kib / words,
    }
    return {name: size for name, size in sizes.items() if size}


def npu_energy(target: NpuTarget) -> EnergyTable:
    """Every coefficient that an estimate on ``target`` needs: its operations, a byte of each
    buffer, a byte of DRAM, static power.
    """
    table = _table()
    found = [_fixed(row.name, row.energy_j, row.source) for row in table.action]
    cell = target.array.cell_bits
    if cell != 8:
        mac = found[0]
        found[0] = mac.model_copy(
            update={
                "value": mac.value * (cell / 8) ** 2,
                "basis": "assumed",
                "source": f"{mac.source}; scaled with the square of {cell} over 8 bits",
            }
        )
    published = ", ".join(point.source for point in table.sram)
    smallest = table.sram[0].kib
    for name, kib in bank_sizes(target).items():
        size = f"{kib:.3g} KiB" if kib >= smallest else f"{kib:.3g} KiB, counted as {smallest}"
        found.append(
            Coefficient(
                name=f"{name}_buffer_byte",
                value=sram_access_j(kib) / _BYTES,
                unit="J",
                basis="assumed",
                source=f"{published}; banks of {size}, a power law between sizes, reads and "
                "writes alike",
            )
        )
    dram = next(row for row in table.dram if row.kind == target.dram.kind)
    found.append(_fixed("dram_byte", 8 * dram.bit_j, dram.source))
    text = target.sources.get("static_w", "assumed: given by the user")
    static = Coefficient(
        name="static_w", value=target.static_w, unit="W", basis=_basis(text), source=text
    )
    return EnergyTable(coefficients={item.name: item for item in [*found, static]})


def _fixed(name: str, value: float, source: str) -> Coefficient:
    return Coefficient(name=name, value=value, unit="J", basis=_basis(source), source=source)


def _basis(source: str) -> Literal["published", "assumed"]:
    return "published" if source.startswith("published:") else "assumed"
