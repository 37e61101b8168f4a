"""SPU's ABY3: three parties, each with two of three shares; no dealer.

Bytes are measured ones of SPU 0.9.5 by element, the average of the three parties, which send
different amounts; thirds come from truncation, where one party is silent. Rounds are those of the
busiest party, counted as sends. Rows are put together from the functions in them and agree with the
rows that were measured to the digits that were written down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import ClassVar, cast

from ..options import MpcOptions
from ..traffic import OperatorTraffic, Traffic
from .functions import Shape, broadcast, elements, matmul_shape, rows, spu_folds
from .protocol import Dealer, Protocol

__all__ = ["Aby3"]

_Cost = tuple[int, Fraction]
"""Rounds, and bytes that a party sends on average."""
_Form = Callable[[tuple[Shape, ...], MpcOptions], _Cost]

_WORD = Fraction(8)
_TRUNCATION = Fraction(28, 3)
_MULTIPLY: _Cost = (3, _WORD + _TRUNCATION)
_PUBLIC: _Cost = (2, _TRUNCATION)
_LTZ: _Cost = (8, Fraction(36))
_RELU: _Cost = (11, Fraction(172, 3))
_EXP: _Cost = (24, Fraction(148))
_RECIPROCAL: _Cost = (52, Fraction(1336, 3))
_DIVIDE: _Cost = (54, Fraction(1388, 3))
_ROOT: _Cost = (48, Fraction(516))
_TANH: _Cost = (50, Fraction(868, 3))
_GELU: _Cost = (65, Fraction(1108, 3))


def _one(cost: _Cost) -> _Form:
    def form(shapes: tuple[Shape, ...], options: MpcOptions) -> _Cost:
        return cost[0], cost[1] * elements(shapes[0])

    return form


def _multiply(shapes: tuple[Shape, ...], options: MpcOptions) -> _Cost:
    return _MULTIPLY[0], _MULTIPLY[1] * elements(broadcast(*shapes))


def _divide(shapes: tuple[Shape, ...], options: MpcOptions) -> _Cost:
    whole = elements(broadcast(*shapes))
    divisors = elements(shapes[1]) if options.division == "row" else whole
    return _DIVIDE[0], _RECIPROCAL[1] * divisors + _MULTIPLY[1] * whole


def _matmul(shapes: tuple[Shape, ...], options: MpcOptions) -> _Cost:
    """Whatever the inner extent: each party sends the sum of its products."""
    left, right = shapes
    return _MULTIPLY[0], _MULTIPLY[1] * elements(matmul_shape(left, right))


def _weighted(shapes: tuple[Shape, ...], options: MpcOptions) -> _Cost:
    return _MULTIPLY[0], _MULTIPLY[1] * elements(shapes[2])


def _of_row(n: int, options: MpcOptions) -> Fraction:
    if options.division == "row":
        return _RECIPROCAL[1] + _MULTIPLY[1] * n
    return _DIVIDE[1] * n


def _max(n: int, options: MpcOptions) -> _Cost:
    depth = spu_folds(n)
    return (12 * depth + 3 if depth else 0), _RELU[1] * (n - 1)


def _softmax(n: int, options: MpcOptions) -> _Cost:
    """As JAX writes it: the maximum of the row and of -inf, then exp and division."""
    rounds = _max(n, options)[0] + _EXP[0] + _DIVIDE[0] + 1
    return rounds, (_RELU[1] + _EXP[1]) * n + _of_row(n, options)


def _relu_softmax(n: int, options: MpcOptions) -> _Cost:
    return _RELU[0] + _DIVIDE[0] + 1, _RELU[1] * n + _of_row(n, options)


def _quad_softmax(n: int, options: MpcOptions) -> _Cost:
    return _MULTIPLY[0] + _DIVIDE[0] + 1, _MULTIPLY[1] * n + _of_row(n, options)


def _scale(n: int, options: MpcOptions) -> _Cost:
    return _PUBLIC[0], _PUBLIC[1] * n


def _layernorm(n: int, options: MpcOptions) -> _Cost:
    size = 2 * _MULTIPLY[1] * n + _ROOT[1] + 2 * _PUBLIC[1]
    return 2 * _MULTIPLY[0] + _ROOT[0] + 2 * _PUBLIC[0], size


def _rmsnorm(n: int, options: MpcOptions) -> _Cost:
    rounds, size = _layernorm(n, options)
    return rounds - _PUBLIC[0], size - _PUBLIC[1]


def _by_row(row: Callable[[int, MpcOptions], _Cost]) -> _Form:
    def form(shapes: tuple[Shape, ...], options: MpcOptions) -> _Cost:
        count, n = rows(shapes[0])
        rounds, size = row(n, options)
        return rounds, size * count

    return form


_FUNCTIONS: dict[str, _Form] = {
    "reveal": _one((1, _WORD)),
    "multiply": _multiply,
    "public_multiply": _one(_PUBLIC),
    "square": _one(_MULTIPLY),
    "power2": _one(_MULTIPLY),
    "cube": _one((2 * _MULTIPLY[0], 2 * _MULTIPLY[1])),
    "matmul": _matmul,
    "linear": _weighted,
    "convolution": _weighted,
    "and": _one((1, _WORD)),
    "a2b": _one((8, Fraction(112))),  # 2 K log K + 2 K bits in log K + 2 rounds
    "ltz": _one(_LTZ),
    "relu": _one(_RELU),
    "relu6": _one((_RELU[0], 2 * _RELU[1])),
    "max2": _one(_RELU),
    "max": _by_row(_max),
    "max_tree": _by_row(_max),
    "exp": _one(_EXP),
    "reciprocal": _one(_RECIPROCAL),
    "reciprocal_any": _one(_RECIPROCAL),
    "divide": _divide,
    "inv_sqrt": _one(_ROOT),
    "tanh": _one(_TANH),
    "gelu": _one(_GELU),
    "gelu_tanh": _one(_GELU),
    "quad": _one((_MULTIPLY[0] + 2 * _PUBLIC[0], _MULTIPLY[1] + 2 * _PUBLIC[1])),
    "softmax": _by_row(_softmax),
    "relu_softmax": _by_row(_relu_softmax),
    "2quad": _by_row(_quad_softmax),
    "scale": _by_row(_scale),
    "layernorm": _by_row(_layernorm),
    "layernorm_product": _by_row(_layernorm),
    "rmsnorm": _by_row(_rmsnorm),
}


class Aby3(Protocol):
    """SPU 0.9.5's ABY3 with three parties, 64-bit ring, 18 fraction bits; bytes are averages of the
    three.
    """

    name: ClassVar[str] = "aby3"
    title: ClassVar[str] = "SPU ABY3, three parties, replicated shares"
    source: ClassVar[str] = "measured: SPU 0.9.5, bytes by element, the average of three parties"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "maximum": ("tree",),
        "division": ("row", "element"),
        "heads": ("batched", "apart"),
    }
    own: ClassVar[Mapping[str, str]] = {
        "maximum": "a tree",
        "rsqrt": "a polynomial start by the highest bit, then Goldschmidt",
        "weights": "nothing is opened in a product",
    }
    dealers: ClassVar[tuple[Dealer, ...]] = ("none",)

    parties: int = 3
    fraction_bits: int = 18
    dealer: Dealer = "none"

    def functions(self) -> Mapping[str, Callable[..., object]]:
        """The functions that the protocol has figures for."""
        return _FUNCTIONS

    def _cost(
        self, function: Callable[..., object], shapes: tuple[Shape, ...], options: MpcOptions
    ) -> OperatorTraffic:
        rounds, size = cast("_Form", function)(shapes, options)
        sent = math.ceil(size)
        return OperatorTraffic(Traffic(rounds, sent, sent))
