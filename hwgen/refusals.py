"""What of an integer model the accelerator has no step for, all of it at once."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import VitruviusError
from ..models.integer.ivit.shiftmax import OCTAVES
from ..models.integer_model import IntegerModel, IntegerOperator
from ..models.ivit_operators import KINDS
from .core.scheme import Scheme
from .units.ivit.shift_exp import STEP_BITS
from .units.ivit.shiftmax import LEAST_SUM
from .units.router import MOST_CHOSEN

__all__ = ["refuse_unknown", "scheme_of"]

_CODE_BITS = 8
_STREAM_BITS = 16
_WIDTHS = {
    "Quantize": _CODE_BITS,
    "LayerNorm": _CODE_BITS,
    "Gelu": _CODE_BITS,
    "Attention": _CODE_BITS,
    "Select": _CODE_BITS,
    "Embed": _STREAM_BITS,
    "Add": _STREAM_BITS,
    "Gate": _STREAM_BITS,
    "Mixture": _STREAM_BITS,
    "ILayerNorm": _CODE_BITS,
    "ShiftGelu": _CODE_BITS,
    "ShiftAttention": _CODE_BITS,
    "Embed31": _STREAM_BITS,
    "Add31": _STREAM_BITS,
}
"""Width of the results of every kind but a linear layer's, which depends on its reader."""
_STREAM = ("Embed", "Add", "Mixture", "Embed31", "Add31")
_LINEAR = ("Linear", "Linear31")
_READERS = ("Gelu", "ShiftGelu", "Embed", "Embed31", "Add", "Add31", "Gate", "Mixture")


def scheme_of(model: IntegerModel) -> Scheme:
    """The scheme of the operators of ``model``."""
    return "ivit" if any(operator.kind in KINDS for operator in model.operators) else "edge"


def refuse_unknown(model: IntegerModel) -> None:
    """Raises VitruviusError listing every operator of ``model`` that the accelerator cannot run:
    kinds and code widths that it lacks, and operators that read each other in an order that its
    one residual memory and its fixed paths do not allow. Equal reasons are told once, with the
    first operator's name and how many more there are.
    """
    found: dict[str, list[str]] = {}
    for operator in model.operators:
        for reason in _reasons(operator, model):
            found.setdefault(reason, []).append(operator.name)
    if not found:
        return
    lines = []
    for reason, names in found.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"'{names[0]}'{more}: {reason}")
    raise VitruviusError(
        f"{model.name}: the accelerator has no step for {sum(map(len, found.values()))} of "
        f"{len(model.operators)} operators:\n  " + "\n  ".join(lines)
    )


def _reasons(operator: IntegerOperator, model: IntegerModel) -> Iterator[str]:
    kind = operator.kind
    if kind in _LINEAR:
        yield from _linear(operator, model)
        return
    if kind not in _WIDTHS:
        yield f"{kind} has no step"
        return
    if operator.bits != _WIDTHS[kind]:
        yield f"{kind} with codes of {operator.bits} bits, expected {_WIDTHS[kind]}"
    if kind == "Attention" and "bias" in operator.tensors:
        yield "Attention with a mask or position bias"
    if kind in ("Add", "Add31"):
        stream, branch = (model.operator(name).kind for name in operator.inputs)
        if stream not in _STREAM or branch not in _LINEAR:
            yield f"{kind} of {stream} and {branch}, expected the residual stream and a Linear"
    yield from _ivit(operator)
    if kind == "Mixture":
        yield from _mixture(operator, model)
    if kind == "Gate" and not 1 <= int(operator.attributes.get("k", 1)) <= MOST_CHOSEN:
        yield f"Gate of the {operator.attributes['k']} best, expected 1 to {MOST_CHOSEN}"
    if operator is model.operators[-1] and kind not in ("Add", "Mixture", "Add31"):
        yield f"{kind} as the last operator, expected a Linear or the residual stream"


def _ivit(operator: IntegerOperator) -> Iterator[str]:
    """Of the operators of scheme ivit what only the golden knows."""
    if operator.kind == "ILayerNorm" and operator.attributes.get("newton"):
        yield "ILayerNorm with the root of ten Newton steps, expected the exact one (mode safe)"
    if operator.kind == "ShiftGelu" and operator.attributes.get("faithful"):
        yield (
            "ShiftGelu relative to the row's maximum, which is not known before the row is "
            "complete, expected mode safe"
        )
    if operator.kind == "ShiftAttention":
        octaves = int(operator.attributes.get("octaves", OCTAVES))
        step, most = int(operator.attributes.get("a", 1)), (1 << STEP_BITS) - 1
        if not 1 <= octaves <= OCTAVES:
            yield f"ShiftAttention of {octaves} octaves, expected 1 to {OCTAVES}"
        elif step << octaves < LEAST_SUM:
            yield (
                f"ShiftAttention of {octaves} octaves with a = {step}, expected a * 2**octaves of "
                f"at least {LEAST_SUM}"
            )
        if step > most:
            yield f"ShiftAttention with a = {step}, expected at most {most}"


def _mixture(operator: IntegerOperator, model: IntegerModel) -> Iterator[str]:
    stream, route = (model.operator(name).kind for name in operator.inputs[:2])
    if stream not in _STREAM or route != "Gate":
        yield f"Mixture of {stream} and {route}, expected the residual stream and a Gate"
    for name in operator.inputs[2:]:
        chain = [model.operator(name)]
        while len(chain) < 3 and chain[-1].inputs:
            chain.append(model.operator(chain[-1].inputs[0]))
        if [item.kind for item in chain] != ["Linear", "Gelu", "Linear"]:
            kinds = ", ".join(item.kind for item in reversed(chain))
            yield f"Mixture with an expert of {kinds}, expected Linear, Gelu, Linear"


def _linear(operator: IntegerOperator, model: IntegerModel) -> Iterator[str]:
    readers = [reader for reader in model.operators if operator.name in reader.inputs]
    if not readers:
        if operator.output[0] != 1:
            yield f"a last Linear with {operator.output[0]} tokens, expected 1"
        return
    if len(readers) > 1:
        yield "a Linear that is read more than once"
    for kind in sorted({reader.kind for reader in readers}):
        if kind in ("Attention", "ShiftAttention"):
            if operator.bits != _CODE_BITS:
                yield f"Linear with codes of {operator.bits} bits, expected {_CODE_BITS}"
        elif kind not in _READERS:
            yield f"a Linear that {kind} reads"
