"""Functions of shared fixed-point numbers that have no exact form in a ring, put together from
products and comparisons.

Starts and numbers of steps are those of CrypTen (Knott et al. 2021, arXiv 2109.00984, and its
source); rounds and bytes follow from them. ``shift`` arguments are public powers of two that bring
values into the range where a start converges; they cost nothing.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from .comparison import largest, negative, relu
from .party import Party

__all__ = [
    "clamp",
    "exponential",
    "gelu",
    "inverse_root",
    "layer_norm",
    "logarithm",
    "quick_gelu",
    "reciprocal",
    "root",
    "sigmoid",
    "softmax",
    "tanh",
]

_EXP_STEPS = 8
_RECIPROCAL_STEPS = 10
_ROOT_STEPS = 3
_GOLDSCHMIDT_STEPS = 8
_SIGMOID_STEPS = 3
_SIGMOID_START = 0.75
_LOG_STEPS = 2
_LOG_ORDER = 8
_MOST_SUM = 64
_QUICK = 1.702
_TANH_FORM = (math.sqrt(2 / math.pi), 0.044715)


def exponential(party: Party, x: Tensor) -> Tensor:
    """exp(x) as (1 + x / 256)^256: eight squarings. For x in about [-512, 10]."""
    y = party.truncated(x, _EXP_STEPS) + party.public(1.0)
    for _ in range(_EXP_STEPS):
        y = party.square(y)
    return y


def reciprocal(party: Party, x: Tensor, *, positive: bool) -> Tensor:
    """1 / x by ten Newton steps from 3 exp(1 - 2 x) + 0.003, for |x| in about [0.001, 100]; of both
    signs where not ``positive``. It is coarse above, and wrong from 254 on.
    """
    if not positive:
        sign = party.public_whole(1) - 2 * negative(party, x)
        magnitude = party.multiply(x, sign, truncate=False)
        found = reciprocal(party, magnitude, positive=True)
        return party.multiply(found, sign, truncate=False)
    y = 3 * exponential(party, party.public(1.0) - 2 * x) + party.public(0.003)
    for _ in range(_RECIPROCAL_STEPS):
        y = 2 * y - party.multiply(party.square(y), x)
    return y


def inverse_root(party: Party, x: Tensor, way: str) -> Tensor:
    """1 / sqrt(x). ``newton``: three steps from 2.2 exp(-(x / 2 + 0.2)) + 0.2 - x / 1024, for x in
    about [0.1, 70]. ``goldschmidt``: eight steps from 1, for x in about [0.001, 3].
    """
    if way == "goldschmidt":
        return _by_goldschmidt(party, x)
    y = exponential(party, -(party.truncated(x, 1) + party.public(0.2)))
    y = party.scaled(y, 2.2) + party.public(0.2) - party.truncated(x, 10)
    for _ in range(_ROOT_STEPS):
        factor = party.public(3.0) - party.multiply(party.square(y), x)
        y = party.truncated(party.multiply(y, factor), 1)
    return y


def _by_goldschmidt(party: Party, x: Tensor) -> Tensor:
    """With e = x y^2 going to 1: m = (3 - e) / 2, y <- y m, e <- e m^2."""
    e, y = x, None
    for _ in range(_GOLDSCHMIDT_STEPS):
        m = party.truncated(party.public(3.0) - e, 1)
        if y is None:
            y, squared = m, party.square(m)
        else:
            y, squared = party.multiply_and_square(y, m)
        e = party.multiply(e, squared)
    assert y is not None
    return y


def root(party: Party, x: Tensor, way: str) -> Tensor:
    """sqrt(x) = x / sqrt(x)."""
    return party.multiply(inverse_root(party, x, way), x)


def logarithm(party: Party, x: Tensor) -> Tensor:
    """ln(x) by two Householder steps of order 8 from x / 120 - 20 exp(-2 x - 1) + 3, for x in about
    [0.01, 200].
    """
    start = exponential(party, -2 * x - party.public(1.0))
    y = party.scaled(x, 1 / 120) - 20 * start + party.public(3.0)
    for _ in range(_LOG_STEPS):
        h = party.public(1.0) - party.multiply(x, exponential(party, -y))
        powers = _powers(party, h, _LOG_ORDER)
        y = y - sum(
            (party.scaled(power, 1 / order) for order, power in enumerate(powers, 1)),
            torch.zeros_like(h),
        )
    return y


def _powers(party: Party, x: Tensor, most: int) -> list[Tensor]:
    """X, x^2, ... x^most, ``most`` a power of two, doubling their number each round."""
    found = [x, party.square(x)]
    while len(found) < most:
        stacked = party.multiply(torch.stack(found), found[-1])
        found += list(stacked)
    return found


def sigmoid(party: Party, x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)): of |x|, by Newton from 0.75, then mirrored where x is negative."""
    below = negative(party, x)
    sign = party.public_whole(1) - 2 * below
    magnitude = party.multiply(x, sign, truncate=False)
    denominator = exponential(party, -magnitude) + party.public(1.0)
    y = party.public(2 * _SIGMOID_START) - party.scaled(denominator, _SIGMOID_START**2)
    for _ in range(_SIGMOID_STEPS - 1):
        y = 2 * y - party.multiply(party.square(y), denominator)
    kept = party.multiply(y, party.public_whole(1) - below, truncate=False)
    return kept + party.multiply(party.public(1.0) - y, below, truncate=False)


