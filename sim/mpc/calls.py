"""Which functions of a protocol each operator of a graph calls on its secret operands, one after
another; or why there is no way, and what to do instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from ...models.graph import Graph, Operator
from ...models.kind import number, whole, wholes
from .options import MpcOptions
from .protocols import Shape
from .protocols.functions import broadcast
from .secrecy import Knowledge

__all__ = ["Call", "Refusal", "Sight", "calls_of"]


@dataclass(frozen=True)
class Call:
    """One function of the protocol on operands of these shapes."""

    function: str
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Refusal:
    """Why no protocol does an operator on secrets, and advice."""

    reason: str


@dataclass(frozen=True)
class Sight:
    """What the rules look at: the graph, who knows what, what cannot be negative, the options."""

    graph: Graph
    known: Mapping[str, Knowledge]
    sure: set[str]
    options: MpcOptions

    def shape(self, name: str) -> Shape:
        """The shape of an operator's output."""
        return self.graph.operator(name).output.shape

    def weight(self, op: Operator) -> Shape:
        """The shape of an operator's weight."""
        return tuple(self.graph.tensors[op.tensors["weight"]].shape)

    def is_public(self, name: str) -> bool:
        """Whether every party knows a value."""
        return self.known[name] is Knowledge.PUBLIC


Rule = Callable[[Operator, Sight], "list[Call] | Refusal"]


def calls_of(op: Operator, sight: Sight) -> list[Call] | Refusal:
    """The calls of one operator; none where it is local, or has no secret operand."""
    if op.kind == "Input" or sight.known[op.name] is not Knowledge.SECRET:
        return []
    if op.kind in _NO_RULE:
        return Refusal(f"{op.kind}: {_NO_RULE[op.kind]}")
    rule = _RULES.get(op.kind)
    return (
        Refusal(f"{op.kind}: no protocol here has a rule for it")
        if rule is None
        else rule(op, sight)
    )


def _local(op: Operator, sight: Sight) -> list[Call]:
    return []


def _each(*functions: str) -> Rule:
    """Functions of the first operand, element by element."""

    def rule(op: Operator, sight: Sight) -> list[Call]:
        return [Call(name, (sight.shape(op.inputs[0]),)) for name in functions]

    return rule


def _on_output(*functions: str) -> Rule:
    """Functions of what has the output's shape."""

    def rule(op: Operator, sight: Sight) -> list[Call]:
        return [Call(name, (op.output.shape,)) for name in functions]

    return rule


def _multiply(op: Operator, sight: Sight) -> list[Call]:
    left, right = op.inputs
    if left == right:
        return [Call("power2", (sight.shape(left),))]
    if sight.is_public(left) or sight.is_public(right):
        secret = right if sight.is_public(left) else left
        return [Call("public_multiply", (sight.shape(secret),))]
    return [Call("multiply", (sight.shape(left), sight.shape(right)))]


def _reciprocal(name: str, shape: Shape, sight: Sight) -> Call:
    return Call("reciprocal" if name in sight.sure else "reciprocal_any", (shape,))


def _divide(op: Operator, sight: Sight) -> list[Call]:
    numerator, divisor = op.inputs
    if sight.is_public(divisor):
        return [Call("public_multiply", (sight.shape(numerator),))]
    by_row = sight.options.division == "row"
    shape = sight.shape(divisor) if by_row else op.output.shape
    found = [_reciprocal(divisor, shape, sight)]
    if sight.is_public(numerator):
        return [*found, Call("public_multiply", (op.output.shape,))]
    return [*found, Call("multiply", (sight.shape(numerator), shape))]


def _power(op: Operator, sight: Sight) -> list[Call] | Refusal:
    exponent, x = number(op.attributes, "exponent"), op.inputs[0]
    shape = op.output.shape
    roots = {0.5: "sqrt", -0.5: "inv_sqrt"}
    if exponent in roots:
        return [Call(roots[exponent], (shape,))]
    if exponent == -1:
        return [_reciprocal(x, shape, sight)]
    if not exponent.is_integer() or exponent < 2:
        return Refusal(
            f"Pow: no protocol here has the exponent {exponent:g}; expected 0.5, -0.5, -1 or a "
            "whole number from 2"
        )
    found = []
    for bit in bin(int(exponent))[3:]:
        found.append(Call("power2", (shape,)))
        if bit == "1":
            found.append(Call("multiply", (shape, shape)))
    return found


def _inverse(op: Operator, sight: Sight) -> list[Call]:
    return [_reciprocal(op.inputs[0], op.output.shape, sight)]


