"""The parameters of one accelerator, read from a TOML file and checked."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ...errors import VitruviusError, nearest
from ..units.ivit.code_tables import ENTRIES
from ..units.packed_product import hard_multipliers
from .scheme import SCHEMES, Arithmetic, Scheme

__all__ = ["TABLE_WORD", "Buffers", "Machine", "Order", "load_machine", "machine_names"]

TABLE_WORD = 4
"""Entries of GELU's tables in a word that is loaded."""

Order = Literal["reordered", "naive"]
"""When the slots of a product begin their rows: one step apart, or all at once."""

_SHIPPED = Path(__file__).parent / "machines"


class Buffers(BaseModel):
    """Capacities of the on-chip buffers, in KiB unless the name says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    token: int = Field(gt=0, description="int8 queries, attention outputs, hidden activations")
    normal: int = Field(gt=0, description="int8 normalised rows")
    image: int = Field(gt=0, description="int8 patches of one image")
    key: int = Field(gt=0, description="int8 keys of one layer, all heads")
    value: int = Field(gt=0, description="int8 values of one layer, all heads")
    attention: int = Field(gt=0, description="softmax weights of two heads, tokens x tokens")
    residual: int = Field(gt=0, description="int16 residual stream, tokens x dim")
    constant: int = Field(gt=0, description="int16 constants of the embedding, tokens x dim")
    weight: int = Field(gt=0, description="int8 weights: what is in use and what comes next")
    column: int = Field(gt=0, description="bias, multiplier and shift of every output column")
    norm_column: int = Field(gt=0, description="gain and offset of every normalised column")
    tables: int = Field(
        default=16, gt=0, le=256, description="GELUs of scheme ivit, a table of 256 bytes each"
    )
    tokens: int = Field(gt=0, le=2048, description="longest sequence, in tokens")
    features: int = Field(gt=0, le=16384, description="longest reduction, in elements")
    results: int = Field(gt=0, le=65536, description="most logits, in elements")
    products: int = Field(gt=1, le=4096, description="most products of an image")
    norms: int = Field(gt=1, le=1024, description="most normalisations of an image")
    fetches: int = Field(gt=1, le=4096, description="most transfers from memory of an image")
    experts: int = Field(
        default=0, ge=0, le=64, description="most experts of a layer; 0: no router is built"
    )


class Machine(BaseModel):
    """One accelerator: `rows` token slots x `cols` outputs x `depth` reduction lanes of int8
    products.

    The integer result of a model never depends on a Machine; its cycles and its area do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=40)
    rows: int = Field(gt=0, le=64, description="token slots")
    cols: int = Field(gt=0, le=64, description="outputs per slot and step")
    depth: int = Field(gt=0, le=64, description="reduction lanes per output")
    port_bits: Literal[64, 128, 256, 512] = Field(
        default=128, description="width of the memory port"
    )
    memory: int = Field(
        default=0,
        ge=0,
        le=65536,
        description="KiB of memory on the chip in place of an external one; 0: external",
    )
    outstanding: int = Field(
        default=4, gt=0, le=16, description="read bursts in flight at the memory port"
    )
    order: Order = Field(
        default="reordered",
        description="the slots of a product begin their rows one step apart, or all at once, from "
        "as many copies of the token side's buffers; changes cycles and area, no result",
    )
    packing: bool = Field(
        default=False,
        description="two rows share a DSP of 27 x 18 bits; changes the area, no result, no cycle",
    )
    clock_hz: float = Field(gt=0, description="clock of the estimate, in Hz")
    scheme: Scheme = Field(
        default="edge", description="integer operators that it is built for; a program has its own"
    )
    buffers: Buffers

    @field_validator("clock_hz", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @property
    def multipliers(self) -> int:
        """int8 products per cycle."""
        return self.rows * self.cols * self.depth

    @model_validator(mode="after")
    def _routes_in_order(self) -> Machine:
        if self.order == "naive" and self.buffers.experts:
            raise ValueError(
                "order: expected reordered beside buffers.experts, whose queues give a row at a "
                f"time, got naive and {self.buffers.experts} experts"
            )
        return self

    @model_validator(mode="after")
    def _routes_in_its_scheme(self) -> Machine:
        if self.scheme != "edge" and self.buffers.experts:
            raise ValueError(
                f"scheme: expected edge beside buffers.experts, whose router has no form in scheme "
                f"{self.scheme}, got {self.buffers.experts} experts"
            )
        return self

    def for_scheme(self, scheme: Scheme) -> Machine:
        """The machine for another scheme's operators. Its buffers hold as many columns and softmax
        weights, which take more or fewer bytes there.

        Raises VitruviusError for a machine with a router, which scheme ivit does not have.
        """
        if scheme == self.scheme:
            return self
        if scheme != "edge" and self.buffers.experts:
            raise VitruviusError(
                f"machine '{self.name}': expected buffers.experts = 0 for a model of scheme "
                f"{scheme}, got {self.buffers.experts}"
            )
        own, other = self.arithmetic, SCHEMES[scheme]
        sizes = {
            "attention": (own.weight_bytes, other.weight_bytes),
            "column": (own.column_bytes, other.column_bytes),
            "norm_column": (own.norm_column_bytes, other.norm_column_bytes),
        }
        update = {
            name: -(-getattr(self.buffers, name) * after // before)
            for name, (before, after) in sizes.items()
        }
        buffers = self.buffers.model_copy(update=update)
        return self.model_copy(update={"scheme": scheme, "buffers": buffers})

    @property
    def arithmetic(self) -> Arithmetic:
        """Widths and cycles of its scheme."""
        return SCHEMES[self.scheme]

    @property
    def loads(self) -> int:
        """Words of the token side that a cycle can read: the copies of its buffers."""
        return self.rows if self.order == "naive" else 1

    def dsps(self, family: str) -> int:
        """Hard multipliers of the array on a device of ``family``: rows share them in pairs where
        the machine packs and the device's DSPs are wide enough (DSP48E2).
        """
        if self.packing and family == "ultrascale+":
            return hard_multipliers(rows=self.rows, cols=self.cols, depth=self.depth)
        return self.multipliers

    @property
    def subwords(self) -> int:
        """Reduction words per buffer row: 1 where a chunk of `cols` fits a word of `depth`
        lanes.
        """
        return 1 << (-(-self.cols // self.depth) - 1).bit_length()

    @property
    def lanes(self) -> int:
        """Bytes per row of a token, key or attention buffer."""
        return self.depth * self.subwords

    @property
    def digest(self) -> str:
        """Hash of every parameter; a Program carries the digest of the Machine it was compiled
        for.
        """
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    # Depths of the memories, each in words of the memory's own width.

    @property
    def token_rows(self) -> int:
        return max(2, self.buffers.token * 1024 // self.lanes)

    @property
    def key_rows(self) -> int:
        return max(2, self.buffers.key * 1024 // (self.lanes * self.cols))

    @property
    def value_rows(self) -> int:
        return max(2, self.buffers.value * 1024 // (self.cols * self.depth))

    @property
    def attention_rows(self) -> int:
        weight_bytes = self.arithmetic.weight_bytes
        return max(2, self.buffers.attention * 1024 // (self.lanes * weight_bytes))

    @property
    def residual_rows(self) -> int:
        return max(2, self.buffers.residual * 1024 // (2 * self.cols))

    @property
    def constant_rows(self) -> int:
        return max(2, self.buffers.constant * 1024 // (2 * self.cols))

    @property
    def normal_rows(self) -> int:
        return max(2, self.buffers.normal * 1024 // self.lanes)

    @property
    def image_words(self) -> int:
        return max(2, self.buffers.image * 1024 // self.depth)

    @property
    def weight_words(self) -> int:
        return max(2, self.buffers.weight * 1024 // (self.cols * self.depth))

    @property
    def column_words(self) -> int:
        """The buffer's size is counted as whole bytes a column."""
        return max(2, self.buffers.column * 1024 // (self.arithmetic.column_bytes * self.cols))

    @property
    def norm_column_words(self) -> int:
        """As of `column_words`."""
        column_bytes = self.arithmetic.norm_column_bytes
        return max(2, self.buffers.norm_column * 1024 // (column_bytes * self.cols))

    @property
    def table_words(self) -> int:
        """Words of `TABLE_WORD` entries of the tables of scheme ivit."""
        return self.buffers.tables * ENTRIES // TABLE_WORD

    @property
    def slot_words(self) -> int:
        return max(2, -(-self.buffers.features // self.depth))

    @property
    def result_words(self) -> int:
        return max(2, -(-self.buffers.results // self.cols))

    @property
    def token_slots(self) -> int:
        """Words of a memory that holds something for each token."""
        return max(2, self.buffers.tokens)

    @property
    def row_indices(self) -> int:
        """Rows of scores that can be told apart: those of two heads."""
        return 2 * self.token_slots

    @property
    def score_tiles(self) -> int:
        return -(-self.buffers.tokens // self.cols)


def machine_names() -> list[str]:
    """Names of the shipped machines."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def load_machine(spec: str) -> Machine:
    """The machine named ``spec`` (a shipped name, or the path of a TOML file).

    Raises VitruviusError for an unknown name, an unreadable file, or a field out of range (all of
    them listed).
    """
    if spec in machine_names():
        path = _SHIPPED / f"{spec}.toml"
    elif spec.endswith(".toml"):
        path = Path(spec)
    else:
        raise VitruviusError(
            f"unknown machine '{spec}': expected a TOML file or a shipped machine; "
            + nearest(spec, machine_names())
        )
    try:
        with path.open("rb") as file:
            fields = tomllib.load(file)
    except FileNotFoundError:
        raise VitruviusError(f"machine file {path}: no such file") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise VitruviusError(f"machine file {path}: not readable as TOML: {error}") from None
    try:
        return Machine.model_validate(fields)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            if not item["loc"]:  # fields that do not go together
                problems.append(str(item["ctx"]["error"]))
                continue
            field = ".".join(str(part) for part in item["loc"])
            got = "" if item["type"] == "missing" else f", got {item['input']!r}"
            problems.append(f"{field}: {item['msg'][0].lower()}{item['msg'][1:]}{got}")
        raise VitruviusError(f"machine file {path}: " + "; ".join(problems)) from None
