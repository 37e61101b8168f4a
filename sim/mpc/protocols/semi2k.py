"""SPU's SEMI2K for two parties: additive shares modulo 2^64, Beaver products, truncation in rounds.

Bytes are measured ones of SPU 0.9.5 by element, sent by one party, which receives as many. Rows are
fits that are exact on every shape measured. Unlike CrypTen's, a truncation takes a round of its
own, so that numbers that everybody knows cost something too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, cast

from ..options import MpcOptions
from ..traffic import OperatorTraffic, Traffic
from .functions import Shape, broadcast, elements, matmul_shape, rows, spu_folds
from .protocol import Dealer, Protocol

__all__ = ["Semi2k"]

_Form = Callable[[tuple[Shape, ...], MpcOptions], tuple[int, int]]
"""Rounds, and bytes that a party sends."""

_TRUNCATION = 4  # bytes by element, for 18 fraction bits
_WORD = 8
_DIVISION = (38, 525)
_RECIPROCAL = (36, 505)
_MULTIPLY = (2, 20)


def _one(rounds: int, size: int) -> _Form:
    def form(shapes: tuple[Shape, ...], options: MpcOptions) -> tuple[int, int]:
        return rounds, size * elements(shapes[0])

    return form


def _multiply(shapes: tuple[Shape, ...], options: MpcOptions) -> tuple[int, int]:
    """Operands are broadcast before they are opened."""
    return 2, _MULTIPLY[1] * elements(broadcast(*shapes))


def _where(shapes: tuple[Shape, ...], options: MpcOptions) -> tuple[int, int]:
    return 1, 16 * elements(broadcast(*shapes))


def _divide(shapes: tuple[Shape, ...], options: MpcOptions) -> tuple[int, int]:
    whole = elements(broadcast(*shapes))
    divisors = elements(shapes[1]) if options.division == "row" else whole
    return _DIVISION[0], _RECIPROCAL[1] * divisors + _MULTIPLY[1] * whole


def _matmul(shapes: tuple[Shape, ...], options: MpcOptions) -> tuple[int, int]:
    """Of several products side by side SPU does one after another; one matrix for all rows of the
    other operand is one product.
    """
    left, right = shapes
    output = matmul_shape(left, right)
    opened = elements(left) + elements(right)
    products = elements(output[:-2]) if len(right) > 2 else 1
    return 2 * products, _WORD * opened + _TRUNCATION * elements(output)


def _weighted(shapes: tuple[Shape, ...], options: MpcOptions) -> tuple[int, int]:
    x, weight, output = shapes
    opened = elements(x) + (elements(weight) if options.weights == "each" else 0)
    return 2, _WORD * opened + _TRUNCATION * elements(output)


def _convolution(shapes: tuple[Shape, ...], options: MpcOptions) -> tuple[int, int]:
    """A product of matrices with the windows unfolded: every window's values are opened."""
    _, weight, output = shapes
    windows = output[0] * output[2] * output[3] * elements(weight[1:])
    opened = windows + (elements(weight) if options.weights == "each" else 0)
    return 2, _WORD * opened + _TRUNCATION * elements(output)


def _division_of_row(n: int, options: MpcOptions) -> int:
    if options.division == "row":
        return _RECIPROCAL[1] + _MULTIPLY[1] * n
    return _DIVISION[1] * n


def _max(n: int, options: MpcOptions) -> tuple[int, int]:
    return 8 * spu_folds(n), 72 * (n - 1)


def _softmax(n: int, options: MpcOptions) -> tuple[int, int]:
    """As JAX writes it: the maximum of the row and of -inf, then exp and division."""
    return 8 * spu_folds(n) + 63, 172 * n + _division_of_row(n, options)


def _relu_softmax(n: int, options: MpcOptions) -> tuple[int, int]:
    return 8 + _DIVISION[0], 72 * n + _division_of_row(n, options)


def _quad_softmax(n: int, options: MpcOptions) -> tuple[int, int]:
    return 2 + _DIVISION[0], 20 * n + _division_of_row(n, options)


def _scale(n: int, options: MpcOptions) -> tuple[int, int]:
    return 1, _TRUNCATION * n


def _layernorm(n: int, options: MpcOptions) -> tuple[int, int]:
    return 32, 40 * n + 437


