"""Weights on disk: safetensors only, checked against the module before a single value is copied."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..errors import VitruviusError

__all__ = ["load_into", "load_weights", "save_weights"]

_LISTED = 4


def save_weights(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Writes ``tensors`` and text ``metadata`` to ``path``, under a temporary name that is then
    renamed.

    The same tensors and metadata give the same bytes. Raises ``VitruviusError`` when a tensor holds
    NaN or infinity or the path cannot be written.
    """
    for name in sorted(tensors):
        _finite(name, tensors[name], path)
    plain = {name: tensors[name].detach().contiguous().clone() for name in sorted(tensors)}
    data = _sorted_header(save(plain, dict(metadata)))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise VitruviusError(f"cannot write weights to {path}: {error.strerror}") from error


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file and its metadata. Nothing is unpickled.

    Raises ``VitruviusError`` when the file is missing, truncated, of another format, or holds NaN
    or infinity.
    """
    if not path.is_file():
        raise VitruviusError(f"expected a safetensors file, found none at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise VitruviusError(
            f"{path} is not a complete safetensors file ({path.stat().st_size} bytes): {reason}"
        ) from error
    for name, tensor in tensors.items():
        _finite(name, tensor, path)
    return tensors, metadata


def load_into(module: nn.Module, path: Path) -> dict[str, str]:
    """Copies a weight file into ``module`` and returns the file's metadata; the module is untouched
    on error.

    Raises ``VitruviusError`` naming every missing, unexpected and mis-shaped tensor, besides the
    errors of ``load_weights``.
    """
    tensors, metadata = load_weights(path)
    wanted = module.state_dict()
    problems = []
    if missing := sorted(wanted.keys() - tensors.keys()):
        problems.append(f"missing {_listing(missing)}")
    if unexpected := sorted(tensors.keys() - wanted.keys()):
        problems.append(f"unexpected {_listing(unexpected)}")
    for name in sorted(wanted.keys() & tensors.keys()):
        expected, got = wanted[name], tensors[name]
        if expected.shape != got.shape:
            problems.append(f"{name} expected shape {list(expected.shape)}, got {list(got.shape)}")
        elif expected.dtype != got.dtype:
            problems.append(f"{name} expected {_dtype(expected)}, got {_dtype(got)}")
    if problems:
        raise VitruviusError(f"{path} does not fit {type(module).__name__}: " + "; ".join(problems))
    module.load_state_dict(tensors)
    return metadata


def _finite(name: str, tensor: Tensor, path: Path) -> None:
    if not tensor.is_floating_point():
        return
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise VitruviusError(
            f"{path}: tensor {name} expected finite values, "
            f"got {bad} NaN or infinite of {tensor.numel()}"
        )


def _sorted_header(data: bytes) -> bytes:
    """The file with its JSON header in sorted order: the library writes metadata in hash order."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _listing(names: list[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
