"""Energy of every action an accelerator makes, each with its formula and its source.

The primitives are measured on a 45 nm ASIC; the factors carry them over to an FPGA; the actions of
this project's units are sums of primitives, written down in ``COMPOSITES``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import VitruviusError, nearest
from .device import Device

__all__ = ["COMPOSITES", "Coefficient", "EnergyTable", "Factor", "Primitive", "load_energy"]

_TABLE = Path(__file__).parent / "energy.toml"
_SOURCE = r"^(published|assumed): \S"

COMPOSITES: Mapping[str, tuple[Mapping[str, int], str]] = MappingProxyType(
    {
        "mac_int8": (
            {"multiply_int8": 1, "add_int32": 1},
            "an int8 product, added to a 32-bit sum in fabric",
        ),
        "requantize": (
            {"multiply_int32": 1, "add_int32": 2},
            "the dyadic multiply, the half added before the shift, the bias",
        ),
        "softmax_weight": (
            {"add_int32": 3, "sram_read_byte": 1},
            "compare with the maximum, subtract from it, read the exponential, add to the sum",
        ),
        "layernorm_element": (
            {"multiply_int32": 4, "add_int32": 6},
            "square, two sums; D*x - S, times 1/sqrt, round; gain, offset, round; "
            "products of 16 bits counted as 32",
        ),
        "gelu": (
            {"multiply_int32": 1, "add_int32": 4, "sram_read_byte": 4},
            "magnitude, two entries of two bytes, their difference, interpolate, "
            "subtract from relu",
        ),
        "shiftmax_weight": (
            {"multiply_int32": 1, "add_int32": 9},
            "compare with the maximum, subtract from it, 2 additions for the octaves, 4 trials "
            "for the quotient, add to the sum; times the row's reciprocal",
        ),
        "i_layernorm_element": (
            {"multiply_int32": 3, "add_int32": 6},
            "square, two sums; minus the mean, times the reciprocal root, bias; "
            "multiply and round to the output",
        ),
        "code_table": ({"sram_read_byte": 4}, "a word of four entries"),
    }
)
"""Actions as counts of primitives, with the reason for the counts."""


class Primitive(BaseModel):
    """One action of a 45 nm ASIC. energy_j: J per action; medium: which factor applies to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    energy_j: float = Field(gt=0)
    medium: Literal["logic", "hard", "external"]
    source: str = Field(pattern=_SOURCE)


class Factor(BaseModel):
    """A dimensionless factor between technologies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["fpga_logic", "fpga_hard"]
    value: float = Field(gt=0)
    source: str = Field(pattern=_SOURCE)


class Coefficient(BaseModel):
    """What an estimate multiplies a count by.

    value: J per action, or W for ``static_w``; basis: "assumed" as soon as one part of it is;
    source: the formula and the source of every part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: float = Field(ge=0)
    unit: Literal["J", "W"]
    basis: Literal["published", "assumed"]
    source: str


class EnergyTable(BaseModel):
    """The coefficients by name, in the order of the file, composites last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    coefficients: dict[str, Coefficient]

    def action(self, name: str) -> Coefficient:
        """The coefficient called ``name``; VitruviusError with the nearest names if there is none.

        >>> f"{load_energy().action('mac_int8').value:.3g}"
        '2.82e-12'
        """
        if name not in self.coefficients:
            raise VitruviusError(
                f"no energy is known for the action '{name}': {nearest(name, self.coefficients)}"
            )
        return self.coefficients[name]


def _basis(*sources: str) -> Literal["published", "assumed"]:
    return "assumed" if any(text.startswith("assumed:") for text in sources) else "published"


def _on_fpga(primitive: Primitive, factors: Mapping[str, Factor]) -> Coefficient:
    if primitive.medium == "external":
        return Coefficient(
            name=primitive.name,
            value=primitive.energy_j,
            unit="J",
            basis=_basis(primitive.source),
            source=primitive.source,
        )
    factor = factors[f"fpga_{primitive.medium}"]
    return Coefficient(
        name=primitive.name,
        value=primitive.energy_j * factor.value,
        unit="J",
        basis=_basis(primitive.source, factor.source),
        source=f"{primitive.energy_j:g} J ({primitive.source}) x {factor.value:g} "
        f"({factor.source})",
    )


def _composed(name: str, parts: Mapping[str, Coefficient]) -> Coefficient:
    counts, reason = COMPOSITES[name]
    formula = " + ".join(f"{count} x {part}" for part, count in counts.items())
    return Coefficient(
        name=name,
        value=sum(count * parts[part].value for part, count in counts.items()),
        unit="J",
        basis="assumed" if any(parts[part].basis == "assumed" for part in counts) else "published",
        source=f"{formula}: {reason}",
    )


@cache
def _dynamic() -> EnergyTable:
    fields = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    factors = {row["name"]: Factor.model_validate(row) for row in fields["factor"]}
    primitives = [Primitive.model_validate(row) for row in fields["primitive"]]
    parts = {primitive.name: _on_fpga(primitive, factors) for primitive in primitives}
    composed = {name: _composed(name, parts) for name in COMPOSITES}
    return EnergyTable(coefficients={**parts, **composed})


def load_energy(device: Device | None = None) -> EnergyTable:
    """The energy table; with a device, its static power as ``static_w`` too.

    Dynamic coefficients are the same for every device: the table holds no factor for its process.
    """
    table = _dynamic()
    if device is None:
        return table
    source = device.sources["static_w"]
    static = Coefficient(
        name="static_w",
        value=device.static_w,
        unit="W",
        basis=_basis(source),
        source=f"{device.name}: {source}",
    )
    return EnergyTable(coefficients={**table.coefficients, static.name: static})
