"""What must hold of one integer operator and its tensors before anything is computed with it: a
file may have been made, or changed, by anyone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from torch import Tensor

from .integer.ivit.dyadic import MAX_SHIFT
from .integer.requantize import MULTIPLIER_BITS, SHIFT_BITS
from .integer_operator import IntegerOperator
from .ivit_operators import KINDS as IVIT

__all__ = ["problems"]

_WIDTHS: Mapping[str, Collection[int]] = {
    "Linear31": (8, 16, 32),
    "ShiftGelu": (8,),
    "ILayerNorm": (8,),
    "ShiftAttention": (8,),
    "Embed31": (16,),
    "Add31": (16,),
}
"""Widths that the results of operators of scheme `ivit` have."""
_EDGE_WIDTHS = (4, 6, 8, 16)
_SHARED_WIDTHS = (4, 6, 8, 16, 32)
_SHARED = ("Select", "Quantize", "Mean")
"""Kinds of both schemes."""
_STEPS = {"a": (1, (1 << 31) - 1), "octaves": (1, 30)}


def problems(operator: IntegerOperator, tensors: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with ``operator``, one text for each; its tensors are all there."""
    found = []
    if not (_finite(operator.scale) and operator.scale > 0):
        found.append(f"scale: expected a positive number, got {operator.scale!r}")
    widths = _WIDTHS.get(operator.kind, _EDGE_WIDTHS)
    if operator.kind in _SHARED:
        widths = _SHARED_WIDTHS
    if operator.bits not in widths:
        expected = " or ".join(map(str, widths))
        found.append(f"width of {operator.kind}: expected {expected} bits, got {operator.bits!r}")
    wide = operator.kind in IVIT
    for name, value in operator.attributes.items():
        if not _finite(value):
            found.append(f"{name}: expected a finite number, got {value!r}")
        elif name.endswith("_multiplier"):
            found += _multiplier(name, int(value), int(value), wide)
        elif name.endswith("_shift"):
            found += _shift(name, int(value), int(value), wide)
        elif name in _STEPS and not _STEPS[name][0] <= value <= _STEPS[name][1]:
            low, high = _STEPS[name]
            found.append(f"{name}: expected {low} to {high}, got {value!r}")
    for role, key in operator.tensors.items():
        found += _tensor(role.partition("@")[0], key, tensors[key], operator)
    return found


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _tensor(role: str, key: str, tensor: Tensor, operator: IntegerOperator) -> list[str]:
    """Of a parameter: integers, as many as there are channels, and factors in their range."""
    if tensor.is_floating_point() or tensor.is_complex():
        return [f"tensor {key}: expected integers, got {str(tensor.dtype).removeprefix('torch.')}"]
    wide = operator.kind in IVIT
    if role in ("multiplier", "shift", "gain", "offset", "alive") or (
        role == "bias" and tensor.dim() < 2
    ):
        expected = [operator.output[1]]
        if list(tensor.shape) != expected:
            return [f"tensor {key}: expected shape {expected}, got {list(tensor.shape)}"]
    if role == "weight" and (tensor.dim() != 2 or tensor.shape[0] != operator.output[1]):
        return [f"tensor {key}: expected shape [{operator.output[1]}, n], got {list(tensor.shape)}"]
    if role == "multiplier":
        found = _multiplier(f"tensor {key}", int(tensor.min()), int(tensor.max()), wide)
        small = tensor[(tensor.long().abs() < 1 << 30) & (tensor != 0)]
        if wide and not found and len(small):
            return _multiplier(f"tensor {key}", int(small[0]), int(small[0]), wide)
        return found
    if role == "shift":
        return _shift(f"tensor {key}", int(tensor.min()), int(tensor.max()), wide)
    return []


def _multiplier(what: str, low: int, high: int, wide: bool) -> list[str]:
    """Of factors of 31 bits, normalised and signed, or else of 16 bits without a sign."""
    for value in (low, high):
        if wide and value != 0 and not 1 << 30 <= abs(value) < 1 << 31:
            return [f"{what}: expected 0 or a magnitude of 2**30 to 2**31 - 1, got {value}"]
        if not wide and not 0 <= value < 1 << MULTIPLIER_BITS:
            return [f"{what}: expected 0 to {(1 << MULTIPLIER_BITS) - 1}, got {value}"]
    return []


def _shift(what: str, low: int, high: int, wide: bool) -> list[str]:
    least, most = (1, MAX_SHIFT) if wide else (0, (1 << SHIFT_BITS) - 1)
    for value in (low, high):
        if not least <= value <= most:
            return [f"{what}: expected {least} to {most}, got {value}"]
    return []
