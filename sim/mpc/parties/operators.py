"""What the parties do for each kind of operator of a graph, on shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....models.evaluate import evaluate_kind
from ....models.graph import Operator
from ....models.kind import number, whole, wholes
from ..options import MpcOptions
from ..secrecy import Knowledge
from . import functions, ring
from .comparison import equal, largest, negative, relu
from .correlated import Window
from .party import Party

__all__ = ["LOCAL", "SECURE", "Scene", "Value"]


@dataclass(frozen=True)
class Value:
    """What a party holds of a tensor: its share if ``who`` is SECRET, floats if it knows it, and
    only a shape (on the meta device) if it is the other party's.
    """

    who: Knowledge
    tensor: Tensor


@dataclass(frozen=True)
class Scene:
    """One operator about to be evaluated.

    ``weight`` gives the share of one of the operator's own tensors and the name of its mask, if
    that was opened before. ``shift``: half the binary exponent that a variance or divisor is
    divided by.
    """

    party: Party
    op: Operator
    options: MpcOptions
    weight: Callable[[str], tuple[Tensor, str]]
    divisor_positive: bool
    shift: int

    def share(self, value: Value) -> Tensor:
        """A share of an operand, whoever knows it."""
        if value.who is Knowledge.SECRET:
            return value.tensor
        if value.who is Knowledge.PUBLIC:
            return self.party.public(value.tensor)
        known = None if value.tensor.is_meta else value.tensor
        return self.party.shared(known, 0, tuple(value.tensor.shape))

    def bias(self, found: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """``found`` and the operator's bias, if it has one."""
        if "bias" not in self.op.tensors:
            return found
        bias, _ = self.weight("bias")
        return found + (bias if shape is None else bias.reshape(tuple(shape)))


Rule = Callable[[Scene, Sequence[Value]], Tensor]

LOCAL = {
    *("View", "Select", "Concat", "RepeatBatch", "Index", "Roll", "Flip", "Pad", "Unfold", "Sum"),
    *("CumulativeSum", "Output"),
}
"""Kinds that move or add shares as they would numbers."""


def local(scene: Scene, x: Sequence[Value]) -> Tensor:
    """Moves or adds shares."""
    op = scene.op
    tensors = {role: scene.weight(role)[0] for role in op.tensors}
    return evaluate_kind(op.kind, [scene.share(value) for value in x], tensors, op.attributes)


def _add(scene: Scene, x: Sequence[Value]) -> Tensor:
    return scene.share(x[0]) + scene.share(x[1])


def _multiply(scene: Scene, x: Sequence[Value]) -> Tensor:
    op, party = scene.op, scene.party
    if op.inputs[0] == op.inputs[1]:
        return party.square(x[0].tensor)
    secret, other = (x[0], x[1]) if x[0].who is Knowledge.SECRET else (x[1], x[0])
    if other.who is Knowledge.PUBLIC:
        return _times_public(party, secret.tensor, other.tensor)
    return party.multiply(scene.share(x[0]), scene.share(x[1]))


def _times_public(party: Party, share: Tensor, factors: Tensor) -> Tensor:
    if factors.numel() == 1:
        return party.scaled(share, float(factors)).broadcast_to(
            torch.broadcast_shapes(share.shape, factors.shape)  # type: ignore[no-untyped-call]
        )
    words = ring.encode(factors, party.fraction_bits).to(share.device)
    return party.truncated(share * words)


def _divide(scene: Scene, x: Sequence[Value]) -> Tensor:
    """By a public divisor locally; else times a reciprocal, of the divisor over 2^(2 shift)."""
    party, (numerator, divisor) = scene.party, x
    if divisor.who is Knowledge.PUBLIC:
        return _times_public(party, numerator.tensor, 1 / divisor.tensor.double())
    bottom = party.scaled(scene.share(divisor), 4.0**-scene.shift)
    if scene.options.division == "element":
        bottom = bottom.broadcast_to(scene.op.output.shape)
    inverse = functions.reciprocal(party, bottom, positive=scene.divisor_positive)
    if numerator.who is Knowledge.PUBLIC:
        found = _times_public(party, inverse, numerator.tensor)
    else:
        found = party.multiply(scene.share(numerator), inverse)
    return party.scaled(found, 4.0**-scene.shift)


