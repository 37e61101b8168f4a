"""How large the values of a model become: whether they fit the ring, and by which public powers of
two variances and divisors are brought into the range where a reciprocal or root converges.

Values are those of images that the model's owner has; the powers of two, one for each norm and
division, are known to both parties.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ....errors import VitruviusError
from ....models.graph import Graph, Operator, execute_all
from ....models.kind import number, whole
from ..options import MpcOptions
from ..secrecy import Knowledge, knowledge
from .ring import RING_BITS

__all__ = ["Ranges", "check_ranges", "measured_ranges", "shifts"]

_VARIANCE = {"newton": 16.0, "goldschmidt": 2.0}
_DIVISOR = 64.0
_NORMS = ("LayerNorm", "RmsNorm", "GroupNorm", "L2Normalize")
_GELU_MOST = 18.0
_SPREAD_MOST = 500.0


@dataclass(frozen=True)
class Ranges:
    """By operator: the largest magnitude of its output, and of its variance or divisor."""

    largest: dict[str, float]
    inner: dict[str, float]
    spread: dict[str, float]


def measured_ranges(graph: Graph, images: Tensor) -> Ranges:
    """Ranges on ``images`` [n, ...], which are run one by one."""
    largest: dict[str, float] = {}
    inner: dict[str, float] = {}
    spread: dict[str, float] = {}
    held: dict[str, Tensor] = {}
    last = {source: op.name for op in graph.operators() for source in op.inputs}

    def note(table: dict[str, float], name: str, value: float) -> None:
        table[name] = max(table.get(name, 0.0), value)

    def observe(op: Operator, output: Tensor) -> None:
        held[op.name] = output
        if output.is_floating_point() and output.numel():
            note(largest, op.name, float(output.abs().max()))
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
    return Ranges(largest, inner, spread)


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
    if problems:
        raise VitruviusError(
            f"{graph.name} does not fit a ring of {RING_BITS} bits with {fraction_bits} fraction "
            f"bits, of which one is for the sign: " + "; ".join(problems)
        )
    return widest


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
