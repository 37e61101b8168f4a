"""A 4f accelerator: its panels, camera, light and energy, and the choices that are open."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import VitruviusError, nearest
from ..sim.npu.target import NpuTarget, load_npu
from .mapping import ON_OPTICS
from .schemes import Scheme
from .tiling import Tiling

__all__ = [
    "OpticalSettings",
    "OpticalSystem",
    "OpticalTarget",
    "load_optical",
    "optical_names",
    "setting_values",
]

_SHIPPED = Path(__file__).parent / "systems"
_PREFIX = "optical:"
_MARKS = ("published: ", "assumed: ")

Seconds: TypeAlias = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Share: TypeAlias = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Joules: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Bits: TypeAlias = Annotated[int, Field(ge=1, le=32)]
Rate: TypeAlias = Annotated[float, Field(gt=0, le=inf)]


class OpticalSystem(BaseModel):
    """One 4f system, with the source of every field in ``sources``, by its name. A source begins
    with "published: " or "assumed: ".

    rows, cols: usable pixels of both panels and the camera.
    input_panel_s, filter_panel_s: from one pattern to the next. exposure_s: the camera's period.
    write_bits, write_bits_per_s: of a pixel, and of one panel's data link.
    read_bits, read_bits_per_s: of a pixel, and of the camera's link; inf: it keeps pace.
    read: whole frames, or only the pixels that hold results.
    frames_per_pass: settings of the input panel for one pass, such as bit planes of mirrors.
    pipelined: the parts work at once and the slowest sets the pace; or one after another.
    scheme: how signs survive the camera.
    wavelength_m, photons: detected in each pixel of a frame. power_w: most light from the laser.
    mask_transmission, fill_factor: of two panels of pixels, quantum_efficiency: of the camera,
    wall_plug: of the laser.
    dac_j, adc_j: one sample. static_w: panels, camera and laser driver, whatever they do.
    electronics: the NPU of everything else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=40)
    rows: int = Field(ge=2, le=65536, multiple_of=2)
    cols: int = Field(ge=2, le=65536, multiple_of=2)
    input_panel_s: Seconds
    filter_panel_s: Seconds
    exposure_s: Seconds
    write_bits: Bits
    write_bits_per_s: Rate
    read_bits: Bits
    read_bits_per_s: Rate
    read: Literal["frame", "results"]
    frames_per_pass: int = Field(ge=1, le=4096)
    pipelined: bool
    scheme: Scheme
    wavelength_m: float = Field(gt=0, le=1e-3)
    photons: float = Field(gt=0, le=1e12)
    power_w: float = Field(gt=0, le=1e6)
    mask_transmission: Share
    fill_factor: Share
    quantum_efficiency: Share
    wall_plug: Share
    dac_j: Joules
    adc_j: Joules
    static_w: float = Field(ge=0, le=1e6)
    electronics: str
    sources: dict[str, str]

    @model_validator(mode="after")
    def _every_field_has_a_source(self) -> Self:
        fields = set(type(self).model_fields) - {"name", "sources"}
        if missing := sorted(fields - self.sources.keys()):
            raise ValueError(f"sources: none for {', '.join(missing)}")
        if foreign := sorted(self.sources.keys() - fields):
            raise ValueError(f"sources: {', '.join(foreign)} is no field of the system")
        if unmarked := sorted(k for k, text in self.sources.items() if not text.startswith(_MARKS)):
            raise ValueError(
                f"sources: {', '.join(unmarked)} must begin with 'published: ' or 'assumed: '"
            )
        if not self.input_panel_s + self.filter_panel_s + self.exposure_s > 0:
            raise ValueError("input_panel_s, filter_panel_s, exposure_s: one must be above 0")
        return self

    @property
    def pixels(self) -> int:
        """Of a plane."""
        return self.rows * self.cols

    @property
    def light_j(self) -> float:
        """Light that all pixels of one frame detect.

        >>> f"{load_optical('optical:4f-2mhz').system.light_j:.1e}"
        '1.7e-08'
        """
        return self.photons * self.pixels * _PLANCK_J_M / self.wavelength_m

    @property
    def throughput(self) -> float:
        """Share of the laser's light that is detected: the mask, the undiffracted order of both
        panels (FF^2 each, Goodman), the camera.
        """
        return self.mask_transmission * self.fill_factor**4 * self.quantum_efficiency

    @property
    def light_s(self) -> float:
        """Seconds in which the laser sends one frame's light."""
        return self.light_j / self.throughput / self.power_w

    @property
    def laser_j(self) -> float:
        """Electrical energy of one frame's light."""
        return self.light_j / self.throughput / self.wall_plug


_PLANCK_J_M = 6.62607015e-34 * 299_792_458.0
"""h c, exact in the SI."""


