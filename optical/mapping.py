"""Which operators of a graph are convolutions of planes, and which stay in electronics, and why.

Three forms go through the lenses. A Conv2d as it is. A Linear over tokens: each token a plane, each
output a kernel as large as the plane, so that a valid readout is one pixel, their dot product. The
scores of an attention: every query plane against every key plane, again one pixel each.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import isqrt, prod
from typing import get_args

from ..errors import VitruviusError, nearest
from ..models.graph import Graph, Operator
from ..models.kind import whole, wholes
from ..sim.mpc.secrecy import Knowledge, knowledge, non_negative
from .convolution import Readout

__all__ = ["ON_OPTICS", "OpticalWork", "Placed", "linear_work", "mapped", "token_plane"]

ON_OPTICS = ("conv", "linear", "scores")


@dataclass(frozen=True)
class OpticalWork:
    """One operator as ``conv2d`` of planes, for one input of the model (batch 1).

    Planes [images, in_channels, *size] by kernels [out_channels, in_channels / groups, *kernel],
    ``groups`` as in ``conv2d``. Of the scores of an attention the images are the queries, each head
    is a group, and the kernels are the keys, head after head.

    images: planes of one channel with the same kernels: 1 of an image, tokens of a Linear, queries
        of scores.
    size: height and width of one plane; padding that no readout gives is written into it.
    kernel: its height and width; dilation is written into it.
    stride: rows and columns kept of what is read.
    dynamic: the kernels come from the image: a batch cannot share them.
    signed_input, signed_kernel: whether values below 0 may come.
    """

    images: int
    in_channels: int
    out_channels: int
    groups: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    readout: Readout
    stride: tuple[int, int]
    dynamic: bool
    signed_input: bool
    signed_kernel: bool

    @property
    def pairs(self) -> int:
        """(input channel, output channel) pairs: convolutions of single planes for each image."""
        return self.in_channels * self.out_channels // self.groups

    @property
    def result(self) -> tuple[int, int]:
        """Height and width of what is kept of one plane."""
        change = {"valid": -1, "same": 0, "full": 1}[self.readout]
        height, width = (
            -(-(side + change * (taps - 1)) // step)
            for side, taps, step in zip(self.size, self.kernel, self.stride, strict=True)
        )
        return height, width


@dataclass(frozen=True)
class Placed:
    """An operator with its optical work, or with the reason why it stays in electronics."""

    operator: Operator
    work: OpticalWork | None
    reason: str


def token_plane(features: int) -> tuple[int, int]:
    """Height and width of a plane of ``features`` samples, as square as can be.

    Raises ``VitruviusError`` for fewer than one.

    >>> token_plane(64), token_plane(192), token_plane(17)
    ((8, 8), (12, 16), (1, 17))
    """
    if features < 1:
        raise VitruviusError(f"a token expects at least 1 feature, got {features}")
    height = next(side for side in range(isqrt(features), 0, -1) if features % side == 0)
    return height, features // height


def mapped(
    graph: Graph, on_optics: Collection[str] = ON_OPTICS, *, non_negative_inputs: bool = False
) -> list[Placed]:
    """Every operator of ``graph`` in order, with its work or the reason for having none.

    ``on_optics`` names the forms that may go through the lenses. With ``non_negative_inputs`` the
    model's inputs, such as images, are taken to be at least 0; otherwise they are signed. Weights
    without values are taken to be signed.

    Raises ``VitruviusError`` for a form that is none of "conv", "linear", "scores".
    """
    for form in on_optics:
        if form not in ON_OPTICS:
            raise VitruviusError(f"no form '{form}' goes on optics, {nearest(form, ON_OPTICS)}")
    unsigned = non_negative(_lit(graph) if non_negative_inputs else graph)
    known = knowledge(graph)
    return [_placed(op, graph, on_optics, unsigned, known[op.name]) for op in graph.operators()]


def _placed(
    op: Operator, graph: Graph, allowed: Collection[str], unsigned: set[str], known: Knowledge
) -> Placed:
    scores = {region.scores for region in graph.regions}
    form = {"Conv2d": "conv", "Linear": "linear"}.get(op.kind, "")
    if op.kind == "MatMul" and op.name in scores and op.attributes["transpose_b"]:
        form = "scores"
    if not form:
        return Placed(op, None, _reason(op, graph))
    if known is not Knowledge.SECRET:
        return Placed(op, None, "does not depend on the image")
    if form not in allowed:
        return Placed(op, None, f"{form} is kept off the optics by choice")
    work = {"conv": _convolution, "linear": _linear, "scores": _scores}[form](op, graph)
    return Placed(
        op,
        replace(
            work,
            signed_input=op.inputs[0] not in unsigned,
            signed_kernel=op.inputs[1] not in unsigned if work.dynamic else _signed(op, graph),
        ),
        "",
    )


def _convolution(op: Operator, graph: Graph) -> OpticalWork:
    shape = graph.operator(op.inputs[0]).output.shape
    weight = graph.tensors[op.tensors["weight"]].shape
    padding = wholes(op.attributes, "padding")
    dilation = wholes(op.attributes, "dilation")
    kernel = [step * (taps - 1) + 1 for taps, step in zip(weight[-2:], dilation, strict=True)]
    size = list(shape[-2:])
    readout = _readout(kernel, padding)
    if readout is None:
        readout = "valid"
        size = [side + 2 * pad for side, pad in zip(size, padding, strict=True)]
    rows, cols = wholes(op.attributes, "stride")
    return OpticalWork(
        images=prod(shape[:-3]),
        in_channels=shape[-3],
        out_channels=weight[0],
        groups=whole(op.attributes, "groups"),
        size=(size[0], size[1]),
        kernel=(kernel[0], kernel[1]),
        readout=readout,
        stride=(rows, cols),
        dynamic=False,
        signed_input=True,
        signed_kernel=True,
    )


def _readout(kernel: list[int], padding: list[int]) -> Readout | None:
    """The readout that gives what this much padding on every side gives, if there is one."""
    twice = [2 * pad for pad in padding]
    for readout in get_args(Readout):
        taps = {"valid": 0, "same": 1, "full": 2}[readout]
        if twice == [taps * (side - 1) for side in kernel]:
            return readout  # type: ignore[no-any-return]
    return None


def linear_work(tokens: int, features: int, outputs: int) -> OpticalWork:
    """A Linear over ``tokens``: each a plane, with a kernel of its size for each output."""
    plane = token_plane(features)
    return OpticalWork(
        images=tokens,
        in_channels=1,
        out_channels=outputs,
        groups=1,
        size=plane,
        kernel=plane,
        readout="valid",
        stride=(1, 1),
        dynamic=False,
        signed_input=True,
        signed_kernel=True,
    )


def _linear(op: Operator, graph: Graph) -> OpticalWork:
    outputs, features = graph.tensors[op.tensors["weight"]].shape
    tokens = prod(graph.operator(op.inputs[0]).output.shape[:-1])
    return linear_work(tokens, features, outputs)


def _scores(op: Operator, graph: Graph) -> OpticalWork:
    *heads, queries, keys = op.output.shape
    count, features = prod(heads), graph.operator(op.inputs[0]).output.shape[-1]
    one = linear_work(queries, features, count * keys)
    return replace(one, in_channels=count, groups=count, dynamic=True)


def _signed(op: Operator, graph: Graph) -> bool:
    weight = graph.tensors[op.tensors["weight"]]
    return weight.is_meta or bool((weight < 0).any())


def _lit(graph: Graph) -> Graph:
    """``graph`` with a Relu behind every input, which says that none of their values is below 0."""
    operators = []
    for op in graph.operators():
        if op.kind != "Input":
            operators.append(op)
            continue
        dark = f"{op.name} as it comes"
        operators += [replace(op, name=dark), replace(op, kind="Relu", inputs=(dark,))]
    return Graph(graph.name, operators, graph.tensors)


_MOVES = (
    *("View", "Select", "Concat", "RepeatBatch", "Index", "Roll", "Flip", "Gather", "Scatter"),
    *("Pad", "Append"),
)
_REASONS = {
    **dict.fromkeys(("Input", "Constant", "Output"), "nothing to compute"),
    **dict.fromkeys(_MOVES, "moves values, computes none"),
    **dict.fromkeys(
        ("LayerNorm", "RmsNorm", "GroupNorm", "BatchNorm", "L2Normalize", "Softmax"),
        "divides by a statistic of its own values: no convolution",
    ),
    "Gelu": "a function of single values: no convolution",
    "Add": "a sum of single values: no convolution",
    "Embedding": "looks rows up in a table: no convolution",
    "ConvTranspose2d": "a transposed convolution: no rule yet, its plane would be mostly zeros",
    "Scan": "each step waits for the one before it: no convolution",
}


def _reason(op: Operator, graph: Graph) -> str:
    if op.kind == "MatMul":
        if any(op.name == region.apply for region in graph.regions):
            return "a weighted sum of value planes: no spatial convolution in it"
        return "a product of two activations that is not the scores of an attention"
    if op.kind == "Host":
        known = {item.name: item.reason for item in graph.unmapped}
        return known.get(op.name, "no rule in the graph's vocabulary")
    return _REASONS.get(op.kind, "works on single values or reduces them: no convolution")
