"""The NPUs: sizes, rates and widths of each, read from a TOML file, and who says so."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from ...errors import VitruviusError, nearest
from ...models.code_widths import CodeWidths

__all__ = [
    "DRAM_KINDS",
    "Array",
    "Buffers",
    "Dram",
    "Memory",
    "NpuTarget",
    "Operations",
    "Vector",
    "Widths",
    "covering",
    "leaves",
    "load_npu",
    "npu_names",
    "with_array",
    "with_precision",
]

_SHIPPED = Path(__file__).parent / "targets"
_PREFIX = "npu:"
_KIB = 1024
_MARKS = ("published: ", "assumed: ")

DramKind = Literal["lpddr4", "ddr3", "gddr5", "hbm2"]
DRAM_KINDS: tuple[str, ...] = get_args(DramKind)

_Bits = Annotated[int, Field(ge=1, le=64)]
_Cycles = Annotated[int, Field(ge=1, le=256)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Array(_Part):
    """The systolic array: ``rows`` x ``cols`` cells, one product of ``cell_bits`` x ``cell_bits`` a
    cell and cycle. A wider operand takes several passes.

    dataflow: what lies in the cells, by SCALE-Sim's abbreviation; ``best`` takes for each product
    the one that is fastest.
    """

    rows: int = Field(ge=1, le=1024)
    cols: int = Field(ge=1, le=1024)
    dataflow: Literal["ws", "os", "is", "best"]
    cell_bits: Literal[4, 8, 16]


class Buffers(_Part):
    """On-chip memories, in KiB. Each but ``activation_kib`` is cut in two halves, one for the tile
    at work and one for the next.

    Inputs and weights have a buffer each (``input_kib``, ``weight_kib``) or share one
    (``scratchpad_kib``). output_kib: the accumulators. activation_kib: tensors that stay on the
    chip between operators, 0 for none; it moves ``activation_bytes_per_cycle`` to or from the
    other buffers.
    """

    input_kib: int | None = Field(default=None, ge=1, le=1 << 20)
    weight_kib: int | None = Field(default=None, ge=1, le=1 << 20)
    scratchpad_kib: int | None = Field(default=None, ge=1, le=1 << 20)
    output_kib: int = Field(ge=1, le=1 << 20)
    activation_kib: int = Field(ge=0, le=1 << 20)
    activation_bytes_per_cycle: int = Field(ge=1, le=1 << 16)

    @model_validator(mode="after")
    def _inputs_and_weights_have_a_place(self) -> Self:
        apart = (self.input_kib, self.weight_kib)
        if (self.scratchpad_kib is None) == (None in apart) or (
            self.scratchpad_kib is not None and apart != (None, None)
        ):
            raise ValueError(
                "expected input_kib and weight_kib, or scratchpad_kib for both, got "
                + (", ".join(sorted(self.model_fields_set & {*_OPERAND_BUFFERS})) or "neither")
            )
        return self

    @property
    def output_half(self) -> int:
        """Bytes of half the accumulators."""
        return self.output_kib * _KIB // 2

    @property
    def operand_halves(self) -> tuple[int, int, int]:
        """Bytes that inputs, weights, and both together may take of half the buffers."""
        if self.scratchpad_kib is not None:
            half = self.scratchpad_kib * _KIB // 2
            return half, half, half
        first, second = (self.input_kib or 0) * _KIB // 2, (self.weight_kib or 0) * _KIB // 2
        return first, second, first + second


_OPERAND_BUFFERS = ("input_kib", "weight_kib", "scratchpad_kib")


class Dram(_Part):
    """External memory: ``bytes_per_s`` peak times ``efficiency``, reads and writes together; the
    first byte of a tile comes ``latency_cycles`` after it was asked for.
    """

    kind: DramKind
    bytes_per_s: float = Field(gt=0, le=1e14)
    efficiency: float = Field(gt=0, le=1)
    latency_cycles: int = Field(ge=0, le=100_000)


class Operations(_Part):
    """Cycles of each operation of a vector lane.

    alu: add, subtract, compare, shift. lookup: an entry of a table. requantize: multiply, round,
    shift and saturate an accumulator.
    """

    alu: _Cycles
    multiply: _Cycles
    divide: _Cycles
    sqrt: _Cycles
    exp: _Cycles
    lookup: _Cycles
    requantize: _Cycles


class Vector(_Part):
    """The vector unit: ``lanes`` of 32 bits. interval: cycles between two operations of a lane;
    latency: cycles to the result.

    fused: elementwise operators behind a product work on its tile before it leaves. overlap_heads:
    the softmax of one head runs while the array works on other heads. gelu: a table of the
    function, or I-ViT's ShiftGELU. depthwise: where grouped convolutions run, on the vector lanes
    or, channel-parallel, several groups side by side on the array.
    """

    lanes: int = Field(ge=1, le=65536)
    fused: bool
    overlap_heads: bool
    gelu: Literal["table", "shift"]
    depthwise: Literal["vector", "channel-parallel"]
    interval: Operations
    latency: Operations


class Widths(_Part):
    """Bits of what is stored and multiplied. residual: sums of branches and what goes into them;
    probability: softmax outputs. So many weights of an output channel as ``weight_group`` says
    share a scale of ``weight_scale`` bits; 0: all of them do.
    """

    weight: _Bits
    activation: _Bits
    residual: _Bits
    probability: _Bits
    accumulator: _Bits
    weight_group: int = Field(default=0, ge=0, le=65536)
    weight_scale: _Bits = 16

    def weight_bytes(self, outputs: int, inputs: int) -> int:
        """Bytes of a matrix [outputs, inputs] with its scales."""
        scales = outputs * (-(-inputs // self.weight_group) if self.weight_group else 1)
        return -(-outputs * inputs * self.weight // 8) + -(-scales * self.weight_scale // 8)


class Memory(_Part):
    """External memory that one model may take: ``limit_mib`` for weights, activations and what is
    kept between tokens.

    scores: whether the scores of all heads of an attention are in memory at once, or those of one
    head.
    """

    limit_mib: int = Field(ge=1, le=1 << 20)
    scores: Literal["all heads", "one head"]


class NpuTarget(_Part):
    """One NPU, with the source of every field in ``sources``, by dotted path or by the path of the
    table around it. A source begins with "published: " or "assumed: ".
    """

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=40)
    clock_hz: float = Field(gt=0, le=1e11)
    static_w: float = Field(ge=0, le=1000)
    array: Array
    buffers: Buffers
    dram: Dram
    vector: Vector
    widths: Widths
    memory: Memory | None = None
    sources: dict[str, str]

    @model_validator(mode="after")
    def _every_field_has_a_source(self) -> Self:
        values = self.model_dump(exclude={"name", "sources"}, exclude_none=True)
        paths = [path for path, _ in leaves(values)]
        covered = {path for path in paths if set(covering(path)) & self.sources.keys()}
        if missing := [path for path in paths if path not in covered]:
            raise ValueError(f"sources: none for {', '.join(missing)}")
        known = {table for path in paths for table in covering(path)}
        if foreign := sorted(self.sources.keys() - known):
            raise ValueError(f"sources: {', '.join(foreign)} is no field of the target")
        if unmarked := sorted(k for k, text in self.sources.items() if not text.startswith(_MARKS)):
            raise ValueError(
                f"sources: {', '.join(unmarked)} must begin with 'published: ' or 'assumed: '"
            )
        return self

    @model_validator(mode="after")
    def _half_a_buffer_holds_an_array_full(self) -> Self:
        cells, bits = self.array.rows * self.array.cols, self.widths
        activation = max(bits.activation, bits.probability)
        need = [-(-cells * wide // 8) for wide in (activation, max(bits.weight, bits.activation))]
        have = self.buffers.operand_halves
        if self.buffers.scratchpad_kib is not None:
            wanted = [("scratchpad_kib", "inputs and weights", sum(need), have[2])]
        else:
            wanted = [
                ("input_kib", "inputs", need[0], have[0]),
                ("weight_kib", "weights", need[1], have[1]),
            ]
        outputs = -(-cells * bits.accumulator // 8)
        wanted.append(("output_kib", "sums", outputs, self.buffers.output_half))
        for field, what, size, half in wanted:
            if size > half:
                raise ValueError(
                    f"buffers.{field}: half of it, {half} bytes, does not hold the smallest tile, "
                    f"{self.array.rows} x {self.array.cols} {what} in {size} bytes; expected at "
                    f"least {-(-2 * size // _KIB)} KiB"
                )
        return self

    @property
    def target(self) -> str:
        """The name a user gives this NPU by: ``npu:edge16``."""
        return _PREFIX + self.name

    @property
    def cells(self) -> int:
        """Products of ``cell_bits`` a cycle."""
        return self.array.rows * self.array.cols

    @property
    def dram_bytes_per_cycle(self) -> float:
        """Bytes that DRAM moves in a cycle of the array's clock."""
        return self.dram.bytes_per_s * self.dram.efficiency / self.clock_hz

    def passes(self, left_bits: int, right_bits: int) -> int:
        """Passes that a product of operands this wide takes.

        >>> load_npu("edge16").passes(16, 8)
        2
        """
        cell = self.array.cell_bits
        return -(-left_bits // cell) * -(-right_bits // cell)


def npu_names() -> list[str]:
    """Names of the shipped NPUs, sorted.

    >>> npu_names()
    ['array128', 'edge16', 'edge32', 'gemmini16', 'sa8295p']
    """
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def load_npu(spec: str) -> NpuTarget:
    """The shipped NPU called ``spec``, or the one in the TOML file of that path; ``npu:`` may stand
    before either.

    Raises VitruviusError for an unknown name, an unreadable file, or a field that is unknown,
    missing, out of range or without a source (all of them named).

    >>> load_npu("npu:edge32").array.rows
    32
    """
    name = spec.removeprefix(_PREFIX)
    if name in npu_names():
        path = _SHIPPED / f"{name}.toml"
    elif name.endswith(".toml"):
        path = Path(name)
    else:
        known = [_PREFIX + one for one in npu_names()]
        raise VitruviusError(f"unknown target '{spec}': {nearest(_PREFIX + name, known)}")
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise VitruviusError(f"NPU file {path} cannot be read: {error}") from error
    return _checked(fields, f"NPU file {path}")


def with_array(target: NpuTarget, rows: int, cols: int, dataflow: str | None = None) -> NpuTarget:
    """``target`` with another array, and everything else as it is.

    Raises VitruviusError when the array is out of range, or its tiles do not fit the buffers.
    """
    fields = target.model_dump(exclude_none=True)
    if (rows, cols) != (target.array.rows, target.array.cols):
        fields["name"] = f"{target.name}-{rows}x{cols}"[:40]
    fields["array"] |= {"rows": rows, "cols": cols}
    fields["array"] |= {} if dataflow is None else {"dataflow": dataflow}
    for leaf in ("array.rows", "array.cols", "array.dataflow"):
        fields["sources"][leaf] = "assumed: given by the user"
    return _checked(fields, f"{target.target} with an array of {rows} x {cols}")


def with_precision(target: NpuTarget, precision: str) -> NpuTarget:
    """``target`` with other widths: ``w4a16`` for 4-bit weights and 16-bit activations,
    ``w4a16g32`` with a scale for every 32 weights. Softmax outputs are as wide as activations,
    the residual stream has 16 bits.

    Raises VitruviusError for widths that are not defined.

    >>> with_precision(load_npu("sa8295p"), "w4a16g32").widths.weight_bytes(1, 64)
    36
    """
    widths = CodeWidths.parsed(precision)
    fields = target.model_dump(exclude_none=True)
    fields["widths"] |= {
        "weight": widths.weight,
        "activation": widths.activation,
        "probability": widths.activation,
        "residual": 16,
        "weight_group": widths.group,
    }
    for leaf in ("weight", "activation", "probability", "residual", "weight_group"):
        fields["sources"][f"widths.{leaf}"] = "assumed: given by the user"
    return _checked(fields, f"{target.target} with {precision}")


def _checked(fields: Mapping[str, object], place: str) -> NpuTarget:
    try:
        return NpuTarget.model_validate(fields)
    except ValidationError as error:
        texts = []
        for problem in error.errors():
            path = ".".join(map(str, problem["loc"]))
            texts.append(_sentence(path, problem["type"], problem["msg"], problem["input"]))
        raise VitruviusError(f"{place}: {'; '.join(texts)}") from error


def _sentence(path: str, kind: str, message: str, value: object) -> str:
    """One problem: its dotted path, what was expected, what came."""
    if kind == "extra_forbidden":
        table, _, name = path.rpartition(".")
        fields = _model_at(table).model_fields
        return f"{path}: no such field, {nearest(name, fields)}"
    if kind == "missing":
        return f"{path}: missing, expected {_range(path)}"
    if kind == "value_error":
        text = message.removeprefix("Value error, ")
        return f"{path}: {text}" if path else text
    return f"{path}: expected {_range(path)}, got {value!r}"


def _model_at(path: str) -> type[BaseModel]:
    """The table at a dotted path; the target itself at the empty one."""
    model: type[BaseModel] = NpuTarget
    for part in filter(None, path.split(".")):
        annotation = model.model_fields[part].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return model


def _range(path: str) -> str:
    """What the field at ``path`` may be, in words."""
    table, _, name = path.rpartition(".")
    fields = _model_at(table).model_fields
    if name not in fields:
        return "a text"
    info: FieldInfo = fields[name]
    if choices := get_args(info.annotation):
        literal = [str(choice) for choice in choices if not isinstance(choice, type)]
        if literal and len(literal) == len(choices):
            return "one of " + ", ".join(literal)
    limits = {
        name: getattr(item, name)
        for item in info.metadata
        for name in ("ge", "gt", "le")
        if hasattr(item, name)
    }
    number = "a whole number" if int in (info.annotation, *choices) else "a number"
    if "ge" in limits:
        return f"{number} from {limits['ge']} to {limits['le']:,}"
    if "gt" in limits:
        return f"{number}, more than {limits['gt']} and at most {limits['le']:,}"
    if info.annotation is bool:
        return "true or false"
    if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
        return "a table with " + ", ".join(info.annotation.model_fields)
    return "a text"


def leaves(fields: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """Dotted paths of all values that are not tables, with the values.

    >>> leaves({"clock_hz": 1e9, "array": {"rows": 4}})
    [('clock_hz', 1000000000.0), ('array.rows', 4)]
    """
    found: list[tuple[str, object]] = []
    for name, value in fields.items():
        if isinstance(value, dict):
            found += leaves(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, value))
    return found


def covering(path: str) -> list[str]:
    """A dotted path and those of the tables around it, innermost first.

    >>> covering("vector.interval.alu")
    ['vector.interval.alu', 'vector.interval', 'vector']
    """
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
