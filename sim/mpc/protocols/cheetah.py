"""SPU's CHEETAH: two parties without any dealer, products under homomorphic encryption, comparisons
by oblivious transfer.

Measured in SPU 0.9.5: bytes by element of comparison, truncation and product between 16 k and 131 k
elements, and products of matrices by their sizes. Bytes of softmax, ReLU-softmax, 2Quad, LayerNorm
and GELU are fits to four encoder blocks of the CIFAR ViT that were measured whole, so that those
blocks come out as they were; other sizes are extrapolated. Rounds were not measured (messages are
cut into streams): those of SEMI2K's same programs stand in for them, as an assumption.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import ClassVar, cast

from ..options import MpcOptions
from ..traffic import OperatorTraffic, Traffic
from .functions import Shape, broadcast, elements, rows, spu_folds
from .protocol import Dealer, Protocol

__all__ = ["Cheetah"]

_Cost = tuple[int, Fraction, Fraction]
"""Rounds, bytes sent, bytes received."""
_Form = Callable[[tuple[Shape, ...], MpcOptions], _Cost]

_MIB = 1 << 20
_REQUEST = Fraction(529, 3000) * _MIB  # a ciphertext of an operand, ring degree 8192
_ANSWER = Fraction(2183, 18000) * _MIB  # a ciphertext of results
_SLOTS = 8192


def _cost(rounds: int, sent: float, received: float) -> _Cost:
    return rounds, Fraction(str(sent)), Fraction(str(received))


_TRUNCATION = _cost(1, 3.0, 0.13)
_MULTIPLY = _cost(2, 109 + 3.0, 109.13)  # and truncated
_LTZ = _cost(7, 69, 13)
_EXP = _cost(17, 8 * 112.0 + 3.0, 8 * 109.13 + 0.13)
_QUAD = _cost(4, 112.0 + 2 * 3.0, 109.13 + 2 * 0.13)
# By element of the rows or of the stream, from differences of whole blocks (16,900 scores, 33,280
# hidden values, three norms of 16,640): softmax - Scale, ReLU-softmax - Scale, GELU - Quad; then
# what is left, with the set-up of oblivious transfer, shared out over the norms.
_SOFTMAX = _cost(119, 1438, 1361)
_RELU = _cost(8, 69 + 17, 13 + 17)  # the selection is assumed: two transfers of a word
_RECIPROCAL = _cost(36, 8645, 9027)  # of a row: ReLU-softmax's 331 and 278 less ReLU and product
_GELU = _cost(45, 1972, 1819)
_LAYERNORM = _cost(32, 569, 548)


def _one(cost: _Cost) -> _Form:
    def form(shapes: tuple[Shape, ...], options: MpcOptions) -> _Cost:
        count = elements(shapes[0])
        return cost[0], cost[1] * count, cost[2] * count

    return form


def _multiply(shapes: tuple[Shape, ...], options: MpcOptions) -> _Cost:
    return _one(_MULTIPLY)((broadcast(*shapes),), options)


def ciphertexts(m: int, k: int, n: int) -> tuple[int, int]:
    """Ciphertexts of one product [m, k] x [k, n]: of the operand that is sent, and of the results.

    A fit that is exact on the eight sizes whose bytes were logged, residual 0 there.

    >>> ciphertexts(65, 256, 512)
    (3, 12)
    """
    high = 64 if n <= 128 else 32
    sent = max(math.ceil(m * k / _SLOTS), min(2, math.ceil(m / 32)))
    return sent, math.ceil(m / high) * math.ceil(n / 128)


def _product(m: int, k: int, n: int, count: int) -> _Cost:
    """Each party sends its operand and answers the other's: both directions alike."""
    sent, answered = ciphertexts(m, k, n)
    size = count * (sent * _REQUEST + answered * _ANSWER)
    truncated = count * m * n
    return 3, size + _TRUNCATION[1] * truncated, size + _TRUNCATION[2] * truncated


def _matmul(shapes: tuple[Shape, ...], options: MpcOptions) -> _Cost:
    left, right = shapes
    batch = elements(broadcast(left[:-2], right[:-2]))
    return _product(left[-2], left[-1], right[-1], batch)