def _power(scene: Scene, x: Sequence[Value]) -> Tensor:
    party, base, exponent = scene.party, x[0].tensor, number(scene.op.attributes, "exponent")
    if exponent == 0.5:
        return functions.root(party, base, scene.options.rsqrt)
    if exponent == -0.5:
        return functions.inverse_root(party, base, scene.options.rsqrt)
    if exponent == -1:
        return functions.reciprocal(party, base, positive=scene.divisor_positive)
    return _whole_power(party, base, int(exponent))


def _whole_power(party: Party, base: Tensor, exponent: int) -> Tensor:
    """Square-and-multiply from the highest bit."""
    found = base
    for bit in bin(exponent)[3:]:
        found = party.square(found)
        if bit == "1":
            found = party.multiply(found, base)
    return found


def _linear(scene: Scene, x: Sequence[Value]) -> Tensor:
    weight, kept = scene.weight("weight")
    tokens = x[0].tensor.reshape(-1, weight.shape[1])
    found = scene.party.matmul(tokens, weight.transpose(0, 1), weight=kept)
    return scene.bias(found.reshape(*x[0].tensor.shape[:-1], weight.shape[0]))


def _convolve(scene: Scene, x: Sequence[Value]) -> Tensor:
    attributes = scene.op.attributes
    weight, kept = scene.weight("weight")
    stride, padding, dilation = (
        (pair[0], pair[1])
        for pair in (wholes(attributes, name) for name in ("stride", "padding", "dilation"))
    )
    window = Window(
        stride=stride, padding=padding, dilation=dilation, groups=whole(attributes, "groups")
    )
    found = scene.party.convolve(x[0].tensor, weight, window, weight=kept)
    return scene.bias(found, (-1, 1, 1))


def _matmul(scene: Scene, x: Sequence[Value]) -> Tensor:
    attributes, party = scene.op.attributes, scene.party
    left, right = x
    turned = bool(attributes["transpose_b"])

    def laid(tensor: Tensor) -> Tensor:
        return tensor.transpose(-1, -2) if turned else tensor

    if Knowledge.PUBLIC in (left.who, right.who):
        secret = left if left.who is Knowledge.SECRET else right
        words = [
            value.tensor
            if value is secret
            else ring.encode(value.tensor, party.fraction_bits).to(secret.tensor.device)
            for value in x
        ]
        found = party.truncated(torch.matmul(words[0], laid(words[1])))
    else:
        found = party.matmul(scene.share(left), laid(scene.share(right)))
    return party.scaled(found, number(attributes, "scale"))


def _softmax(scene: Scene, x: Sequence[Value]) -> Tensor:
    dim, options = whole(scene.op.attributes, "dim"), scene.options
    scores = x[0].tensor.movedim(dim, -1)
    found = functions.softmax(
        scene.party, scores, maximum=options.maximum, division=options.division
    )
    return found.movedim(-1, dim)


def _log_softmax(scene: Scene, x: Sequence[Value]) -> Tensor:
    dim, party = whole(scene.op.attributes, "dim"), scene.party
    scores = x[0].tensor.movedim(dim, -1)
    scores = scores - largest(party, scores, scene.options.maximum)
    total = functions.exponential(party, scores).sum(-1, keepdim=True)
    return (scores - functions.logarithm(party, total)).movedim(-1, dim)


def _layer_norm(scene: Scene, x: Sequence[Value]) -> Tensor:
    op, party = scene.op, scene.party
    found = functions.layer_norm(
        party,
        x[0].tensor,
        eps=number(op.attributes, "eps"),
        rsqrt=scene.options.rsqrt,
        centred=op.kind == "LayerNorm",
        shift=scene.shift,
    )
    if "weight" in op.tensors:
        found = party.multiply(found, scene.weight("weight")[0])
    return scene.bias(found)


def _group_norm(scene: Scene, x: Sequence[Value]) -> Tensor:
    op, party, shape = scene.op, scene.party, x[0].tensor.shape
    rows = x[0].tensor.reshape(shape[0], whole(op.attributes, "groups"), -1)
    eps, rsqrt = number(op.attributes, "eps"), scene.options.rsqrt
    found = functions.layer_norm(party, rows, eps=eps, rsqrt=rsqrt, shift=scene.shift)
    found = found.reshape(shape)
    along = (-1, *[1] * (len(shape) - 2))
    if "weight" in op.tensors:
        found = party.multiply(found, scene.weight("weight")[0].reshape(along))
    return scene.bias(found, along)


