"""A graph executed on integer codes of given widths, as a processor with such widths would.

- Every tensor of numbers is codes times one scale, the largest value seen in calibration over the
  largest code; weights have a scale for each output, or for each group of inputs of an output.
- Products of matrices and convolutions are sums of products of codes, exact (in float64, below
  2^53), brought to the output's codes with one rounding. Biases have 32 bits.
- Moves keep codes. A recurrence rounds every state.
- Everything else (norms, softmax, activations, sums) is evaluated in float64 on the values of its
  operands' codes and rounded to its own codes, factors of norms unrounded: what a table or a wide
  vector unit gives, not what one gives bit by bit.
- Whole numbers, flags, single numbers and infinities of a mask stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .code_widths import CodeWidths
from .evaluate import evaluate_kind
from .graph import Graph, Operator
from .kind import number, whole, wholes

__all__ = ["Codes", "code_scale", "coded", "encoded_weight", "execute_codes"]

_MOVES = frozenset({"View", "Select", "RepeatBatch", "Output"})
_PRODUCTS = frozenset({"Linear", "Conv2d", "MatMul"})


@dataclass(frozen=True)
class Codes:
    """Whole numbers, held in float64, times ``scale``; a scale of 0 means values as they are."""

    codes: Tensor
    scale: float

    @property
    def values(self) -> Tensor:
        """What the codes stand for."""
        return self.codes * self.scale if self.scale else self.codes


def code_scale(largest: float, bits: int) -> float:
    """The scale at which ``largest`` is the largest code of ``bits``; 1 for a tensor of zeros."""
    return largest / ((1 << (bits - 1)) - 1) or 1.0


def coded(values: Tensor, scale: float, bits: int) -> Codes:
    """The nearest codes, ties to even, saturating; infinities stay."""
    limit = 1 << (bits - 1)
    codes = torch.round(values.double() / scale).clamp(-limit, limit - 1)
    return Codes(torch.where(torch.isinf(values), values.double(), codes), scale)


def encoded_weight(weight: Tensor, widths: CodeWidths) -> tuple[Tensor, Tensor]:
    """Codes [O, G, K / G] of a weight [O, ...], and scales [O, G]; the last group is filled up with
    zeros.
    """
    flat = weight.double().flatten(1)
    size = widths.group or flat.shape[1]
    flat = functional.pad(flat, (0, -flat.shape[1] % size)).reshape(len(flat), -1, size)
    scales = flat.abs().amax(-1) / ((1 << (widths.weight - 1)) - 1)
    scales = torch.where(scales == 0, torch.ones_like(scales), scales)
    return torch.round(flat / scales[..., None]), scales


def execute_codes(
    graph: Graph,
    inputs: Sequence[Tensor],
    largest: Mapping[str, float],
    widths: CodeWidths,
    observe: Callable[[Operator, Codes], None],
) -> None:
    """Runs ``graph`` on codes; ``largest`` is the largest finite value of every operator's output
    in calibration. ``observe`` sees every operator's output in order.
    """
    values: dict[str, Codes] = {}
    operators = graph.operators()
    last_use = {source: op.name for op in operators for source in op.inputs}
    given = dict(zip(graph.inputs, inputs, strict=True))
    with torch.no_grad():
        for op in operators:
            operands = [values[name] for name in op.inputs]
            values[op.name] = _executed(op, operands, graph, given, largest, widths)
            observe(op, values[op.name])
            for source in set(op.inputs):
                if last_use[source] == op.name:
                    del values[source]


def _executed(
    op: Operator,
    operands: Sequence[Codes],
    graph: Graph,
    given: Mapping[str, Tensor],
    largest: Mapping[str, float],
    widths: CodeWidths,
) -> Codes:
    scale = code_scale(largest.get(op.name, 0.0), widths.activation)
    tensors = {role: graph.tensors[key] for role, key in op.tensors.items()}
    if op.kind in ("Input", "Constant"):
        held = given[op.name] if op.kind == "Input" else tensors["value"]
        if not held.is_floating_point() or held.dim() == 0:
            return Codes(held.double() if held.is_floating_point() else held, 0.0)
        return coded(held, scale, widths.activation)
    if op.kind in _MOVES:
        out = evaluate_kind(op.kind, [item.codes for item in operands], tensors, op.attributes)
        return Codes(out, operands[0].scale)
    if op.kind in _PRODUCTS:
        out = _product(op, operands, tensors, widths)
    elif op.kind == "Embedding":
        codes, scales = encoded_weight(tensors["weight"], widths)
        table = (codes * scales[..., None]).flatten(1)[:, : tensors["weight"].shape[1]]
        out = functional.embedding(operands[0].codes, table)
    elif op.kind == "Scan":
        return _scan(op, operands, scale, widths.activation)
    else:
        wide = {r: t.double() if t.is_floating_point() else t for r, t in tensors.items()}
        out = evaluate_kind(op.kind, [item.values for item in operands], wide, op.attributes)
    if not out.is_floating_point():
        return Codes(out, 0.0)
    return coded(out, scale, widths.activation)


def _product(
    op: Operator, operands: Sequence[Codes], tensors: Mapping[str, Tensor], widths: CodeWidths
) -> Tensor:
    """The product's values: sums of products of codes times scales, and the bias."""
    source = operands[0]
    if op.kind == "MatMul":
        right = operands[1].codes
        out = source.codes @ (right.transpose(-1, -2) if op.attributes["transpose_b"] else right)
        return out * (_factor(source) * _factor(operands[1]) * number(op.attributes, "scale"))
    codes, scales = encoded_weight(tensors["weight"], widths)
    total = _linear(source, codes, scales) if op.kind == "Linear" else None
    if total is None:
        total = _conv2d(op, source, codes, scales, tensors["weight"])
    if "bias" in tensors:
        bias = tensors["bias"]
        held = coded(bias, code_scale(float(bias.abs().max()), 32), 32).values
        total = total + (held if op.kind == "Linear" else held[:, None, None])
    return total


