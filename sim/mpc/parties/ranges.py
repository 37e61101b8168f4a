"""How large the values of a model become: whether they fit the ring, and by which public powers of
two variances and divisors are brought into the range where a reciprocal or root converges.

Values are those of images that the model's owner has; the powers of two, one for each norm and
division, are known to both parties.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ....errors import VitruviusError
from ....models.graph import Graph, Operator, execute_all
from ....models.kind import number, whole
from ..options import MpcOptions
from ..secrecy import Knowledge, knowledge
from .operators import LOCAL
from .ring import RING_BITS

__all__ = ["Ranges", "check_ranges", "expected_failures", "measured_ranges", "shifts"]

_VARIANCE = {"newton": 16.0, "goldschmidt": 2.0}
_DIVISOR = 64.0
_EXACT = LOCAL | {"Input", "Constant", "Add", "Relu", "Relu6", "Clamp", "Maximum", "Minimum"}
_STEPS = {
    "Gelu": 30,
    "QuickGelu": 28,
    "Softmax": 10,
    "Sigmoid": 25,
    "Tanh": 25,
    "Silu": 26,
    "Exp": 8,
}
"""Truncations of numbers of about 1 for each element, inside a function."""
_NORMS = ("LayerNorm", "RmsNorm", "GroupNorm", "L2Normalize")
_GELU_MOST = 18.0
_SPREAD_MOST = 500.0


@dataclass(frozen=True)
class Ranges:
    """By operator: the largest magnitude of its output, of its variance or divisor, the spread of a
    softmax's rows, and the sum of what it truncates in one image, as magnitudes.
    """

    largest: dict[str, float]
    inner: dict[str, float]
    spread: dict[str, float]
    truncated: dict[str, float]


def measured_ranges(graph: Graph, images: Tensor) -> Ranges:
    """Ranges on ``images`` [n, ...], which are run one by one."""
    largest: dict[str, float] = {}
    inner: dict[str, float] = {}
    spread: dict[str, float] = {}
    truncated: dict[str, float] = {}
    held: dict[str, Tensor] = {}
    last = {source: op.name for op in graph.operators() for source in op.inputs}

    def note(table: dict[str, float], name: str, value: float) -> None:
        table[name] = max(table.get(name, 0.0), value)

    def observe(op: Operator, output: Tensor) -> None:
        held[op.name] = output
        if output.is_floating_point() and output.numel():
            note(largest, op.name, float(output.abs().max()))
            operands = [held[name] for name in op.inputs]
            note(truncated, op.name, _truncated(op, operands, output))
        if op.kind in _NORMS:
            note(inner, op.name, float(_variance(op, held[op.inputs[0]])))
        elif op.kind == "Div":
            note(inner, op.name, float(held[op.inputs[1]].abs().max()))
        elif op.kind == "Softmax":
            scores = held[op.inputs[0]]
            dim = whole(op.attributes, "dim")
            note(spread, op.name, float((scores.amax(dim) - scores.amin(dim)).max()))
        for source in set(op.inputs):
            if last[source] == op.name:
                del held[source]

    for image in images:
        held.clear()
        execute_all(graph, image[None], observe=observe)
    return Ranges(largest, inner, spread, truncated)


def _truncated(op: Operator, operands: Sequence[Tensor], output: Tensor) -> float:
    """Sum of the magnitudes that the operator's products have before truncation."""
    if op.kind in _EXACT:
        return 0.0
    total = float(output.abs().sum())
    if op.kind == "MatMul":
        total /= abs(number(op.attributes, "scale"))
    steps = _STEPS.get(op.kind, 0)
    if op.kind == "Gelu":
        total += float(operands[0].abs().pow(3).sum())
    return total + steps * output.numel()


def _variance(op: Operator, x: Tensor) -> Tensor:
    if op.kind == "L2Normalize":
        return x.square().sum(whole(op.attributes, "dim")).max()
    if op.kind == "GroupNorm":
        x = x.reshape(x.shape[0], whole(op.attributes, "groups"), -1)
    if op.kind == "RmsNorm":
        return x.square().mean(-1).max()
    return x.var(-1, correction=0).max()


