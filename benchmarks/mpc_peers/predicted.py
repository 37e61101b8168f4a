"""What the cost model says of the operators that were run in CrypTen and SPU.

Each name stands for one function of a protocol, or for a few one after another, written out here as
the other framework does it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from vitruvius.models.graph import Graph
from vitruvius.models.trace import trace
from vitruvius.models.zoo.mpcvit import MpcVit
from vitruvius.models.zoo.mpcvit_config import MpcVitConfig
from vitruvius.sim.mpc.operators import mpc_traffic
from vitruvius.sim.mpc.options import MpcOptions
from vitruvius.sim.mpc.protocols import Protocol, load_protocol
from vitruvius.sim.mpc.protocols.functions import matmul_shape
from vitruvius.sim.mpc.traffic import NOTHING, OperatorTraffic, Traffic

__all__ = ["DEVIATIONS", "WITHOUT_FUNCTION", "crypten", "shapes_of", "spu", "vit"]

Row = dict[str, Any]
Shape = tuple[int, ...]
Calls = list[tuple[str, tuple[Shape, ...]]]

LOCAL = ("add", "sum", "mean", "scale", "avg_pool", "cumulative_sum")
MAXIMA = {
    "log_reduction": "max_reduction",
    "tree": "max_tree",
    "pairwise": "max_pairwise",
    "double_log_reduction": "max_double_log",
    "accelerated_cascade": "max_cascade",
}

DEVIATIONS: dict[tuple[str, str], str] = {
    ("max", "1x1"): "CrypTen compares a row of one number with itself; in the model that number is "
    "the maximum, for nothing",
}
"""By operator and shapes: rows of CrypTen that the cost model means to differ from."""

WITHOUT_FUNCTION = {
    "abs": "a graph's Abs is costed as a ReLU, one round and one byte a number less",
    "sign": "a graph's Sign is costed as one comparison; JAX's sign makes two and tells 0 apart",
}
"""Operators of SPU that no function of the cost model stands for."""


def shapes_of(row: Row) -> str:
    """The shapes of a row as text."""
    return ", ".join("x".join(map(str, shape)) for shape in row["shapes"])


def crypten(row: Row) -> OperatorTraffic:
    """One operator between two parties, or a whole model, by CrypTen's protocol."""
    protocol = load_protocol("crypten")
    options = MpcOptions()
    if row["op"] == "vit":
        return vit(row, protocol, options)
    if row["op"] == "softmax" and row["attributes"].get("method") == "tree":
        options = MpcOptions(maximum="tree")
    return _sum(protocol, _crypten_calls(row), options)


def spu(row: Row, protocol: str) -> OperatorTraffic | None:
    """One operator, or a whole model, by a protocol of SPU; None for ``WITHOUT_FUNCTION``."""
    by_row = row["attributes"].get("rewrite") or protocol == "cheetah"  # which has no other way
    options = MpcOptions(division="row" if by_row else "element")
    chosen = load_protocol(protocol)
    if row["op"] in WITHOUT_FUNCTION:
        return None
    if row["op"] == "vit":
        return vit(row, chosen, options)
    _, integers, function = row["op"].rpartition("integer_")
    if integers:
        return _untruncated(row, chosen, function)
    return _sum(chosen, _spu_calls(row), options)


def _untruncated(row: Row, protocol: Protocol, function: str) -> OperatorTraffic:
    """A product of whole numbers: one of fractions less the truncation of its result."""
    left, right = (tuple(shape) for shape in row["shapes"])
    whole = protocol.traffic(function, (left, right)).online
    output = left if function == "multiply" else matmul_shape(left, right)
    cut = protocol.traffic("public_multiply", (output,)).online
    return OperatorTraffic(
        Traffic(
            whole.rounds - cut.rounds,
            whole.bytes_sent - cut.bytes_sent,
            whole.bytes_received - cut.bytes_received,
        )
    )


def vit(row: Row, protocol: Protocol, options: MpcOptions) -> OperatorTraffic:
    """The zoo's MPCViT of the same sizes, without the opening of its result."""
    sizes = {name: value for name, value in row["attributes"].items() if name != "rewrite"}
    graph = _graph(row["shapes"][0][0], **sizes)
    total = NOTHING
    for name, traffic in mpc_traffic(graph, protocol, options).items():
        if name not in graph.outputs:
            total += traffic
    return total


