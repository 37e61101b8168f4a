"""The functions that protocols give costs for, and the shapes that each takes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ....errors import VitruviusError, nearest

__all__ = [
    "FUNCTIONS",
    "Function",
    "Shape",
    "broadcast",
    "checked",
    "elements",
    "matmul_shape",
    "rows",
    "spu_folds",
]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Function:
    """What one function takes: how many shapes at least and at most, and what it computes.

    by_row: it reduces the last axis of its operand.
    """

    text: str
    shapes: tuple[int, int] = (1, 1)
    by_row: bool = False


_TWO = (2, 2)

FUNCTIONS: dict[str, Function] = {
    "reveal": Function("open a shared value to every party"),
    "multiply": Function("a product element by element, operands broadcast", _TWO),
    "public_multiply": Function("a product with numbers that every party knows"),
    "square": Function("x^2"),
    "power2": Function("x^2 as a model writes it out"),
    "cube": Function("x^3: square, then multiply"),
    "polynomial4": Function("a polynomial of degree 4, powers stacked"),
    "matmul": Function("a product of two shared matrices", _TWO),
    "linear": Function("a product with a trained weight [outputs, inputs]", (2, 3)),
    "convolution": Function(
        "a convolution with a trained weight; the third shape is the output's, without it stride 1 "
        "and no padding",
        (2, 3),
    ),
    "grouped_convolution": Function(
        "the same in groups of channels: shapes of input, weight and output", (3, 3)
    ),
    "transposed_convolution": Function(
        "a transposed convolution: shapes of input, weight and output", (3, 3)
    ),
    "and": Function("AND of words of shared bits"),
    "a2b": Function("from arithmetic shares to shares of bits"),
    "b2a": Function("from a shared bit to arithmetic shares"),
    "ltz": Function("x < 0; all comparisons of order cost the same"),
    "equality": Function("x = y"),
    "mux": Function("a shared bit times a shared number"),
    "where": Function("y + bit (x - y): the bit's shape and that of x - y", _TWO),
    "select": Function("x or y by a shared bit, in two products"),
    "relu": Function("max(x, 0)"),
    "relu6": Function("min(max(x, 0), 6), and every clamp with two bounds: two ReLUs at once"),
    "max2": Function("the larger of two, by comparison and selection"),
    "max": Function("the largest of each row, by the option 'maximum'", by_row=True),
    "max_reduction": Function("the largest of each row: CrypTen's log_reduction", by_row=True),
    "max_tree": Function("the largest of each row: a tree of relu(u - v) + v", by_row=True),
    "max_pairs": Function("the largest of each row: all pairs compared", by_row=True),
    "max_pairwise": Function("the largest of each row: CrypTen's pairwise", by_row=True),
    "max_double_log": Function(
        "the largest of each row: CrypTen's double_log_reduction", by_row=True
    ),
    "max_cascade": Function("the largest of each row: CrypTen's accelerated_cascade", by_row=True),
    "exp": Function("e^x"),
    "reciprocal": Function("1/x of what is known to be positive"),
    "reciprocal_any": Function("1/x of any sign"),
    "divide": Function("x/y with a positive y, operands broadcast", _TWO),
    "inv_sqrt": Function("1/sqrt(x), by the option 'rsqrt'"),
    "sqrt": Function("sqrt(x)"),
    "log": Function("the natural logarithm"),
    "sigmoid": Function("the logistic function"),
    "tanh": Function("the hyperbolic tangent"),
    "erf": Function("the error function; CrypTen's is wrong beyond |x| = 1"),
    "gelu": Function("GELU, by the option 'gelu'"),
    "gelu_tanh": Function("GELU's tanh form"),
    "gelu_sigmoid": Function("x sigmoid(1.702 x)"),
    "gelu_pieces": Function("GELU in pieces of polynomials, as PUMA"),
    "gelu_erf": Function("GELU's erf form; CrypTen's is wrong beyond |x| = 1"),
    "quad": Function(".125 x^2 + .25 x + .5"),
    "softmax": Function("exp(x - max) / sum", by_row=True),
    "relu_softmax": Function("relu(x) / sum", by_row=True),
    "2quad": Function("(x + 5)^2 / sum", by_row=True),
    "scale": Function("x / n with a public n", by_row=True),
    "layernorm": Function("(x - mean) / sqrt(variance), no weight", by_row=True),
    "layernorm_product": Function("the same with the square as a product", by_row=True),
    "rmsnorm": Function("x / sqrt(mean square), no weight", by_row=True),
}


def elements(shape: Shape) -> int:
    """How many numbers a shape holds."""
    return prod(shape)


def rows(shape: Shape) -> tuple[int, int]:
    """Rows of a shape and their length: all axes but the last, and the last.

    >>> rows((4, 65, 64))
    (260, 64)
    """
    return prod(shape[:-1]), shape[-1]


def spu_folds(n: int) -> int:
    """Comparisons one after another in which SPU finds the largest of n: halves against each other,
    where the odd one out of each step waits until the end and then takes a step of its own.

    >>> [spu_folds(n) for n in (64, 65, 100, 197)]
    [6, 7, 8, 10]
    """
    return n.bit_length() - 1 + n.bit_count() - 1


def broadcast(*shapes: Shape) -> Shape:
    """The shape of an elementwise result."""
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError as error:
        texts = " and ".join("x".join(map(str, shape)) for shape in shapes)
        raise VitruviusError(f"shapes {texts} do not broadcast") from error


def checked(function: str, shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """The shapes that ``function`` is given, the output's filled in where it follows.

    Raises VitruviusError for an unknown function, another number of shapes, an axis below 1, or
    operands that do not fit.
    """
    if function not in FUNCTIONS:
        raise VitruviusError(f"unknown function '{function}': {nearest(function, FUNCTIONS)}")
    least, most = FUNCTIONS[function].shapes
    if not least <= len(shapes) <= most:
        wanted = f"{least}" if least == most else f"{least} or {most}"
        raise VitruviusError(f"{function}: expected {wanted} shapes, got {len(shapes)}")
    for shape in shapes:
        if not shape or any(extent < 1 for extent in shape):
            text = "x".join(map(str, shape)) or "none"
            raise VitruviusError(f"{function}: expected extents of at least 1, got shape {text}")
    if function in ("multiply", "divide", "where"):
        broadcast(*shapes)
    if len(shapes) < most:
        return (*shapes, _output(function, *shapes))
    if function == "matmul":
        _output(function, *shapes)
    return shapes


def matmul_shape(left: Shape, right: Shape) -> Shape:
    """The shape of a product of matrices, leading axes broadcast."""
    return _output("matmul", left, right)


def _output(function: str, x: Shape, weight: Shape) -> Shape:
    text = f"{'x'.join(map(str, x))} and {'x'.join(map(str, weight))}"
    if function == "convolution":
        fits = len(x) == 4 and len(weight) == 4 and x[1] % weight[1] == 0
        if not fits or x[2] < weight[2] or x[3] < weight[3]:
            raise VitruviusError(
                f"convolution: expected shapes BxCxHxW and OxCxhxw that fit, got {text}"
            )
        return x[0], weight[0], x[2] - weight[2] + 1, x[3] - weight[3] + 1
    if function == "linear":
        if len(weight) != 2 or x[-1] != weight[1]:
            raise VitruviusError(f"linear: expected shapes ...xK and OxK, got {text}")
        return *x[:-1], weight[0]
    if len(x) < 2 or len(weight) < 2 or x[-1] != weight[-2]:
        raise VitruviusError(f"matmul: expected shapes ...xMxK and ...xKxN, got {text}")
    return *broadcast(x[:-2], weight[:-2]), x[-2], weight[-1]