def _scale_shift(scene: Scene, x: Sequence[Value]) -> Tensor:
    shape = [1] * x[0].tensor.dim()
    shape[whole(scene.op.attributes, "axis")] = -1
    weight = scene.weight("weight")[0].reshape(shape)
    return scene.bias(scene.party.multiply(x[0].tensor, weight), shape)


def _l2_normalize(scene: Scene, x: Sequence[Value]) -> Tensor:
    dim, party = whole(scene.op.attributes, "dim"), scene.party
    eps = number(scene.op.attributes, "eps")
    length = party.square(x[0].tensor).sum(dim, keepdim=True) + party.public(eps * eps)
    inverse = functions.inverse_root(
        party, party.scaled(length, 4.0**-scene.shift), scene.options.rsqrt
    )
    return party.scaled(party.multiply(x[0].tensor, inverse), 2.0**-scene.shift)


def _mean(scene: Scene, x: Sequence[Value]) -> Tensor:
    dims, keepdim = wholes(scene.op.attributes, "dims"), bool(scene.op.attributes["keepdim"])
    count = math.prod(x[0].tensor.shape[dim] for dim in dims)
    return scene.party.divided(x[0].tensor.sum(dims, keepdim=keepdim), count)


def _variance(scene: Scene, x: Sequence[Value]) -> Tensor:
    attributes, party, tensor = scene.op.attributes, scene.party, x[0].tensor
    dims, keepdim = wholes(attributes, "dims"), bool(attributes["keepdim"])
    count = math.prod(tensor.shape[dim] for dim in dims)
    centred = tensor - party.divided(tensor.sum(dims, keepdim=True), count)
    total = party.square(centred).sum(dims, keepdim=keepdim)
    return party.scaled(total, 1 / (count - number(attributes, "correction")))


def _vector_norm(scene: Scene, x: Sequence[Value]) -> Tensor:
    attributes, party = scene.op.attributes, scene.party
    dims, keepdim = wholes(attributes, "dims"), bool(attributes["keepdim"])
    total = party.square(x[0].tensor).sum(dims, keepdim=keepdim)
    return functions.root(party, total, scene.options.rsqrt)


def _extreme(sign: int) -> Rule:
    """The maximum, or minimum, over some axes."""

    def rule(scene: Scene, x: Sequence[Value]) -> Tensor:
        attributes, tensor = scene.op.attributes, sign * x[0].tensor
        dims = [dim % tensor.dim() for dim in wholes(attributes, "dims")]
        places = list(range(-len(dims), 0))
        rows = tensor.movedim(dims, places).flatten(-len(dims))
        found = sign * largest(scene.party, rows, scene.options.maximum).squeeze(-1)
        if attributes["keepdim"]:
            for dim in sorted(dims):
                found = found.unsqueeze(dim)
        return found

    return rule


def _larger(sign: int) -> Rule:
    def rule(scene: Scene, x: Sequence[Value]) -> Tensor:
        left, right = (sign * scene.share(value) for value in x)
        return sign * (left + relu(scene.party, right - left))

    return rule


def _compare(scene: Scene, x: Sequence[Value]) -> Tensor:
    """Truth as a fixed-point 1 or 0."""
    party, how = scene.party, str(scene.op.attributes["op"])
    left, right = (scene.share(value) for value in x)
    left, right = torch.broadcast_tensors(left, right)  # type: ignore[no-untyped-call]
    if how in ("eq", "ne"):
        bit = equal(party, left, right)
    else:
        bit = negative(party, left - right if how in ("lt", "ge") else right - left)
    if how in ("ne", "le", "ge"):
        bit = party.public_whole(1) - bit
    return bit << party.fraction_bits


def _where(scene: Scene, x: Sequence[Value]) -> Tensor:
    """Truth that is not public is a fixed-point 1 or 0."""
    party, truth = scene.party, x[0]
    yes, no = scene.share(x[1]), scene.share(x[2])
    if truth.who is Knowledge.PUBLIC:
        return torch.where(truth.tensor.to(yes.device), yes, no)
    return no + party.multiply(scene.share(truth), yes - no)