def shifts(ranges: Ranges, graph: Graph, options: MpcOptions) -> dict[str, int]:
    """Half the binary exponents of ``Evaluation``, where they are not 0."""
    found = {}
    for name, value in ranges.inner.items():
        if value <= 0:
            continue
        division = graph.operator(name).kind == "Div"
        bound = _DIVISOR if division else _VARIANCE[options.rsqrt]
        exponent = math.ceil(math.log(value / bound, 4))
        exponent = max(0, exponent) if division else exponent
        if exponent:
            found[name] = exponent
    return found


def check_ranges(
    ranges: Ranges, graph: Graph, options: MpcOptions, fraction_bits: int
) -> tuple[str, int]:
    """The operator with the widest product before truncation, and its bits, sign included.

    Raises VitruviusError listing every tensor that the ring of 64 bits is too small for, and every
    one outside the range of its function.
    """
    who = knowledge(graph)
    problems, widest = [], ("", 0)
    for op in graph.operators():
        if who[op.name] is not Knowledge.SECRET or op.name not in ranges.largest:
            continue
        needed = _bits(_inside(op, graph, ranges), fraction_bits)
        if needed > widest[1]:
            widest = (op.name, needed)
        if needed > RING_BITS - 1:
            problems.append(
                f"{op.name} needs {needed} bits ({2 * fraction_bits} behind the point before "
                f"truncation, values up to {ranges.largest[op.name]:.3g})"
            )
        if op.kind == "Gelu" and options.gelu == "tanh":
            size = ranges.largest[op.inputs[0]]
            if size > _GELU_MOST:
                problems.append(
                    f"{op.name} gets values up to {size:.3g}, its tanh form takes {_GELU_MOST:g}; "
                    "gelu=pieces takes more"
                )
        if ranges.spread.get(op.name, 0.0) > _SPREAD_MOST:
            problems.append(
                f"{op.name} gets rows that spread over {ranges.spread[op.name]:.3g}, its "
                f"exponential takes {_SPREAD_MOST:g}"
            )
    failures = expected_failures(ranges, graph, fraction_bits)
    if not problems and sum(failures.values()) >= 1:
        worst = max(failures, key=lambda name: failures[name])
        most = fraction_bits - math.ceil(math.log(sum(failures.values()), 4))
        raise VitruviusError(
            f"{graph.name} does not fit a ring of {RING_BITS} bits with {fraction_bits} fraction "
            f"bits: {sum(failures.values()):.3g} truncations of an image are expected to go wrong, "
            f"most of them in {worst} (products up to {widest[1]} bits); expected at most {most} "
            "fraction bits"
        )
    if problems:
        raise VitruviusError(
            f"{graph.name} does not fit a ring of {RING_BITS} bits with {fraction_bits} fraction "
            f"bits, of which one is for the sign: " + "; ".join(problems)
        )
    return widest


def expected_failures(ranges: Ranges, graph: Graph, fraction_bits: int) -> dict[str, float]:
    """By operator, how many local truncations of one image are expected to go wrong: a product of
    magnitude x, in units of the ring, does with probability x / 2^64.
    """
    who = knowledge(graph)
    unit = 2.0 ** (2 * fraction_bits - RING_BITS)
    return {
        name: total * unit
        for name, total in ranges.truncated.items()
        if who[name] is Knowledge.SECRET
    }


def _inside(op: Operator, graph: Graph, ranges: Ranges) -> float:
    """The largest value that an operator has before its last truncation, or on the way."""
    size = ranges.largest[op.name]
    if op.kind == "MatMul":
        return size / abs(number(op.attributes, "scale"))
    if op.kind == "Gelu":
        return max(size, ranges.largest[op.inputs[0]] ** 3)
    return size


def _bits(size: float, fraction_bits: int) -> int:
    return 1 + 2 * fraction_bits + max(0, math.ceil(math.log2(size))) if size > 0 else 0