def _weighted(op: Operator, sight: Sight) -> list[Call]:
    function = {"Linear": "linear", "ConvTranspose2d": "transposed_convolution"}.get(op.kind)
    if function is None:
        grouped = whole(op.attributes, "groups") > 1
        function = "grouped_convolution" if grouped else "convolution"
    return [Call(function, (sight.shape(op.inputs[0]), sight.weight(op), op.output.shape))]


def _matmul(op: Operator, sight: Sight) -> list[Call]:
    left, right = (sight.shape(name) for name in op.inputs)
    left = left if len(left) > 1 else (1, *left)
    right = right if len(right) > 1 else (*right, 1)
    if op.attributes["transpose_b"]:
        right = (*right[:-2], right[-1], right[-2])
    if any(sight.is_public(name) for name in op.inputs):
        found = [Call("public_multiply", (op.output.shape,))]
    else:
        found = [Call("matmul", (left, right))]
    if number(op.attributes, "scale") != 1:
        found.append(Call("public_multiply", (op.output.shape,)))
    return found


def _mean(op: Operator, sight: Sight) -> list[Call]:
    return [Call("public_multiply", (op.output.shape,))]


def _rows(op: Operator, sight: Sight, dims: list[int]) -> Shape:
    """The operand with the axes ``dims`` joined into the last one."""
    shape = sight.shape(op.inputs[0])
    n = prod(shape[dim] for dim in dims)
    return max(1, prod(shape)) // max(1, n), n


def _softmax(op: Operator, sight: Sight) -> list[Call]:
    return [Call("softmax", (_rows(op, sight, [whole(op.attributes, "dim")]),))]


def _log_softmax(op: Operator, sight: Sight) -> list[Call]:
    rows = _rows(op, sight, [whole(op.attributes, "dim")])
    return [Call("max", (rows,)), Call("exp", (rows,)), Call("log", (rows[:1],))]


def _extreme(op: Operator, sight: Sight) -> list[Call]:
    return [Call("max", (_rows(op, sight, wholes(op.attributes, "dims")),))]


def _max_pool(op: Operator, sight: Sight) -> list[Call]:
    return [Call("max_tree", ((prod(op.output.shape), prod(wholes(op.attributes, "kernel"))),))]


def _norm(function: str) -> Rule:
    def rule(op: Operator, sight: Sight) -> list[Call]:
        shape = sight.shape(op.inputs[0])
        found = [Call(function, (shape,))]
        if "weight" in op.tensors:
            found.append(Call("multiply", (shape, sight.weight(op))))
        return found

    return rule


