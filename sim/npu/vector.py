"""The vector unit: what each operator asks of a lane, and the cycles that takes.

Operators on a row (softmax, norms, reductions) put a row across the lanes, or as many short rows as
fit side by side, reduce it chunk by chunk and then fold the lanes, ``ceil(log2(lanes))`` additions
(as ONNXim does, arXiv 2406.08051). What is done once a row (a division, a square root) takes a turn
of its own. Rows are pipelined, so latencies are paid once an operator. Elementwise operators fill
all lanes whatever the shape.

Counts follow I-ViT (arXiv 2207.01405): softmax is a maximum, an exponential with its sum, and a
multiplication with the reciprocal; LayerNorm two sums, then normalise, scale, requantize; an
addition brings both operands to one scale. ``multiply`` adds to a sum where one follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias, cast

from ...models.graph import Operator
from .target import NpuTarget

__all__ = [
    "ELEMENTWISE",
    "Operations",
    "VectorWork",
    "actions",
    "elementwise",
    "lane_cycles",
    "lane_latency",
    "vector_cycles",
    "vector_mapping",
    "vector_work",
]

Operations: TypeAlias = Mapping[str, int]
_Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class VectorWork:
    """``rows`` of ``length`` elements. element, row: operations for each; trees: times that the
    lanes are folded into one, a row; reads: times that the input is read. serial: a row waits for
    the result of the row before.
    """

    rows: int
    length: int
    element: Operations
    row: Operations = field(default_factory=dict)
    trees: int = 0
    reads: int = 1
    serial: bool = False


def lane_cycles(operations: Operations, target: NpuTarget) -> int:
    """Cycles that the operations keep a lane."""
    interval = target.vector.interval
    return sum(count * int(getattr(interval, name)) for name, count in operations.items())


def lane_latency(operations: Operations, target: NpuTarget) -> int:
    """Cycles from the operand to the result, one operation after another."""
    latency = target.vector.latency
    return sum(count * int(getattr(latency, name)) for name, count in operations.items())


def vector_cycles(work: VectorWork, target: NpuTarget) -> int:
    """Cycles of the vector unit for ``work``, operands at hand."""
    lanes = target.vector.lanes
    turns, chunks = _turns(work, target)
    fold = _depth(min(lanes, work.length)) * work.trees * target.vector.interval.alu
    turn = chunks * lane_cycles(work.element, target) + fold + lane_cycles(work.row, target)
    if work.serial:
        turn = max(turn, lane_latency(work.element, target))
    return turns * turn + lane_latency(work.element, target) + lane_latency(work.row, target)


def vector_mapping(work: VectorWork, target: NpuTarget) -> float:
    """Share of the lanes that hold an element.

    >>> from .target import load_npu
    >>> vector_mapping(VectorWork(8, 40, {"alu": 1}), load_npu("edge16"))  # 40 of 3 x 16
    0.8333333333333334
    """
    turns, chunks = _turns(work, target)
    return work.rows * work.length / (turns * chunks * target.vector.lanes)


def _turns(work: VectorWork, target: NpuTarget) -> tuple[int, int]:
    """Turns that all rows take, and chunks of lanes that a turn takes."""
    lanes = target.vector.lanes
    side_by_side = 1 if work.serial else max(1, lanes // work.length)
    return -(-work.rows // side_by_side), -(-work.length // lanes)


def actions(work: VectorWork, target: NpuTarget) -> Counter[str]:
    """How often every operation is done."""
    found: Counter[str] = Counter()
    for name, count in work.element.items():
        found[name] += work.rows * work.length * count
    for name, count in work.row.items():
        found[name] += work.rows * count
    found["alu"] += work.rows * work.trees * (min(target.vector.lanes, work.length) - 1)
    return found


def elementwise(op: Operator, target: NpuTarget, *, behind_product: bool) -> Operations | None:
    """Operations for each element of an operator that works on elements alone, else None. Behind a
    product the accumulator was requantized already.
    """
    if op.kind == "Gelu" and target.vector.gelu == "shift":
        return None
    if op.kind in _FUNCTIONS:
        return _function(target)
    if op.kind == "Add" and behind_product:
        return {"requantize": 1, "alu": 1}
    if op.kind == "Pow":
        square = op.attributes["exponent"] in (2, 2.0)
        return {"multiply": 1, "requantize": 1} if square else _function(target)
    return ELEMENTWISE.get(op.kind)


def _function(target: NpuTarget) -> Operations:
    """A function of one element: a table of its 8-bit codes; of more bits, two entries and a line
    between them.
    """
    if target.widths.activation <= 8:
        return {"lookup": 1}
    return {"lookup": 2, "alu": 2, "multiply": 1}


ELEMENTWISE: dict[str, Operations] = {
    "Add": {"requantize": 2, "alu": 1},
    "Mul": {"multiply": 1, "requantize": 1},
    "Div": {"divide": 1, "requantize": 1},
    "ScaleShift": {"multiply": 1, "requantize": 1},
    "PRelu": {"multiply": 1, "alu": 1},
    "LeakyRelu": {"multiply": 1, "alu": 1},
    "Relu6": {"alu": 2},
    "Clamp": {"alu": 2},
    **{
        kind: {"alu": 1}
        for kind in (
            *("Relu", "Abs", "Sign", "Floor", "Ceil", "Round", "Not", "Cast"),
            *("Maximum", "Minimum", "Compare", "Where"),
        )
    },
}
"""Operations for each element; functions of one element, which are tables, apart."""

_FUNCTIONS = frozenset(
    (
        *("Gelu", "Elu", "Silu", "QuickGelu", "Mish", "HardSwish", "HardSigmoid", "Sigmoid"),
        *("Tanh", "Softplus", "Exp", "Expm1", "Log", "Log1p", "Sqrt", "Rsqrt", "Reciprocal"),
        *("Erf", "Sin", "Cos"),
    )
)


def vector_work(op: Operator, inputs: list[_Shape], target: NpuTarget) -> VectorWork | None:
    """What ``op`` asks of the vector unit; None where it has no rule for it.

    ``inputs``: shapes of the operands.
    """
    if (each := elementwise(op, target, behind_product=False)) is not None:
        return VectorWork(1, prod(op.output.shape), each)
    rule = _RULES.get(op.kind)
    return None if rule is None else rule(op, inputs)


def _axis(op: Operator, shape: _Shape) -> int:
    return shape[int(cast(int, op.attributes["dim"]))]


def _softmax(op: Operator, inputs: list[_Shape]) -> VectorWork:
    length = _axis(op, inputs[0])
    element = {"alu": 4, "exp": 1, "multiply": 1}
    return VectorWork(prod(inputs[0]) // length, length, element, {"divide": 1}, 2, 3)


def _log_softmax(op: Operator, inputs: list[_Shape]) -> VectorWork:
    length = _axis(op, inputs[0])
    return VectorWork(prod(inputs[0]) // length, length, {"alu": 5, "exp": 1}, {"lookup": 1}, 2, 3)


_CENTRED = {"alu": 2, "multiply": 3, "requantize": 1}
_DEVIATION = {"multiply": 2, "alu": 1, "sqrt": 1, "divide": 1}


def _layer_norm(op: Operator, inputs: list[_Shape]) -> VectorWork:
    length = int(cast(int, op.attributes["normalized"]))
    return VectorWork(prod(inputs[0]) // length, length, _CENTRED, _DEVIATION, 2, 2)


def _rms_norm(op: Operator, inputs: list[_Shape]) -> VectorWork:
    whole = _layer_norm(op, inputs)
    row = {"multiply": 1, "sqrt": 1, "divide": 1}
    return VectorWork(whole.rows, whole.length, {"multiply": 3, "requantize": 1}, row, 1, 2)


def _group_norm(op: Operator, inputs: list[_Shape]) -> VectorWork:
    rows = inputs[0][0] * int(cast(int, op.attributes["groups"]))
    return VectorWork(rows, prod(inputs[0]) // rows, _CENTRED, _DEVIATION, 2, 2)


def _l2_normalize(op: Operator, inputs: list[_Shape]) -> VectorWork:
    length = _axis(op, inputs[0])
    row = {"sqrt": 1, "divide": 1}
    element = {"multiply": 2, "requantize": 1}
    return VectorWork(prod(inputs[0]) // length, length, element, row, 1, 2)


def _shift_gelu(op: Operator, inputs: list[_Shape]) -> VectorWork:
    """I-ViT's ShiftGELU: the row's maximum, two exponentials, and a division for each element."""
    length = inputs[0][-1]
    element = {"alu": 3, "exp": 2, "divide": 1, "multiply": 2, "requantize": 1}
    return VectorWork(prod(inputs[0]) // length, length, element, {}, 1, 2)


def _reduction(element: Operations, row: Operations, trees: int = 1) -> _Rule:
    def rule(op: Operator, inputs: list[_Shape]) -> VectorWork:
        rows = prod(op.output.shape)
        return VectorWork(rows, prod(inputs[0]) // rows, element, row, trees)

    return rule


def _window(op: Operator, inputs: list[_Shape]) -> VectorWork:
    kernel = cast("tuple[int, ...]", op.attributes["kernel"])
    each = {"alu": prod(kernel)} | ({"requantize": 1} if op.kind == "AvgPool" else {})
    return VectorWork(1, prod(op.output.shape), each)


def _adaptive(op: Operator, inputs: list[_Shape]) -> VectorWork:
    """Windows that cut the input into the output's size."""
    pairs = zip(inputs[0][::-1], op.output.shape[::-1], strict=False)
    window = prod(-(-size // cut) for size, cut in pairs)
    return VectorWork(1, prod(op.output.shape), {"alu": window, "requantize": 1})


def _resize(op: Operator, inputs: list[_Shape]) -> VectorWork | None:
    taps = {"bilinear": 4, "bicubic": 16}.get(str(op.attributes["mode"]))
    if taps is None or op.attributes["antialias"]:
        return None
    return VectorWork(1, prod(op.output.shape), {"multiply": taps, "requantize": 1})


def _largest(op: Operator, inputs: list[_Shape]) -> VectorWork:
    """The k largest of a row: k times the maximum, which is then struck out."""
    k = int(cast(int, op.attributes["k"]))
    length = _axis(op, inputs[0]) if "dim" in op.attributes else inputs[0][-1]
    return VectorWork(prod(inputs[0]) // length, length, {"alu": 2 * k}, {}, k)


def _scan(op: Operator, inputs: list[_Shape]) -> VectorWork:
    """One token after the other, all of its states across the lanes: a product that adds to the
    driven term, brought back to the width of the state.
    """
    tokens = _axis(op, op.output.shape)
    each = {"multiply": 1, "requantize": 1}
    return VectorWork(tokens, prod(op.output.shape) // tokens, each, serial=True)


def _running_sum(op: Operator, inputs: list[_Shape]) -> VectorWork:
    """One element of every row at a time, rows across the lanes."""
    length = _axis(op, inputs[0])
    return VectorWork(length, prod(inputs[0]) // length, {"alu": 1})


def _fold(op: Operator, inputs: list[_Shape]) -> VectorWork:
    return VectorWork(1, prod(inputs[0]), {"alu": 1})


def _depth(lanes: int) -> int:
    return (lanes - 1).bit_length()


_Rule: TypeAlias = Callable[[Operator, list[_Shape]], VectorWork | None]

_RULES: dict[str, _Rule] = {
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "LayerNorm": _layer_norm,
    "RmsNorm": _rms_norm,
    "GroupNorm": _group_norm,
    "L2Normalize": _l2_normalize,
    "Gelu": _shift_gelu,
    "Sum": _reduction({"alu": 1}, {"requantize": 1}),
    "Mean": _reduction({"alu": 1}, {"requantize": 1}),
    "ReduceMax": _reduction({"alu": 1}, {}),
    "ReduceMin": _reduction({"alu": 1}, {}),
    "Variance": _reduction({"alu": 1, "multiply": 1}, {"multiply": 2, "requantize": 1}, 2),
    "VectorNorm": _reduction({"multiply": 1}, {"sqrt": 1, "requantize": 1}),
    "AdaptiveAvgPool": _adaptive,
    "AvgPool": _window,
    "MaxPool": _window,
    "Resize": _resize,
    "TopK": _largest,
    "Gate": _largest,
    "CumulativeSum": _running_sum,
    "Scan": _scan,
    "Fold": _fold,
}
