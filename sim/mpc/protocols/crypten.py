"""CrypTen's protocol for two parties: additive shares, Beaver products, comparison by binary
addition.

Every function is put together from three things: rounds, ring words that each party opens (it sends
its masked share of a word and receives the other's), and words that the dealer must send (one for
each element of a product; the rest of a triple grows from seeds). Both parties send at once, so a
round is one exchange. Counts equal CrypTen 0.4.1's own counters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

from ..options import MpcOptions
from ..traffic import OperatorTraffic, Traffic
from .functions import Shape, broadcast, elements, matmul_shape, rows
from .protocol import Dealer, Protocol

__all__ = ["Crypten", "Exchange"]

_WORD = 8
_BITS = 64


@dataclass(frozen=True)
class Exchange:
    """Rounds, ring words opened, and words that the dealer sends."""

    rounds: int = 0
    opened: int = 0
    dealt: int = 0

    def __add__(self, other: Exchange) -> Exchange:
        """One after the other."""
        return Exchange(
            self.rounds + other.rounds, self.opened + other.opened, self.dealt + other.dealt
        )

    def times(self, count: int) -> Exchange:
        """``count`` of them at once, in the same rounds."""
        return Exchange(self.rounds, self.opened * count, self.dealt * count)

    def repeated(self, count: int) -> Exchange:
        """``count`` of them one after another."""
        return Exchange(self.rounds * count, self.opened * count, self.dealt * count)


NO_EXCHANGE = Exchange()

# One element each. An AND opens two masked words; a square opens one.
_OPEN = Exchange(1, 1, 0)
_SQUARE = Exchange(1, 1, 1)
_MULTIPLY = Exchange(1, 2, 1)
_AND = Exchange(1, 2, 1)
_A2B = _AND + _AND.times(2).repeated(6)
_B2A = Exchange(1, 1, 1)
_LTZ = _A2B + _B2A
_EQUALITY = _AND.repeated(6) + _B2A
_RELU = _LTZ + _MULTIPLY
_SELECT = _MULTIPLY.repeated(2)
_MAX2 = _LTZ + _SELECT
_CUBE = _SQUARE + _MULTIPLY
_EXP = _SQUARE.repeated(8)


def _powers(stages: int) -> Exchange:
    """x^2 to x^(2^stages): in each stage the powers so far, stacked, times the highest."""
    found = NO_EXCHANGE
    for stage in range(stages):
        count = 2**stage
        found += _SQUARE if count == 1 else Exchange(1, count + 1, count)
    return found


_POLYNOMIAL4 = _powers(2)
_RECIPROCAL = _EXP + (_SQUARE + _MULTIPLY).repeated(10)
_RECIPROCAL_ANY = _LTZ + _RECIPROCAL + _MULTIPLY.repeated(2)
_NEWTON_ROOT = _EXP + (_SQUARE + _MULTIPLY + _MULTIPLY).repeated(3)
_LOG = _EXP + (_EXP + _MULTIPLY + _powers(3)).repeated(2)
_SIGMOID = _LTZ + _MULTIPLY + _EXP + (_SQUARE + _MULTIPLY).repeated(2) + _SELECT
_GELU_TANH = _MULTIPLY.repeated(2) + _SIGMOID + _MULTIPLY
_ERF = Exchange(34, 47, 34)  # eight odd powers: 21 squares, 13 products
_GELU_PIECES = (
    _LTZ.times(3) + _SQUARE + Exchange(1, 3, 2) + _SQUARE + _MULTIPLY.times(3)
)  # x^2; x^3 and x^4 from one stacked product; x^6; three masks by three pieces
# From 1, a public start: the first product is local, the others are stacked with a square.
_GOLDSCHMIDT = (_SQUARE + _MULTIPLY) + (Exchange(1, 3, 2) + _MULTIPLY).repeated(7)


def _one(exchange: Exchange) -> _Form:
    def form(shapes: tuple[Shape, ...], options: MpcOptions) -> Exchange:
        return exchange.times(elements(shapes[0]))

    return form


_Form = Callable[[tuple[Shape, ...], MpcOptions], Exchange]


def _product(x: Shape, y: Shape, output: Shape) -> Exchange:
    """One round that opens both operands as they are, and a result of another size."""
    return Exchange(1, elements(x) + elements(y), elements(output))


def _multiply(shapes: tuple[Shape, ...], options: MpcOptions) -> Exchange:
    x, y = shapes
    return _product(x, y, broadcast(x, y))


def _matmul(shapes: tuple[Shape, ...], options: MpcOptions) -> Exchange:
    x, y = shapes
    return _product(x, y, matmul_shape(x, y))


def _weighted(shapes: tuple[Shape, ...], options: MpcOptions) -> Exchange:
    """A product with a trained weight, whose masked words may have been opened before."""
    x, weight, output = shapes
    opened = elements(x) + (elements(weight) if options.weights == "each" else 0)
    return Exchange(1, opened, elements(output))


def _root(options: MpcOptions) -> Exchange:
    return _NEWTON_ROOT if options.rsqrt == "newton" else _GOLDSCHMIDT


def _inv_sqrt(shapes: tuple[Shape, ...], options: MpcOptions) -> Exchange:
    return _root(options).times(elements(shapes[0]))


def _sqrt(shapes: tuple[Shape, ...], options: MpcOptions) -> Exchange:
    return (_root(options) + _MULTIPLY).times(elements(shapes[0]))


def _gelu(shapes: tuple[Shape, ...], options: MpcOptions) -> Exchange:
    forms = {"tanh": _GELU_TANH, "sigmoid": _MULTIPLY + _SIGMOID, "pieces": _GELU_PIECES}
    return forms[options.gelu].times(elements(shapes[0]))


def _divide(shapes: tuple[Shape, ...], options: MpcOptions) -> Exchange:
    whole = broadcast(*shapes)
    divisor = shapes[1] if options.division == "row" else whole
    return _RECIPROCAL.times(elements(divisor)) + _product(shapes[0], divisor, whole)


# -- rows: the exchange of one row of n numbers -------------------------------------------------


def _by_row(row: Callable[[int, MpcOptions], Exchange]) -> _Form:
    def form(shapes: tuple[Shape, ...], options: MpcOptions) -> Exchange:
        count, n = rows(shapes[0])
        return row(n, options).times(count)

    return form


def _one_hot(n: int) -> Exchange:
    """One of the n places that hold a 1, at random: a secret uniform number of 16 bits times their
    count, compared with the running sums.
    """
    return Exchange(1, 16, 16) + _MULTIPLY + _LTZ.times(n)


def _halved(n: int, steps: int) -> tuple[Exchange, int]:
    """Steps that keep the larger of each two: their exchange, and how many numbers are left."""
    found = NO_EXCHANGE
    for _ in range(steps):
        found += _MAX2.times(n // 2)
        n = n // 2 + n % 2
    return found, n


def _all_pairs(n: int) -> Exchange:
    """Each compared with each other; one that loses to none is picked."""
    if n == 1:
        return NO_EXCHANGE
    tree = Exchange(math.ceil(math.log2(n - 1)), 2 * n * (n - 2), n * (n - 2))
    return _LTZ.times(n * (n - 1)) + tree + _one_hot(n) + _MULTIPLY.times(n)


def _index(n: int) -> Exchange:
    """Where the maximum is, which CrypTen finds also where only its value is wanted."""
    return _EQUALITY.times(n) + _one_hot(n)


def _max_reduction(n: int, options: MpcOptions) -> Exchange:
    """log_reduction: int(ln n) halvings, then all pairs of what is left."""
    if n == 1:
        return NO_EXCHANGE
    found, left = _halved(n, int(math.log(n)))
    return found + _all_pairs(left) + _index(n)


def _max_tree(n: int, options: MpcOptions) -> Exchange:
    depth = (n - 1).bit_length()
    return Exchange(_RELU.rounds * depth, _RELU.opened * (n - 1), _RELU.dealt * (n - 1))


def _max_pairs(n: int, options: MpcOptions) -> Exchange:
    return _all_pairs(n)


def _max_pairwise(n: int, options: MpcOptions) -> Exchange:
    """CrypTen's own all pairs: beyond 128 numbers the comparisons of each are not multiplied but
    added, and the sum is compared with n - 1.
    """
    if n <= 2 * _BITS:
        return _all_pairs(n)
    return _LTZ.times(n * (n - 1)) + _LTZ.times(n) + _one_hot(n) + _MULTIPLY.times(n)


def _recursive(n: int) -> Exchange:
    """Groups of isqrt(n), each by the same method, then all pairs of what is left of them."""
    if n == 1:
        return NO_EXCHANGE
    size = math.isqrt(n)
    groups = n // size
    return _recursive(size).times(groups) + _all_pairs(groups + n % size)


def _max_double_log(n: int, options: MpcOptions) -> Exchange:
    return NO_EXCHANGE if n == 1 else _recursive(n) + _index(n)


def _max_cascade(n: int, options: MpcOptions) -> Exchange:
    """accelerated_cascade: int(ln ln ln n) + 1 halvings before the groups; all pairs below 3."""
    if n < 3:
        return NO_EXCHANGE if n == 1 else _all_pairs(n) + _index(n)
    found, left = _halved(n, int(math.log(math.log(math.log(n)))) + 1)
    return found + _recursive(left) + _index(n)


def _max(n: int, options: MpcOptions) -> Exchange:
    forms = {"reduction": _max_reduction, "tree": _max_tree, "pairs": _max_pairs}
    return forms[options.maximum](n, options)


def _shared_divisor(n: int, options: MpcOptions) -> Exchange:
    """n numbers over one that is positive."""
    if options.division == "row":
        return _RECIPROCAL + Exchange(1, n + 1, n)
    return (_RECIPROCAL + _MULTIPLY).times(n)


def _softmax(n: int, options: MpcOptions) -> Exchange:
    return _max(n, options) + _EXP.times(n) + _shared_divisor(n, options)


def _relu_softmax(n: int, options: MpcOptions) -> Exchange:
    return _RELU.times(n) + _shared_divisor(n, options)


def _quad_softmax(n: int, options: MpcOptions) -> Exchange:
    return _SQUARE.times(n) + _shared_divisor(n, options)


def _scale(n: int, options: MpcOptions) -> Exchange:
    return NO_EXCHANGE


def _layernorm(n: int, options: MpcOptions) -> Exchange:
    return _SQUARE.times(n) + _root(options) + Exchange(1, n + 1, n)


def _layernorm_product(n: int, options: MpcOptions) -> Exchange:
    return _MULTIPLY.times(n) + _root(options) + Exchange(1, n + 1, n)


_FUNCTIONS: dict[str, _Form] = {
    "reveal": _one(_OPEN),
    "multiply": _multiply,
    "public_multiply": _one(NO_EXCHANGE),
    "square": _one(_SQUARE),
    "power2": _one(_SQUARE),
    "cube": _one(_CUBE),
    "polynomial4": _one(_POLYNOMIAL4),
    "matmul": _matmul,
    "linear": _weighted,
    "convolution": _weighted,
    "grouped_convolution": _weighted,
    "transposed_convolution": _weighted,
    "and": _one(_AND),
    "a2b": _one(_A2B),
    "b2a": _one(_B2A),
    "ltz": _one(_LTZ),
    "equality": _one(_EQUALITY),
    "mux": _one(_MULTIPLY),
    "where": _multiply,
    "select": _one(_SELECT),
    "relu": _one(_RELU),
    "relu6": _one(_RELU.times(2)),
    "max2": _one(_MAX2),
    "max": _by_row(_max),
    "max_reduction": _by_row(_max_reduction),
    "max_tree": _by_row(_max_tree),
    "max_pairs": _by_row(_max_pairs),
    "max_pairwise": _by_row(_max_pairwise),
    "max_double_log": _by_row(_max_double_log),
    "max_cascade": _by_row(_max_cascade),
    "exp": _one(_EXP),
    "reciprocal": _one(_RECIPROCAL),
    "reciprocal_any": _one(_RECIPROCAL_ANY),
    "divide": _divide,
    "inv_sqrt": _inv_sqrt,
    "sqrt": _sqrt,
    "log": _one(_LOG),
    "sigmoid": _one(_SIGMOID),
    "tanh": _one(_SIGMOID),
    "erf": _one(_ERF),
    "gelu": _gelu,
    "gelu_tanh": _one(_GELU_TANH),
    "gelu_sigmoid": _one(_SIGMOID + _MULTIPLY),
    "gelu_pieces": _one(_GELU_PIECES),
    "gelu_erf": _one(_ERF + _MULTIPLY),
    "quad": _one(_SQUARE),
    "softmax": _by_row(_softmax),
    "relu_softmax": _by_row(_relu_softmax),
    "2quad": _by_row(_quad_softmax),
    "scale": _by_row(_scale),
    "layernorm": _by_row(_layernorm),
    "layernorm_product": _by_row(_layernorm_product),
    "rmsnorm": _by_row(_layernorm),
}


class Crypten(Protocol):
    """CrypTen 0.4.1 with two parties.

    Offline, a trusted third party sends the first party one word for each element of a product; the
    second party gets nothing but a seed.
    """

    name: ClassVar[str] = "crypten"
    title: ClassVar[str] = "CrypTen, two parties, Beaver triples"
    source: ClassVar[str] = "formula: equal to the counters of CrypTen 0.4.1"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "maximum": ("reduction", "tree", "pairs"),
        "gelu": ("tanh", "sigmoid", "pieces"),
        "division": ("row", "element"),
        "weights": ("each", "once"),
        "rsqrt": ("newton", "goldschmidt"),
        "heads": ("batched", "apart"),
        "fraction_bits": (),
    }
    dealers: ClassVar[tuple[Dealer, ...]] = ("ttp", "tfp")

    parties: int = 2
    fraction_bits: int = 16
    dealer: Dealer = "ttp"

    def functions(self) -> Mapping[str, Callable[..., object]]:
        """The functions that the protocol has figures for."""
        return _FUNCTIONS

    def _cost(
        self, function: Callable[..., object], shapes: tuple[Shape, ...], options: MpcOptions
    ) -> OperatorTraffic:
        found = cast("_Form", function)(shapes, options)
        sent = _WORD * found.opened
        dealt = _WORD * found.dealt if self.dealer == "ttp" else 0
        return OperatorTraffic(Traffic(found.rounds, sent, sent), Traffic(0, 0, dealt))