def _group_norm(op: Operator, sight: Sight) -> list[Call]:
    shape = sight.shape(op.inputs[0])
    rows = shape[0] * whole(op.attributes, "groups")
    found = [Call("layernorm", ((rows, prod(shape) // rows),))]
    if "weight" in op.tensors:
        weight = (shape[1], *[1] * (len(shape) - 2))
        found.append(Call("multiply", (shape, weight)))
    return found


def _scale_shift(op: Operator, sight: Sight) -> list[Call]:
    shape, axis = sight.shape(op.inputs[0]), whole(op.attributes, "axis")
    weight = [1] * len(shape)
    weight[axis] = shape[axis]
    return [Call("multiply", (shape, tuple(weight)))]


def _l2_normalize(op: Operator, sight: Sight) -> list[Call]:
    shape, dim = sight.shape(op.inputs[0]), whole(op.attributes, "dim")
    lengths = list(shape)
    lengths[dim] = 1
    return [
        Call("power2", (shape,)),
        Call("inv_sqrt", (tuple(lengths),)),
        Call("multiply", (shape, tuple(lengths))),
    ]


def _variance(op: Operator, sight: Sight) -> list[Call]:
    shape = sight.shape(op.inputs[0])
    return [
        Call("public_multiply", (op.output.shape,)),
        Call("power2", (shape,)),
        Call("public_multiply", (op.output.shape,)),
    ]


def _vector_norm(op: Operator, sight: Sight) -> list[Call] | Refusal:
    order = number(op.attributes, "order")
    if order != 2:
        return Refusal(f"VectorNorm: of order {order:g}; expected the Euclidean length, order 2")
    return [Call("power2", (sight.shape(op.inputs[0]),)), Call("sqrt", (op.output.shape,))]


def _product_with(function: str) -> Rule:
    """x times a function of x."""

    def rule(op: Operator, sight: Sight) -> list[Call]:
        shape = op.output.shape
        return [Call(function, (shape,)), Call("multiply", (shape, shape))]

    return rule


def _prelu(op: Operator, sight: Sight) -> list[Call]:
    shape, weight = op.output.shape, sight.weight(op)
    slopes = (*weight, *[1] * (len(shape) - 2)) if weight != (1,) else weight
    return [Call("relu", (shape,)), Call("multiply", (shape, slopes))]


def _clamp(op: Operator, sight: Sight) -> list[Call]:
    bounds = sum(name in op.attributes for name in ("lower", "upper"))
    return [Call(("relu", "relu6")[bounds - 1], (op.output.shape,))] if bounds else []


def _compare(op: Operator, sight: Sight) -> list[Call] | Refusal:
    how = str(op.attributes["op"])
    if how in ("and", "or", "xor"):
        return Refusal(f"Compare: '{how}' of secret truths; write it with sums and products")
    return [Call("equality" if how in ("eq", "ne") else "ltz", (op.output.shape,))]


def _where(op: Operator, sight: Sight) -> list[Call]:
    truth, yes, no = op.inputs
    if sight.is_public(truth):
        return []
    return [Call("where", (sight.shape(truth), broadcast(sight.shape(yes), sight.shape(no))))]


def _cast(op: Operator, sight: Sight) -> list[Call] | Refusal:
    if not op.output.dtype.startswith("float"):
        return Refusal(f"Cast: to {op.output.dtype} rounds a secret; leave it a fraction")
    return []


def _resize(op: Operator, sight: Sight) -> list[Call]:
    if str(op.attributes["mode"]).startswith("nearest"):
        return []
    return [Call("public_multiply", (op.output.shape,))]  # sums of neighbours, weights public


_HARD = "replace it by a polynomial, a ReLU or a sigmoid"
_PLACE = "addresses would be secret; choose places by public indices"

_NO_RULE = {
    "Erf": "use the tanh form of GELU",
    "Sin": _HARD,
    "Cos": _HARD,
    "Floor": "rounding a secret opens its bits; leave it out",
    "Ceil": "rounding a secret opens its bits; leave it out",
    "Round": "rounding a secret opens its bits; leave it out",
    "Elu": f"{_HARD}, such as Relu or Silu",
    "Mish": f"{_HARD}, such as Silu",
    "Softplus": f"{_HARD}, such as Relu",
    "Expm1": "write it as exp(x) - 1",
    "Log1p": "write it as log(1 + x)",
    "TopK": _PLACE,
    "Gate": "the k largest are secret; use all experts",
    "Gather": _PLACE,
    "Scatter": _PLACE,
    "Embedding": "the index is secret; give vectors, or a one-hot vector to a Linear",
    "Scan": "a recurrence takes rounds for each token; no rule here",
    "Append": "no cache is kept between images",
    "Host": "it has no rule in the graph's vocabulary; write it with operators that have",
}

_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            *("View", "Select", "Concat", "RepeatBatch", "Index", "Roll", "Flip", "Pad", "Unfold"),
            *("Fold", "Sum", "CumulativeSum", "Add", "Not", "Output"),
        ),
        _local,
    ),
    "Abs": _each("relu"),
    "AdaptiveAvgPool": _mean,
    "AvgPool": _mean,
    "Cast": _cast,
    "Clamp": _clamp,
    "Compare": _compare,
    "Conv2d": _weighted,
    "ConvTranspose2d": _weighted,
    "Div": _divide,
    "Exp": _each("exp"),
    "Gelu": _each("gelu"),
    "GroupNorm": _group_norm,
    "HardSigmoid": _each("public_multiply", "relu6"),
    "HardSwish": _product_with("relu6"),
    "L2Normalize": _l2_normalize,
    "LayerNorm": _norm("layernorm"),
    "LeakyRelu": _each("relu", "public_multiply"),
    "Linear": _weighted,
    "Log": _each("log"),
    "LogSoftmax": _log_softmax,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Maximum": _on_output("relu"),
    "Mean": _mean,
    "Minimum": _on_output("relu"),
    "Mul": _multiply,
    "PRelu": _prelu,
    "Pow": _power,
    "QuickGelu": _each("gelu_sigmoid"),
    "Reciprocal": _inverse,
    "ReduceMax": _extreme,
    "ReduceMin": _extreme,
    "Relu": _each("relu"),
    "Relu6": _each("relu6"),
    "Resize": _resize,
    "RmsNorm": _norm("rmsnorm"),
    "Rsqrt": _each("inv_sqrt"),
    "ScaleShift": _scale_shift,
    "Sigmoid": _each("sigmoid"),
    "Sign": _each("ltz"),
    "Silu": _product_with("sigmoid"),
    "Softmax": _softmax,
    "Sqrt": _each("sqrt"),
    "Tanh": _each("tanh"),
    "Variance": _variance,
    "VectorNorm": _vector_norm,
    "Where": _where,
}
