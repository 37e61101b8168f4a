"""Who knows the values of a graph before anything is opened, and which of them cannot be negative.

The shape of the model is public: kinds, shapes, attributes, numbers written in its code, masks and
indices. What was trained belongs to the model's owner. Everything computed from the image is
secret.
"""

from __future__ import annotations

from enum import StrEnum

from ...models.graph import Graph, Operator
from ...models.kind import number

__all__ = ["Knowledge", "heads_apart", "knowledge", "non_negative"]


class Knowledge(StrEnum):
    """Who can compute a value alone: everybody, the model's owner, or nobody."""

    PUBLIC = "public"
    OWNER = "owner"
    SECRET = "secret"


def knowledge(graph: Graph) -> dict[str, Knowledge]:
    """Who knows the output of each operator.

    A constant is public if it is a number in the model's code, boolean or whole; else it is
    trained, and its owner's. Operators on constants only are computed by the owner before they are
    shared.
    """
    found: dict[str, Knowledge] = {}
    for op in graph.operators():
        if op.kind == "Input":
            found[op.name] = Knowledge.SECRET
        elif op.kind == "Constant":
            public = "number" in op.attributes or not op.output.dtype.startswith("float")
            found[op.name] = Knowledge.PUBLIC if public else Knowledge.OWNER
        else:
            known = {found[name] for name in op.inputs}
            if any(not key.startswith("scalar.") for key in op.tensors.values()):
                known.add(Knowledge.OWNER)
            found[op.name] = next(
                (who for who in (Knowledge.SECRET, Knowledge.OWNER) if who in known),
                Knowledge.PUBLIC,
            )
    return found


def heads_apart(op: Operator, graph: Graph) -> int:
    """How many heads an operator would run one after another: those of an attention's products and
    of what is between them, which are [batch, heads, queries, keys or features]; 1 for all else.
    """
    shape = op.output.shape
    inside = len(shape) == 4 and (op.kind == "MatMul" or _between_products(op, graph))
    return shape[1] if inside and shape[0] == 1 else 1


def _between_products(op: Operator, graph: Graph) -> bool:
    if op.kind not in ("Softmax", "Relu", "Pow", "Mul", "Div") or len(op.output.shape) != 4:
        return False
    above = op
    while above.kind != "MatMul":
        if above.kind not in ("Softmax", "Relu", "Pow", "Mul", "Div", "Add") or not above.inputs:
            return False
        above = graph.operator(above.inputs[0])
    return True


def non_negative(graph: Graph) -> set[str]:
    """Operators whose output is at least 0 whatever the image is: of a divisor among them a
    reciprocal needs no sign.
    """
    found: set[str] = set()
    for op in graph.operators():
        if op.kind == "Constant":
            sure = "number" in op.attributes and number(op.attributes, "number") >= 0
        elif op.kind in _ALWAYS:
            sure = True
        elif op.kind in _KEEPING:
            squared = op.kind == "Mul" and op.inputs[0] == op.inputs[1]
            sure = squared or all(name in found for name in op.inputs)
        elif op.kind == "Pow":
            sure = op.inputs[0] in found or number(op.attributes, "exponent") % 2 == 0
        elif op.kind == "Clamp":
            lower = number(op.attributes, "lower") if "lower" in op.attributes else -1.0
            sure = op.inputs[0] in found or lower >= 0
        else:
            sure = False
        if sure:
            found.add(op.name)
    return found


_ALWAYS = {
    *("Relu", "Relu6", "Softmax", "Exp", "Sigmoid", "HardSigmoid", "Abs", "Sqrt", "Softplus"),
    *("Variance", "VectorNorm"),
}
_KEEPING = {
    *("Add", "Mul", "Div", "Maximum", "Minimum", "Sum", "Mean", "ReduceMax", "ReduceMin"),
    *("View", "Select", "Concat", "RepeatBatch", "Index", "Roll", "Flip", "Reciprocal", "Rsqrt"),
    *("AvgPool", "MaxPool", "AdaptiveAvgPool", "CumulativeSum", "Output"),
}