def _linear(shapes: tuple[Shape, ...], options: MpcOptions) -> _Cost:
    x, weight, _ = shapes
    return _product(elements(x[:-1]), x[-1], weight[0], 1)


def _convolution(shapes: tuple[Shape, ...], options: MpcOptions) -> _Cost:
    """A product of matrices with the windows unfolded."""
    _, weight, output = shapes
    places = output[0] * output[2] * output[3]
    return _product(places, elements(weight[1:]), output[1], 1)


def _softmax(shapes: tuple[Shape, ...], options: MpcOptions) -> _Cost:
    _, n = rows(shapes[0])
    _, sent, received = _one(_SOFTMAX)(shapes, options)
    return 8 * spu_folds(n) + 63, sent, received


def _over_sum(power: _Cost) -> _Form:
    """A function of each element, over the sum of its row."""

    def form(shapes: tuple[Shape, ...], options: MpcOptions) -> _Cost:
        count, n = rows(shapes[0])
        rounds = power[0] + _RECIPROCAL[0] + _MULTIPLY[0]
        sent, received = (
            count * (n * (power[way] + _MULTIPLY[way]) + _RECIPROCAL[way]) for way in (1, 2)
        )
        return rounds, Fraction(sent), Fraction(received)

    return form


_FUNCTIONS: dict[str, _Form] = {
    "reveal": _one(_cost(1, 8, 8)),
    "multiply": _multiply,
    "public_multiply": _one(_TRUNCATION),
    "square": _one(_MULTIPLY),
    "power2": _one(_MULTIPLY),
    "cube": _one((4, 2 * _MULTIPLY[1], 2 * _MULTIPLY[2])),
    "matmul": _matmul,
    "linear": _linear,
    "convolution": _convolution,
    "ltz": _one(_LTZ),
    "relu": _one(_RELU),
    "relu6": _one((_RELU[0], 2 * _RELU[1], 2 * _RELU[2])),
    "reciprocal": _one(_RECIPROCAL),
    "exp": _one(_EXP),
    "gelu": _one(_GELU),
    "gelu_tanh": _one(_GELU),
    "quad": _one(_QUAD),
    "softmax": _softmax,
    "relu_softmax": _over_sum(_RELU),
    "2quad": _over_sum(_MULTIPLY),
    "scale": _one(_TRUNCATION),
    "layernorm": _one(_LAYERNORM),
}


class Cheetah(Protocol):
    """SPU 0.9.5's CHEETAH with two parties, 64-bit ring, ring degree 8192. The first party's side.

    Before the first product of matrices 9.6 MB of keys go each way, before the first comparison
    470 kB; both are apart (``setup``).
    """

    name: ClassVar[str] = "cheetah"
    title: ClassVar[str] = "SPU CHEETAH, two parties, encryption and oblivious transfer"
    source: ClassVar[str] = (
        "measured: SPU 0.9.5, comparison, product, truncation, matrices; fit: softmax, its "
        "replacements, LayerNorm, GELU; assumed: rounds, those of SEMI2K"
    )
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "heads": ("batched", "apart"),
    }
    own: ClassVar[Mapping[str, str]] = {
        "maximum": "a tree",
        "rsqrt": "a polynomial start by the highest bit, then Goldschmidt",
        "weights": "encrypted operands are sent for each image",
    }
    dealers: ClassVar[tuple[Dealer, ...]] = ("none",)

    parties: int = 2
    fraction_bits: int = 18
    dealer: Dealer = "none"

    @property
    def setup(self) -> Traffic:
        """Keys and the first oblivious transfers, once for all images; 930 sends."""
        return Traffic(930, 9_600_000 + 470_000, 9_600_000 + 470_000)

    def functions(self) -> Mapping[str, Callable[..., object]]:
        """The functions that the protocol has figures for."""
        return _FUNCTIONS

    def _cost(
        self, function: Callable[..., object], shapes: tuple[Shape, ...], options: MpcOptions
    ) -> OperatorTraffic:
        rounds, sent, received = cast("_Form", function)(shapes, options)
        return OperatorTraffic(Traffic(rounds, math.ceil(sent), math.ceil(received)))