def _rmsnorm(n: int, options: MpcOptions) -> tuple[int, int]:
    """A layer norm without the mean, which is one product with a public number."""
    return 31, 40 * n + 433


def _by_row(row: Callable[[int, MpcOptions], tuple[int, int]]) -> _Form:
    def form(shapes: tuple[Shape, ...], options: MpcOptions) -> tuple[int, int]:
        count, n = rows(shapes[0])
        rounds, size = row(n, options)
        return rounds, size * count

    return form


def _gelu(shapes: tuple[Shape, ...], options: MpcOptions) -> tuple[int, int]:
    form = _FUNCTIONS["gelu_sigmoid" if options.gelu == "sigmoid" else "gelu_tanh"]
    return form(shapes, options)


_FUNCTIONS: dict[str, _Form] = {
    "reveal": _one(1, _WORD),
    "multiply": _multiply,
    "public_multiply": _one(1, _TRUNCATION),
    "square": _one(2, 12),
    "power2": _one(2, 20),  # as XLA writes it: what layer norms, 2Quad and Quad were seen to pay
    "cube": _one(4, 40),
    "matmul": _matmul,
    "linear": _weighted,
    "convolution": _convolution,
    "and": _one(1, 16),
    "a2b": _one(7, 208),  # (2 log K + 1) 2 K bits
    "b2a": _one(1, 8),
    "ltz": _one(7, 56),
    "equality": _one(7, 104),
    "mux": _one(1, 16),
    "where": _where,
    "select": _one(1, 16),
    "relu": _one(8, 72),
    "relu6": _one(16, 144),  # one bound after the other
    "max2": _one(8, 72),
    "max": _by_row(_max),
    "max_tree": _by_row(_max),
    "exp": _one(17, 100),
    "reciprocal": _one(*_RECIPROCAL),
    "reciprocal_any": _one(*_RECIPROCAL),
    "divide": _divide,
    "inv_sqrt": _one(26, 429),
    "sqrt": _one(35, 513),
    "log": _one(26, 510),
    "sigmoid": _one(53, 605),
    "tanh": _one(36, 324),
    "erf": _one(60, 721),
    "gelu": _gelu,
    "gelu_tanh": _one(45, 396),
    "gelu_sigmoid": _one(1 + 53 + 2, 4 + 605 + 20),
    "gelu_erf": _one(181, 1951),
    "quad": _one(4, 28),
    "softmax": _by_row(_softmax),
    "relu_softmax": _by_row(_relu_softmax),
    "2quad": _by_row(_quad_softmax),
    "scale": _by_row(_scale),
    "layernorm": _by_row(_layernorm),
    "layernorm_product": _by_row(_layernorm),
    "rmsnorm": _by_row(_rmsnorm),
}


class Semi2k(Protocol):
    """SPU 0.9.5's SEMI2K with two parties, 64-bit ring, 18 fraction bits.

    Its default dealer is the first party, which costs no traffic and is for benchmarks only.
    """

    name: ClassVar[str] = "semi2k"
    title: ClassVar[str] = "SPU SEMI2K, two parties, Beaver triples"
    source: ClassVar[str] = "measured: SPU 0.9.5, bytes by element and exact fits by row"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "maximum": ("tree",),
        "gelu": ("sigmoid",),
        "division": ("row", "element"),
        "weights": ("each", "once"),
        "heads": ("batched", "apart"),
    }
    own: ClassVar[Mapping[str, str]] = {
        "maximum": "a tree",
        "rsqrt": "a polynomial start by the highest bit, then Goldschmidt",
    }
    dealers: ClassVar[tuple[Dealer, ...]] = ("tfp",)

    parties: int = 2
    fraction_bits: int = 18
    dealer: Dealer = "tfp"

    def functions(self) -> Mapping[str, Callable[..., object]]:
        """The functions that the protocol has figures for."""
        return _FUNCTIONS

    def _cost(
        self, function: Callable[..., object], shapes: tuple[Shape, ...], options: MpcOptions
    ) -> OperatorTraffic:
        rounds, sent = cast("_Form", function)(shapes, options)
        return OperatorTraffic(Traffic(rounds, sent, sent))
