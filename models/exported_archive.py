"""What may be in a ``.pt2`` file, checked before PyTorch loads it.

``torch.export.load`` unpickles what a file brings, evaluates its size expressions as Python and
resolves operator names by attribute. So everything of that kind is looked at first, through the
reader that PyTorch itself uses: no pickled objects but tensors, sizes made of known words, names
that are names, operators of PyTorch's own.
"""

from __future__ import annotations

import ast
import importlib
import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeAlias

import torch
from torch.export.pt2_archive import constants as archive

from ..errors import VitruviusError
from .user_line import first_line

__all__ = ["Json", "check_contents", "check_kind", "plain_size"]

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_HOW_TO_SAVE = "torch.export.save(torch.export.export(module, inputs), 'model.pt2')"
# What torch.export.save of one program writes, below the archive's root folder.
_RECORDS = (
    "archive_format",
    "archive_version",
    "byteorder",
    ".data/*",
    ".format_version",
    ".storage_alignment",
    "models/model.json",
    "data/weights/weight_*",
    "data/weights/model_weights_config.json",
    "data/constants/tensor_*",
    "data/constants/model_constants_config.json",
    "data/sample_inputs/model.pt",
    "extra/*",
)
_MODEL = "models/model.json"
_WEIGHTS = ("data/weights/", "model_weights_config.json")
_CONSTANTS = ("data/constants/", "model_constants_config.json")
_SAMPLE = "data/sample_inputs/model.pt"

