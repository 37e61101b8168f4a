"""The devices: how much logic each has, how fast its memory is, and who says so."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import VitruviusError, nearest

__all__ = ["Device", "MemoryPort", "device_names", "load_device", "load_target"]

_SHIPPED = Path(__file__).parent / "devices"
_PREFIX = "fpga:"
_UNSOURCED = {"name", "board", "part", "family", "dsp_kind", "sources"}


class MemoryPort(BaseModel):
    """The external memory of a board.

    width_bits: data pins; bytes_per_s: peak transfer rate, reads and writes together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    width_bits: int = Field(gt=0)
    bytes_per_s: float = Field(gt=0)


class Device(BaseModel):
    """One FPGA, with the source of every number in ``sources``.

    Counts: ``lut`` (of ``lut_inputs`` inputs), ``ff``, ``dsp`` (multiplier blocks of ``dsp_kind``),
    ``bram`` (blocks of ``bram_kbit`` Kbit, parity bits included), ``uram`` (blocks of 288 Kbit).
    ``clock_hz`` is the clock an estimate assumes when the machine names none; ``static_w`` is drawn
    whenever the device is on. ``memory`` is None for a part without a board.
    A source begins with "published:" or "assumed:".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    board: str
    part: str
    family: Literal["ultrascale+", "ecp5"]
    lut: int = Field(gt=0)
    lut_inputs: int = Field(gt=0)
    ff: int = Field(gt=0)
    dsp: int = Field(ge=0)
    dsp_kind: str
    bram: int = Field(ge=0)
    bram_kbit: int = Field(gt=0)
    uram: int = Field(ge=0)
    clock_hz: float = Field(gt=0)
    static_w: float = Field(ge=0)
    memory: MemoryPort | None = None
    sources: dict[str, str]

    @model_validator(mode="after")
    def _every_number_has_a_source(self) -> Self:
        fields = set(type(self).model_fields) - _UNSOURCED
        if self.memory is None:
            fields.discard("memory")
        if missing := sorted(fields - self.sources.keys()):
            raise ValueError(f"no source for {', '.join(missing)}")
        if foreign := sorted(self.sources.keys() - fields):
            raise ValueError(f"a source for {', '.join(foreign)}, which the device does not have")
        unmarked = sorted(
            field
            for field, text in self.sources.items()
            if not text.startswith(("published: ", "assumed: "))
        )
        if unmarked:
            raise ValueError(
                f"the source of {', '.join(unmarked)} must begin with 'published: ' or 'assumed: '"
            )
        return self

    @property
    def target(self) -> str:
        """The name a user gives this device by: ``fpga:zcu102``."""
        return _PREFIX + self.name

    @property
    def onchip_bytes(self) -> int:
        """Bytes that the block RAM and UltraRAM hold together, parity bits not used as data.

        >>> load_device("zcu102").onchip_bytes  # 912 blocks of 4 KiB
        3735552
        """
        return self.bram * self.bram_kbit * 1024 // 9 + self.uram * 32 * 1024


def device_names() -> list[str]:
    """Names of the shipped devices, sorted.

    >>> device_names()
    ['ecp5-85f', 'kv260', 'zcu102']
    """
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def load_device(spec: str) -> Device:
    """The shipped device called ``spec``, or the one in the TOML file of that path.

    Raises VitruviusError for an unknown name, an unreadable file, or a field that is wrong,
    missing or without a source (all of them named).
    """
    if spec in device_names():
        path = _SHIPPED / f"{spec}.toml"
    elif spec.endswith(".toml"):
        path = Path(spec)
    else:
        raise VitruviusError(f"unknown device '{spec}': {nearest(spec, device_names())}")
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise VitruviusError(f"device file {path} cannot be read: {error}") from error
    try:
        return Device.model_validate(fields)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'sources'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise VitruviusError(f"device file {path}: {problems}") from error


def load_target(spec: str) -> Device:
    """The device of a target such as ``fpga:zcu102`` or ``fpga:my_board.toml``.

    Raises VitruviusError for another kind of target or an unknown device, with the nearest names.

    >>> load_target("fpga:zcu102").dsp
    2520
    """
    targets = [_PREFIX + name for name in device_names()]
    if not spec.startswith(_PREFIX):
        raise VitruviusError(f"unknown target '{spec}': {nearest(spec, targets)}")
    name = spec.removeprefix(_PREFIX)
    if name not in device_names() and not name.endswith(".toml"):
        raise VitruviusError(f"unknown target '{spec}': {nearest(spec, targets)}")
    return load_device(name)