class OpticalSettings(BaseModel):
    """What a user may choose beside the system's own figures.

    tiling: what shares a plane; auto: whatever takes the least time with conversions, operator by
    operator.
    batch: images at full planes; without it, as many as the emptiest operator's plane holds.
    map: the forms that go on optics. inputs: whether the model's inputs may be negative.
    masks: of kernels that come from the image (scores): Fourier transforms by the electronics, or
    given without cost, as published models have it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiling: Tiling | Literal["auto"] = "auto"
    batch: int | None = Field(default=None, ge=1, le=10_000_000)
    map: tuple[Literal["conv", "linear", "scores"], ...] = ("conv", "linear", "scores")
    inputs: Literal["signed", "non-negative"] = "signed"
    masks: Literal["computed", "given"] = "computed"


@dataclass(frozen=True)
class OpticalTarget:
    """A system with its electronics under settings; ``name`` is what the user gave."""

    name: str
    system: OpticalSystem
    settings: OpticalSettings
    npu: NpuTarget


def optical_names() -> list[str]:
    """Names of the shipped systems, sorted."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def load_optical(spec: str, choices: Sequence[str] = ()) -> OpticalTarget:
    """The target called ``optical:NAME`` or ``optical:FILE.toml``. ``choices`` are ``KEY=VALUE``
    with commas between them: settings, and fields of the system to replace.

    Raises VitruviusError for an unknown system, key or value, a file that cannot be read, or a
    field that is unknown, missing, out of range or without a source (all of them named).

    >>> load_optical("optical:4f-2mhz", ["tiling=input,photons=100"]).settings.tiling
    'input'
    """
    name = spec.removeprefix(_PREFIX)
    if name in optical_names():
        path = _SHIPPED / f"{name}.toml"
    elif name.endswith(".toml"):
        path = Path(name)
    else:
        known = [_PREFIX + one for one in optical_names()]
        raise VitruviusError(
            f"unknown target '{spec}': {nearest(_PREFIX + name, known)}, or {_PREFIX}FILE.toml"
        )
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise VitruviusError(f"optical system {path} cannot be read: {reason}") from error
    fields.setdefault("name", path.stem)
    _checked(OpticalSystem, fields, f"optical system {path}")
    own, settings = _parsed(choices)
    fields |= own
    fields["sources"] |= dict.fromkeys(own, "assumed: given by the user")
    system = _checked(OpticalSystem, fields, "--optical")
    try:
        npu = load_npu(system.electronics)
    except VitruviusError as error:
        raise VitruviusError(f"electronics of {spec}: {error}") from error
    return OpticalTarget(spec, system, _checked(OpticalSettings, settings, "--optical"), npu)


def setting_values() -> dict[str, str]:
    """Every key that ``choices`` may have, with what it takes, in words."""
    keys = [key for key in OpticalSystem.model_fields if key not in ("name", "sources")]
    found = {key: _expected(OpticalSystem, key) for key in keys if key != "pipelined"}
    found["timing"] = "pipelined or serial"
    for key in OpticalSettings.model_fields:
        found[key] = _expected(OpticalSettings, key)
    return found


def _parsed(choices: Sequence[str]) -> tuple[dict[str, object], dict[str, object]]:
    """Fields of the system, and settings."""
    own: dict[str, object] = {}
    settings: dict[str, object] = {}
    known = setting_values()
    for part in (part.strip() for text in choices for part in text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise VitruviusError(f"--optical: expected KEY=VALUE, got '{part}'")
        if key not in known:
            raise VitruviusError(f"--optical: no setting '{key}', {nearest(key, known)}")
        field = "pipelined" if key == "timing" else key
        if field in own or field in settings:
            raise VitruviusError(f"--optical: {key} is given more than once")
        if key == "timing":
            if value not in ("pipelined", "serial"):
                raise VitruviusError(f"--optical: timing: expected {known[key]}, got '{value}'")
            own[field] = value == "pipelined"
        elif key == "map":
            settings[key] = () if value == "none" else tuple(value.split("+"))
        else:
            (settings if key in OpticalSettings.model_fields else own)[key] = value
    return own, settings


_Model = TypeVar("_Model", OpticalSystem, OpticalSettings)


def _checked(model: type[_Model], fields: Mapping[str, object], place: str) -> _Model:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        texts = []
        for problem in error.errors():
            field = ".".join(map(str, problem["loc"][:1]))
            if problem["type"] == "extra_forbidden":
                texts.append(f"{field}: no such field, {nearest(field, model.model_fields)}")
            elif problem["type"] == "missing":
                texts.append(f"{field}: missing, expected {_expected(model, field)}")
            elif problem["type"] == "value_error":
                texts.append(problem["msg"].removeprefix("Value error, "))
            else:
                texts.append(f"{field}: expected {_expected(model, field)}, got {_shown(problem)}")
        raise VitruviusError(f"{place}: {'; '.join(dict.fromkeys(texts))}") from error


def _shown(problem: object) -> str:
    assert isinstance(problem, dict)
    return repr(problem["input"])


def _expected(model: type[BaseModel], field: str) -> str:
    """What a field takes, in words."""
    if field == "map":
        return f"{', '.join(ON_OPTICS)} with + between them, or none"
    info = model.model_fields.get(field)
    if info is None:
        return "another value"
    if words := _words(info.annotation):
        return ", ".join(words)
    if field in ("name", "electronics"):
        return "an NPU such as npu:edge32" if field == "electronics" else "a word"
    if field == "sources":
        return "a table with a text for every field"
    if info.annotation is bool:
        return "true or false"
    limits = {
        name: getattr(item, name)
        for item in info.metadata
        for name in ("ge", "gt", "le", "multiple_of")
        if hasattr(item, name)
    }
    whole = info.annotation is int or field == "batch"
    number = "an even number" if "multiple_of" in limits else "a whole number"
    number = number if whole else "a number"
    start = f"from {limits['ge']:g}" if "ge" in limits else f"above {limits.get('gt', 0):g}"
    return f"{number} {start} to {limits.get('le', inf):g}"


def _words(annotation: object) -> list[str]:
    found: list[str] = []
    for item in get_args(annotation):
        found += [item] if isinstance(item, str) else _words(item)
    return found