def tanh(party: Party, x: Tensor) -> Tensor:
    """2 sigmoid(2 x) - 1."""
    return 2 * sigmoid(party, 2 * x) - party.public(1.0)


def gelu(party: Party, x: Tensor, way: str) -> Tensor:
    """x times the normal distribution of x: by its ``tanh`` form, by ``sigmoid``(1.702 x), or in
    ``pieces`` of polynomials.
    """
    if way == "sigmoid":
        return quick_gelu(party, x)
    if way == "pieces":
        return _in_pieces(party, x)
    slope, cubic = _TANH_FORM
    cube = party.multiply(party.multiply(x, x), x)
    inner = party.scaled(x + party.scaled(cube, cubic), slope)
    return party.truncated(party.multiply(x, tanh(party, inner) + party.public(1.0)), 1)


def quick_gelu(party: Party, x: Tensor) -> Tensor:
    """x sigmoid(1.702 x)."""
    return party.multiply(x, sigmoid(party, party.scaled(x, _QUICK)))


_CUTS = (-4.0, -1.95, 3.0)


@functools.cache
def _pieces() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Coefficients of the two middle pieces of GELU, lowest first: a cubic between the first two
    cuts, and 1, x, x^2, x^4, x^6 between the last two, both by least squares on Chebyshev points.

    The cuts and degrees are those of PUMA (Dong et al. 2023, arXiv 2307.12533).
    """

    def fitted(low: float, high: float, powers: tuple[int, ...]) -> tuple[float, ...]:
        turns = np.cos(np.linspace(0, np.pi, 2001))
        x = (high + low) / 2 + (high - low) / 2 * turns
        y = torch.nn.functional.gelu(torch.from_numpy(x)).numpy()
        return tuple(np.linalg.lstsq(x[:, None] ** np.array(powers), y)[0].tolist())

    return fitted(_CUTS[0], _CUTS[1], (0, 1, 2, 3)), fitted(_CUTS[1], _CUTS[2], (0, 1, 2, 4, 6))


def _in_pieces(party: Party, x: Tensor) -> Tensor:
    below = negative(party, torch.stack([x - party.public(cut) for cut in _CUTS]))
    square = party.square(x)
    cube, fourth = party.multiply(torch.stack([x, square]), square)
    sixth = party.square(cube)
    far, near = _pieces()

    def polynomial(coefficients: tuple[float, ...], powers: list[Tensor]) -> Tensor:
        terms = [party.scaled(p, c) for c, p in zip(coefficients[1:], powers, strict=True)]
        return sum(terms, torch.zeros_like(x)) + party.public(coefficients[0])

    values = torch.stack(
        [
            polynomial(far, [x, square, cube]),
            polynomial(near, [x, square, fourth, sixth]),
            x,
        ]
    )
    inside = torch.stack(
        [below[1] - below[0], below[2] - below[1], party.public_whole(1) - below[2]]
    )
    found: Tensor = party.multiply(values, inside, truncate=False).sum(0)
    return found


def clamp(party: Party, x: Tensor, lower: float | None, upper: float | None) -> Tensor:
    """``x`` between public bounds: one comparison for each, both in the same rounds."""
    if lower is not None and upper is not None:
        ramps = torch.stack([x - party.public(lower), x - party.public(upper)])
        found = relu(party, ramps)
        return found[0] - found[1] + party.public(lower)
    if lower is not None:
        return relu(party, x - party.public(lower)) + party.public(lower)
    assert upper is not None
    return party.public(upper) - relu(party, party.public(upper) - x)


def softmax(party: Party, x: Tensor, *, maximum: str, division: str) -> Tensor:
    """Over the last axis; a reciprocal for each ``row`` or each ``element``."""
    powers = exponential(party, x - largest(party, x, maximum))
    total = powers.sum(-1, keepdim=True)
    if division == "element":
        total = total.expand(powers.shape)
    # a sum of up to n ones is brought to where the reciprocal converges
    halvings = max(0, math.ceil(math.log2(x.shape[-1] / _MOST_SUM)))
    inverse = reciprocal(party, party.truncated(total, halvings), positive=True)
    return party.truncated(party.multiply(powers, inverse), halvings)


def layer_norm(
    party: Party, x: Tensor, *, eps: float, rsqrt: str, centred: bool = True, shift: int = 0
) -> Tensor:
    """Over the last axis, without scale and offset: (x - mean) / sqrt(variance + eps), or without
    the mean where not ``centred``. The variance is divided by 4^``shift`` on the way.
    """
    length = x.shape[-1]
    if centred:
        x = x - party.divided(x.sum(-1, keepdim=True), length)
    variance = party.divided(party.square(x).sum(-1, keepdim=True), length) + party.public(eps)
    inverse = inverse_root(party, party.scaled(variance, 4.0**-shift), rsqrt)
    return party.scaled(party.multiply(x, inverse), 2.0**-shift)