def _unary(function: Callable[[Party, Tensor], Tensor]) -> Rule:
    def rule(scene: Scene, x: Sequence[Value]) -> Tensor:
        return function(scene.party, x[0].tensor)

    return rule


def _magnitude(party: Party, x: Tensor) -> Tensor:
    sign = party.public_whole(1) - 2 * negative(party, x)
    return party.multiply(x, sign, truncate=False)


def _sign(party: Party, x: Tensor) -> Tensor:
    """1 or -1; 1 also for 0."""
    return (party.public_whole(1) - 2 * negative(party, x)) << party.fraction_bits


def _leaky(scene: Scene, x: Sequence[Value]) -> Tensor:
    slope, party = number(scene.op.attributes, "slope"), scene.party
    return party.scaled(x[0].tensor, slope) + party.scaled(relu(party, x[0].tensor), 1 - slope)


def _hard_sigmoid(party: Party, x: Tensor) -> Tensor:
    return functions.clamp(party, party.scaled(x, 1 / 6) + party.public(0.5), 0.0, 1.0)


def _clamp(scene: Scene, x: Sequence[Value]) -> Tensor:
    bounds = scene.op.attributes
    lower = number(bounds, "lower") if "lower" in bounds else None
    upper = number(bounds, "upper") if "upper" in bounds else None
    return functions.clamp(scene.party, x[0].tensor, lower, upper)


def _rooted(scene: Scene, x: Sequence[Value]) -> Tensor:
    name = functions.inverse_root if scene.op.kind == "Rsqrt" else functions.root
    return name(scene.party, x[0].tensor, scene.options.rsqrt)


def _inverted(scene: Scene, x: Sequence[Value]) -> Tensor:
    return functions.reciprocal(scene.party, x[0].tensor, positive=scene.divisor_positive)


def _gelu(scene: Scene, x: Sequence[Value]) -> Tensor:
    return functions.gelu(scene.party, x[0].tensor, scene.options.gelu)


def _relu6(party: Party, x: Tensor) -> Tensor:
    return functions.clamp(party, x, 0.0, 6.0)


def _silu(party: Party, x: Tensor) -> Tensor:
    return party.multiply(x, functions.sigmoid(party, x))


def _hard_swish(party: Party, x: Tensor) -> Tensor:
    return party.multiply(x, _hard_sigmoid(party, x))


def _not(party: Party, x: Tensor) -> Tensor:
    return party.public(1.0) - x


SECURE: Mapping[str, Rule] = {
    **dict.fromkeys(LOCAL, local),
    "Abs": _unary(_magnitude),
    "Add": _add,
    "Clamp": _clamp,
    "Compare": _compare,
    "Conv2d": _convolve,
    "Div": _divide,
    "Exp": _unary(functions.exponential),
    "Gelu": _gelu,
    "GroupNorm": _group_norm,
    "HardSigmoid": _unary(_hard_sigmoid),
    "HardSwish": _unary(_hard_swish),
    "L2Normalize": _l2_normalize,
    "LayerNorm": _layer_norm,
    "LeakyRelu": _leaky,
    "Linear": _linear,
    "Log": _unary(functions.logarithm),
    "LogSoftmax": _log_softmax,
    "MatMul": _matmul,
    "Maximum": _larger(1),
    "Mean": _mean,
    "Minimum": _larger(-1),
    "Mul": _multiply,
    "Not": _unary(_not),
    "Pow": _power,
    "QuickGelu": _unary(functions.quick_gelu),
    "Reciprocal": _inverted,
    "ReduceMax": _extreme(1),
    "ReduceMin": _extreme(-1),
    "Relu": _unary(relu),
    "Relu6": _unary(_relu6),
    "RmsNorm": _layer_norm,
    "Rsqrt": _rooted,
    "ScaleShift": _scale_shift,
    "Sigmoid": _unary(functions.sigmoid),
    "Sign": _unary(_sign),
    "Silu": _unary(_silu),
    "Softmax": _softmax,
    "Sqrt": _rooted,
    "Tanh": _unary(functions.tanh),
    "Variance": _variance,
    "VectorNorm": _vector_norm,
    "Where": _where,
}
"""A rule for each kind that has a secret operand."""