@cache
def _graph(
    patches: int,
    layers: int,
    heads: int,
    width: int,
    ratio: int,
    classes: int,
    softmax: str,
    gelu: str,
    affine: bool = False,
) -> Graph:
    side = 4 * round(patches**0.5)
    config = MpcVitConfig.model_validate(
        {
            "image_size": side,
            "classes": classes,
            "dim": width,
            "depth": layers,
            "heads": heads,
            "mlp_ratio": ratio,
            "attention": {"relu": "relu_softmax"}.get(softmax, softmax),
            "activation": {"identity": "linear"}.get(gelu, gelu),
            "norm_affine": affine,
        }
    )
    torch.manual_seed(0)
    return trace(MpcVit(config).eval(), (torch.zeros(1, 3, side, side),), name="mpcvit")


def _sum(protocol: Protocol, calls: Calls, options: MpcOptions) -> OperatorTraffic:
    total = NOTHING
    for function, shapes in calls:
        total += protocol.traffic(function, shapes, options)
    return total


def _output(row: Row) -> Shape:
    """Of a convolution, [batch, channels, height, width]."""
    x, weight = row["shapes"]
    stride, padding = (row["attributes"].get(name, default) for name, default in _STEPS)
    if row["op"] == "convolution":
        sides = [(x[i] + 2 * padding - weight[i]) // stride + 1 for i in (2, 3)]
        return x[0], weight[0], sides[0], sides[1]
    sides = [(x[i] - 1) * stride - 2 * padding + weight[i] for i in (2, 3)]
    return x[0], weight[1], sides[0], sides[1]


_STEPS = (("stride", 1), ("padding", 0))


def _crypten_calls(row: Row) -> Calls:
    op, attributes = row["op"], row["attributes"]
    shapes: tuple[Shape, ...] = tuple(tuple(shape) for shape in row["shapes"])
    x = shapes[0]
    rows = x[:-1]
    if op in LOCAL:
        return []
    if op in ("convolution", "convolution_transposed"):
        return [("convolution", (*shapes, _output(row)))]
    if op == "max":
        return [(MAXIMA[attributes["method"]], (x,))]
    if op == "max_pool":
        window = attributes["kernel_size"] ** 2
        places = (
            x[0] * x[1] * (x[2] // attributes["kernel_size"]) * (x[3] // attributes["kernel_size"])
        )
        return [("max_reduction", ((places, window),))]
    if op == "power":
        steps = {2: ["square"], 3: ["cube"], 4: ["square"] * 2, 6: ["square", "cube"]}
        return [(step, (x,)) for step in {**steps, 8: ["square"] * 3}[attributes["exponent"]]]
    if op == "polynomial":
        return [("square" if attributes["degree"] == 2 else "polynomial4", (x,))]
    if op in ("layernorm", "rmsnorm"):
        return [(op, (x,)), *([("multiply", (x, shapes[1]))] if len(shapes) > 1 else [])]
    written: dict[str, Calls] = {
        "abs": [("relu", (x,))],
        "divide_any": [("reciprocal_any", shapes[1:]), ("multiply", shapes)],
        "gelu_tanh_square": [("cube", (x,)), ("tanh", (x,)), ("multiply", (x, x))],
        "hardtanh": [("relu6", (x,))],
        "layernorm_by_product": [("layernorm_product", (x,))],
        "less": [("ltz", (x,))],
        "log_softmax": [("max_reduction", (x,)), ("exp", (x,)), ("log", (rows,))],
        "max2": [("relu", (x,))],
        "max2_select": [("max2", (x,))],
        "norm": [("square", (x,)), ("sqrt", (rows,))],
        "sign": [("ltz", (x,))],
        "silu": [("sigmoid", (x,)), ("multiply", (x, x))],
        "variance": [("square", (x,))],
        "where": [("select", (x,))],
    }
    alone = op in ("multiply", "matmul")
    return written.get(op, [(op, shapes if alone else (x,))])


def _spu_calls(row: Row) -> Calls:
    op = row["op"]
    shapes: tuple[Shape, ...] = tuple(tuple(shape) for shape in row["shapes"])
    x = shapes[0]
    if op in ("add", "sum"):
        return []
    if op == "convolution":
        return [("convolution", (*shapes, _output(row)))]
    if op in ("layernorm", "rmsnorm"):
        return [(op, (x,)), *([("multiply", (x, shapes[1]))] if len(shapes) > 1 else [])]
    written: dict[str, Calls] = {
        "gelu_sigmoid": [("public_multiply", (x,)), ("sigmoid", (x,)), ("multiply", (x, x))],
        "hardtanh": [("relu6", (x,))],
        "less": [("ltz", (x,))],
        "max2": [("relu", (x,))],
        "mean": [("public_multiply", (x[:-1],))],
        "silu": [("sigmoid", (x,)), ("multiply", (x, x))],
        "square": [("power2", (x,))],
        "where": [("ltz", (x,)), ("where", (x, x))],
    }
    alone = op in ("multiply", "matmul", "divide")
    return written.get(op, [(op, shapes if alone else (x,))])
