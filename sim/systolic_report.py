"""The matrix products of a model, and their cycles on a systolic array.

Every operator with multiply-accumulates is one or several products [M, K] x [K, N], and what it
needs is checked against its count; every other operator that does work is named as not on the
array, so that no total passes for that of the whole model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from typing import Protocol

import numpy as np

from ..errors import VitruviusError
from ..models.graph import Graph, Operator
from ..models.integer_model import IntegerModel
from ..models.integer_operator import IntegerOperator
from .systolic import Dataflow, scalesim_cycles

__all__ = ["Gemm", "HoldsModel", "SystolicReport", "SystolicRow", "products", "systolic_report"]

# they name or hold values and do no work
_FREE = frozenset({"Input", "Output", "Constant", "View", "Select", "RepeatBatch"})


class HoldsModel(Protocol):
    """Anything that was made from an integer model, such as a Program."""

    @property
    def model(self) -> IntegerModel: ...


@dataclass(frozen=True)
class Gemm:
    """``count`` products [M, K] x [K, N] of one operator, which the array does one by one."""

    operator: str
    kind: str
    M: int
    N: int
    K: int
    count: int = 1

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates."""
        return self.count * self.M * self.N * self.K


@dataclass(frozen=True)
class SystolicRow:
    """A product and the cycles that all its ``count`` take; utilisation: useful products per
    product that the array could have done.
    """

    gemm: Gemm
    cycles: int
    utilisation: float


@dataclass(frozen=True)
class SystolicReport:
    """The products of a model on one array.

    not_on_array: kinds of operators without products, and how many there are of each; they cost
    nothing here. source: how the cycles were found.
    """

    model: str
    rows: int
    cols: int
    dataflow: Dataflow
    products: tuple[SystolicRow, ...]
    not_on_array: tuple[tuple[str, int], ...]
    source: str = "formula: SCALE-Sim's cycles of a fold (sim.systolic), memory never waits"

    @property
    def cycles(self) -> int:
        """Of all products, one after another."""
        return sum(row.cycles for row in self.products)

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates."""
        return sum(row.gemm.macs for row in self.products)

    @property
    def utilisation(self) -> float:
        """Useful products per product that the array could have done in the time."""
        possible = self.cycles * self.rows * self.cols
        return self.macs / possible if possible else 0.0

    def record(self) -> dict[str, object]:
        """The report as plain values for JSON."""
        return {
            **asdict(self),
            "cycles": self.cycles,
            "macs": self.macs,
            "utilisation": self.utilisation,
        }


def systolic_report(
    model: Graph | IntegerModel | HoldsModel,
    rows: int,
    cols: int,
    dataflow: Dataflow | str,
) -> SystolicReport:
    """Every product of ``model`` for one image, with its cycles on a ``rows`` x ``cols`` array.

    ``model``: a traced graph, an integer model, or a program compiled from one. A mixture's experts
    are counted as the graph has them, all on every token. The heads of an attention and the groups
    of a convolution are products of their own.

    Raises VitruviusError for an array below 1 x 1, an unknown dataflow, or an operator whose
    products do not account for its multiply-accumulates.
    """
    source = model if isinstance(model, (Graph, IntegerModel)) else model.model
    gemms, others = products(source)
    extents = np.array([(gemm.M, gemm.N, gemm.K) for gemm in gemms], np.int64).reshape(-1, 3)
    cycles = scalesim_cycles(*extents.T, rows=rows, cols=cols, dataflow=dataflow)
    return SystolicReport(
        model=source.name,
        rows=rows,
        cols=cols,
        dataflow=Dataflow(dataflow),
        products=tuple(
            SystolicRow(
                gemm=gemm,
                cycles=gemm.count * int(one),
                utilisation=gemm.macs / (gemm.count * int(one) * rows * cols),
            )
            for gemm, one in zip(gemms, cycles, strict=True)
        ),
        not_on_array=tuple(sorted(others.items())),
    )


def products(model: Graph | IntegerModel) -> tuple[list[Gemm], Counter[str]]:
    """The products of ``model`` in order, and the other operators that do work, by kind.

    Raises VitruviusError for an operator whose products do not account for its macs.
    """
    gemms: list[Gemm] = []
    others: Counter[str] = Counter()
    found: list[tuple[Operator | IntegerOperator, list[Gemm]]]
    if isinstance(model, Graph):
        found = [(op, _of_graph(op, model)) for op in model.operators()]
    else:
        found = [(op, _of_integers(op, model)) for op in model.operators]
    for op, own in found:
        counted = sum(gemm.macs for gemm in own)
        if counted != op.macs:
            raise VitruviusError(
                f"systolic report of {model.name}: operator {op.kind} '{op.name}' has {op.macs} "
                f"multiply-accumulates, its products account for {counted}"
            )
        gemms += own
        if not own and op.kind not in _FREE:
            others[op.kind] += 1
    return gemms, others


def _of_graph(op: Operator, graph: Graph) -> list[Gemm]:
    rule = _RULES.get(op.kind)
    if rule is None:
        return []
    operands = [graph.operator(name).output.shape for name in op.inputs]
    weight = tuple(graph.tensors[op.tensors["weight"]].shape) if "weight" in op.tensors else ()
    M, N, K, count = rule(op, operands, weight)
    return [Gemm(op.name, op.kind, M, N, K, count)]


_Shape = tuple[int, ...]


def _linear(op: Operator, operands: list[_Shape], weight: _Shape) -> _Shape:
    return prod(op.output.shape[:-1]), weight[0], weight[1], 1


def _conv2d(op: Operator, operands: list[_Shape], weight: _Shape) -> _Shape:
    """Output pixels by output channels by the window (im2col), for each group."""
    batch, channels, *pixels = op.output.shape
    groups = operands[0][1] // weight[1]
    return batch * prod(pixels), channels // groups, prod(weight[1:]), groups


def _conv_transpose2d(op: Operator, operands: list[_Shape], weight: _Shape) -> _Shape:
    """Input pixels by output channels times the window by input channels, for each group."""
    batch, channels, *pixels = operands[0]
    groups = op.output.shape[1] // weight[1]
    return batch * prod(pixels), prod(weight[1:]), channels // groups, groups


def _matmul(op: Operator, operands: list[_Shape], weight: _Shape) -> _Shape:
    """One product for each matrix on the right, such as a head; rows that share one are one."""
    *lead, M, N = op.output.shape
    count, K = prod(lead), operands[0][-1]
    return (count * M, N, K, 1) if prod(operands[1][:-2]) == 1 else (M, N, K, count)


_RULES: dict[str, Callable[[Operator, list[_Shape], _Shape], _Shape]] = {
    "Linear": _linear,
    "Conv2d": _conv2d,
    "ConvTranspose2d": _conv_transpose2d,
    "MatMul": _matmul,
}


def _of_integers(op: IntegerOperator, model: IntegerModel) -> list[Gemm]:
    tokens, features = op.output
    if op.kind == "Linear":
        outputs, inputs = model.tensors[op.tensors["weight"]].shape
        return [Gemm(op.name, op.kind, tokens, outputs, inputs)]
    if op.kind == "Attention":
        heads = int(op.attributes["heads"])
        own = features // heads
        return [
            Gemm(op.name, "Attention scores", tokens, tokens, own, heads),
            Gemm(op.name, "Attention apply", tokens, own, tokens, heads),
        ]
    return []