_IDENTIFIER = re.compile(r"[\w.]*\Z")
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|higher_order)\.\w+(\.\w+)?\Z"
    r"|torch\.sym_\w+\Z|torch\._sym_\w+\Z|math\.\w+\Z"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|getitem|eq|ne|lt|le|gt|ge"
    r"|and_|or_|xor|not_|lshift|rshift)\Z"
)
_SYMBOL = re.compile(r"(s|u|z|zf|zuf)\d+\Z")
_NUMBER_OR_SYMBOL = re.compile(r"[\w.+-]{1,60}\Z")
_LONGEST_SIZE = 10_000
# What torch and sympy print sizes with, from torch/utils/_sympy/functions.py and sympy's srepr.
_SIZE_WORDS = frozenset(
    (
        "Symbol",
        "Integer",
        "Float",
        "Rational",
        "Add",
        "Mul",
        "Pow",
        "FloorDiv",
        "ModularIndexing",
        "Where",
        "PythonMod",
        "Mod",
        "CleanDiv",
        "CeilToInt",
        "FloorToInt",
        "CeilDiv",
        "LShift",
        "RShift",
        "PowByNatural",
        "FloatPow",
        "FloatTrueDiv",
        "IntTrueDiv",
        "TruncToFloat",
        "TruncToInt",
        "RoundToInt",
        "RoundDecimal",
        "ToFloat",
        "Identity",
        "Max",
        "Min",
        "IsNonOverlappingAndDenseIndicator",
        "Equality",
        "Unequality",
        "GreaterThan",
        "LessThan",
        "StrictGreaterThan",
        "StrictLessThan",
        "Eq",
        "Ne",
        "Ge",
        "Gt",
        "Le",
        "Lt",
        "And",
        "Or",
        "Not",
        "true",
        "false",
        "floor",
        "ceiling",
        "sqrt",
        "Abs",
        "oo",
        "int_oo",
        "Infinity",
        "NegativeInfinity",
    )
)
_ARITHMETIC = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
    ast.keyword,
    ast.expr_context,
)
_TREES = frozenset({"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
_OUTPUTS = "transformers.modeling_outputs"


def check_kind(path: Path) -> None:
    """Whether the file is a whole zip archive of the right format, told from its table alone."""
    with path.open("rb") as file:
        start = file.read(4)
    if start != b"PK\x03\x04":
        size = path.stat().st_size
        raise VitruviusError(
            f"{path} is not a .pt2 file: expected a zip archive, got {size} bytes that start with "
            f"{start!r}"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise VitruviusError(
            f"{path} is truncated or damaged ({path.stat().st_size} bytes): {error}"
        ) from error
    inside = [name.partition("/")[2] for name in names]
    if "archive_format" in inside:
        return
    if "serialized_exported_program.json" in names:
        raise VitruviusError(
            f"{path} is a .pt2 file of PyTorch 2.7 or earlier, which keeps weights in a pickle: "
            f"export the module again with this PyTorch, {torch.__version__}"
        )
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        raise VitruviusError(
            f"{path} is a TorchScript file, not an exported program: write one with {_HOW_TO_SAVE}"
        )
    if "data.pkl" in inside:
        raise VitruviusError(
            f"{path} is a pickled checkpoint (torch.save), not an exported program: write one with "
            f"{_HOW_TO_SAVE}"
        )
    raise VitruviusError(
        f"{path} is a zip archive, but not a .pt2 file: it holds {', '.join(sorted(names)[:3])}"
    )


def check_contents(path: Path, reader: torch._C.PyTorchFileReader) -> dict[str, Json]:
    """Reads the archive as PyTorch will and raises on everything that could run; returns the
    program's JSON.
    """
    names = reader.get_all_records()
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise VitruviusError(f"{path}: {twice[0]} is in the archive twice")
    if any(name.startswith("data/aotinductor/") for name in names):
        raise VitruviusError(
            f"{path} holds compiled code (AOTInductor), which is not loaded; save the program "
            f"itself: {_HOW_TO_SAVE}"
        )
    for name in names:
        if not any(fnmatchcase(name, pattern) for pattern in _RECORDS):
            raise VitruviusError(f"{path}: {name} is not loaded: {_reason(name)}")
    if "archive_version" not in names or _MODEL not in names:
        raise VitruviusError(f"{path} holds no program called 'model', only {', '.join(names[:3])}")
    supported = archive.ARCHIVE_VERSION_VALUE
    version = reader.get_record("archive_version").decode(errors="replace")
    model = _json(path, _MODEL, reader)
    written = str(model.get("torch_version", "an unnamed version"))
    if version != supported:
        raise VitruviusError(
            f"{path} has archive version {version}, written by PyTorch {written}; this PyTorch "
            f"{torch.__version__} reads version {supported}: export the module again here"
        )
    _check_schema(path, model, written)
    for folder, config in (_WEIGHTS, _CONSTANTS):
        entries = _json(path, folder + config, reader).get("config")
        for key, entry in (entries if isinstance(entries, dict) else {}).items():
            if not isinstance(entry, dict) or not isinstance(entry.get("path_name"), str):
                raise VitruviusError(f"{path}: {folder}{config} describes {key} in no known way")
            if not _IDENTIFIER.match(key):
                raise VitruviusError(f"{path}: {key!r} is no name of a tensor")
            if entry.get("use_pickle"):
                _check_pickle(path, f"{folder}{entry['path_name']}", reader)
    if _SAMPLE in names:
        _check_pickle(path, _SAMPLE, reader)
    _check_program(path, model)
    return model


def _check_schema(path: Path, model: Mapping[str, Json], written: str) -> None:
    from torch._export.serde.schema import SCHEMA_VERSION

    schema = model.get("schema_version")
    major = schema.get("major") if isinstance(schema, dict) else None
    if major != SCHEMA_VERSION[0]:
        raise VitruviusError(
            f"{path} was written by PyTorch {written} (schema {major}), this is "
            f"{torch.__version__} (schema {SCHEMA_VERSION[0]}): export the module again here"
        )


def _json(path: Path, name: str, reader: torch._C.PyTorchFileReader) -> dict[str, Json]:
    try:
        value = json.loads(reader.get_record(name))
    except (RuntimeError, ValueError, RecursionError) as error:
        raise VitruviusError(f"{path}: {name} cannot be read: {first_line(error)}") from error
    if not isinstance(value, dict):
        raise VitruviusError(f"{path}: {name} expected an object, got {type(value).__name__}")
    return value


def _check_pickle(path: Path, name: str, reader: torch._C.PyTorchFileReader) -> None:
    """Raises unless the record holds tensors and plain values only."""
    data = reader.get_record(name)
    if not data:
        return
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = named.group(1) if named else first_line(error)
        raise VitruviusError(
            f"{path}: {name} is not loaded: {_reason(name)}, here {what}"
        ) from error


def _reason(name: str) -> str:
    if name.startswith(("data/constants/", "data/weights/")) or name.endswith(".pt"):
        return "unpickling anything but tensors and plain values would run the file's code"
    return "it is no part of a program that torch.export.save writes"


def _check_program(path: Path, model: dict[str, Json]) -> None:
    """Operators, names, size expressions and tree types that PyTorch resolves or evaluates."""
    foreign: set[str] = set()
    for key, value in _pairs(model):
        if key == "target" and isinstance(value, str):
            if not _TARGET.match(value) and not _IDENTIFIER.match(value):
                foreign.add(value)
            elif value.startswith(("torch.", "math", "_operator")) and not _TARGET.match(value):
                foreign.add(value.removeprefix("torch.ops."))
        elif key == "expr_str" and not plain_size(value):
            raise VitruviusError(f"{path}: the size {value!r} is not an arithmetic expression")
        elif key == "name" and not (isinstance(value, str) and _IDENTIFIER.match(value)):
            if value is not None:
                raise VitruviusError(f"{path}: {value!r} is no name of a value")
        elif key in ("in_spec", "out_spec") and isinstance(value, str):
            _check_tree(path, value)
    if foreign:
        raise VitruviusError(
            f"{path}: expected operators of PyTorch's own (aten), got {', '.join(sorted(foreign))}"
        )


def _pairs(value: Json) -> Iterator[tuple[str, Json]]:
    """Every key with its value, however deep."""
    waiting: list[Json] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield from item.items()
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def plain_size(value: Json) -> bool:
    """Whether a size is arithmetic on symbols, so that evaluating it can do nothing else."""
    if not isinstance(value, str) or len(value) > _LONGEST_SIZE:
        return False
    try:
        tree = ast.parse(value, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if node.id not in _SIZE_WORDS and not _SYMBOL.match(node.id):
                return False
        elif isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name):
                return False
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and not _NUMBER_OR_SYMBOL.match(node.value):
                return False
        elif not isinstance(node, _ARITHMETIC):
            return False
    return True


def _check_tree(path: Path, text: str) -> None:
    """A tree of inputs or outputs is made of known containers, whose contexts are lists of keys."""
    try:
        pairs = list(_pairs(json.loads(text)))
        contexts = [
            json.loads(value) for key, value in pairs if key == "context" and isinstance(value, str)
        ]
    except (ValueError, RecursionError) as error:
        raise VitruviusError(f"{path}: a tree of inputs or outputs is no JSON") from error
    for key, kind in pairs:
        if key == "type" and kind is not None:
            _check_container(path, str(kind))
    for context in contexts:
        keys = context if isinstance(context, list) else [context]
        if not all(key is None or isinstance(key, (str, int)) for key in keys):
            raise VitruviusError(f"{path}: a tree of inputs or outputs has the context {context!r}")


def _check_container(path: Path, kind: str) -> None:
    if kind in _TREES:
        return
    if not kind.startswith(_OUTPUTS):
        raise VitruviusError(
            f"{path}: the program takes or returns a {kind}; expected tensors in "
            f"{', '.join(sorted(_TREES))}"
        )
    try:
        importlib.import_module(_OUTPUTS)  # registers its containers with torch
    except ImportError as error:
        raise VitruviusError(
            f"{path}: the program returns a {kind}: pip install transformers, or export a module "
            "that returns tensors"
        ) from error