def _linear(source: Codes, codes: Tensor, scales: Tensor) -> Tensor:
    """One group of inputs after the other, each exact, scaled and added up."""
    total = torch.zeros(())
    for place, start in enumerate(range(0, source.codes.shape[-1], codes.shape[2])):
        part = source.codes[..., start : start + codes.shape[2]]
        out = functional.linear(part, codes[:, place, : part.shape[-1]])
        total = total + out * (scales[:, place] * _factor(source))
    return total


def _conv2d(op: Operator, source: Codes, codes: Tensor, scales: Tensor, weight: Tensor) -> Tensor:
    """Exact with one scale for an output; with groups, scales go into the codes before the sum."""
    grouped = codes.shape[1] > 1
    held = (codes * scales[..., None] if grouped else codes).flatten(1)[:, : weight[0].numel()]
    out = functional.conv2d(
        source.codes,
        held.reshape(weight.shape),
        None,
        wholes(op.attributes, "stride"),
        wholes(op.attributes, "padding"),
        wholes(op.attributes, "dilation"),
        whole(op.attributes, "groups"),
    )
    factor = _factor(source)
    return out * (factor if grouped else (scales[:, 0] * factor)[:, None, None])


def _factor(codes: Codes) -> float:
    return codes.scale or 1.0


def _scan(op: Operator, operands: Sequence[Codes], scale: float, bits: int) -> Codes:
    dim = whole(op.attributes, "dim")
    decay, driven = operands[0].values, operands[1].values
    kept = operands[2].values if len(operands) > 2 else None
    states = []
    for place in range(driven.shape[dim]):
        now = driven.select(dim, place)
        if kept is not None:
            now = decay.select(dim, place if decay.shape[dim] > 1 else 0) * kept + now
        state = coded(now, scale, bits)
        states.append(state.codes)
        kept = state.values
    return Codes(torch.stack(states, dim), scale)
