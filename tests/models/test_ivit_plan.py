"""The fast steps of scheme `ivit` against `ivit_operators.KINDS`, kind by kind, with parameters and
codes from the ends of their ranges.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

import pytest
import torch
from torch import Tensor

from vitruvius.models.integer.ivit.dyadic import requantize31
from vitruvius.models.integer.matmul import accumulator_type, product_bound
from vitruvius.models.integer_operator import IntegerOperator
from vitruvius.models.ivit_operators import KINDS
from vitruvius.models.ivit_plan import Scaling, prepared_step

SEEDS = range(12)


def near_ties() -> Iterator[tuple[int, int, int, int]]:
    """Codes of 31 bits, multipliers, shifts and results, where the product is beyond a tie by less
    than 2**-53 of it: ``x**2 - y**2`` where that is closest to ``(result - 1/2) * 2**shift``.
    """
    for result in range(33, 127, 2):
        shift = 54
        tie = (2 * result - 1) << (shift - 1)
        root = isqrt(tie) + 1
        for x in range(root, root + 20_000):
            y = isqrt(x * x - tie)
            if 0 < x * x - y * y - tie < tie >> 54 and x + y < 1 << 31:
                yield x - y, x + y, shift, result


def test_a_product_next_to_a_tie_is_not_one() -> None:
    """Catches a product rounded in float64 whose last bits decided where it goes."""
    found = list(near_ties())
    assert len(found) > 10
    for size, multiplier, shift, result in found:
        assert round(size * float(multiplier) * 2.0**-shift) == result - 1  # so that this can fail
        for code, exact in ((size, result), (-size, -result)):
            assert int(requantize31(torch.tensor(code), multiplier, shift, 8)) == exact
            values = torch.tensor([code, 0, 1], dtype=torch.float64)
            assert Scaling(multiplier, shift, 8, 1 << 31)(values).tolist() == [exact, 0, 0]


def test_ties_and_saturation_of_every_shift() -> None:
    """Both ways of `Scaling`, with products that are ties and products far out of range."""
    codes = torch.tensor([0, 1, -1, 3, -3, 5, 12345, -12345, (1 << 31) - 1, -(1 << 31)])
    for shift in range(1, 64):
        for multiplier in (1 << 30, -(1 << 30), (1 << 31) - 1, 1690499129, 0):
            for bits in (8, 16, 32):
                expected = requantize31(codes, multiplier, shift, bits)
                scaled = Scaling(multiplier, shift, bits, 1 << 31)
                assert scaled(codes.double()).tolist() == expected.tolist(), (shift, multiplier)


def test_products_that_fit_are_not_looked_at_twice() -> None:
    """The cheap way is taken where a bound allows it, and only there."""
    assert Scaling(1 << 30, 60, 8, 1 << 22).exact
    assert not Scaling(1 << 30, 60, 8, (1 << 22) + 1).exact
    assert Scaling(1 << 30, 46, 8, 1 << 31).exact
    assert not Scaling(1 << 30, 47, 8, 1 << 31).exact
    assert Scaling(1 << 30, 38, 16, 1 << 31).exact


# Kind by kind.


def codes(draw: torch.Generator, bits: int, *shape: int) -> Tensor:
    """int64 codes over the whole width, a few rows from its ends, constant, or negative."""
    limit = 1 << (bits - 1)
    found = torch.randint(-limit, limit, shape, generator=draw)
    rows = found.view(-1, shape[-1])
    rows[0] = torch.randint(0, 2, rows[0].shape, generator=draw) * (2 * limit - 1) - limit
    rows[1] = limit - 1
    rows[2] = -limit
    rows[3] = -rows[3].abs() // 2 - 1
    rows[4] = rows[4] // limit
    return found


def factor(draw: torch.Generator, near: int, count: int) -> tuple[Tensor, Tensor]:
    """Multipliers of either sign and shifts about ``near``, with the least and the most."""
    size = torch.randint(1 << 30, 1 << 31, (count,), generator=draw)
    sign = torch.randint(0, 2, (count,), generator=draw) * 2 - 1
    shift = (near + torch.randint(-3, 4, (count,), generator=draw)).clamp(1, 63)
    if count > 3:
        size[0], sign[0] = 0, 1
        shift[1:4] = torch.tensor([1, 62, 63])
    return size * sign, shift


def pair(draw: torch.Generator, role: str, near: int) -> dict[str, int]:
    multiplier, shift = factor(draw, near, 1)
    return {f"{role}_multiplier": int(multiplier.abs()), f"{role}_shift": int(shift)}


def source(bits: int, tokens: int, features: int) -> IntegerOperator:
    return IntegerOperator("x", "Quantize", (), (tokens, features), bits, 1.0)


def same(
    operator: IntegerOperator,
    inputs: list[IntegerOperator],
    tensors: dict[str, Tensor],
    operands: list[Tensor],
) -> Tensor:
    """The codes of both ways, which must be equal."""
    expected = KINDS[operator.kind](operator, operands, tensors)
    weight = None
    if "weight" in tensors:
        weight = tensors["weight"].t()
        weight = weight.to(accumulator_type(product_bound(weight, 1 << (inputs[0].bits - 1))))
    step = prepared_step(operator, inputs, tensors, weight)
    for _ in range(2):  # a step must leave what it has prepared as it is
        got = step([x.to(torch.float32) for x in operands])
        assert torch.equal(got.to(torch.int64), expected)
    return expected


def operator_of(kind: str, bits: int, output: tuple[int, int], tensors, attributes, inputs=1):
    roles = {name: name for name in tensors}
    names = tuple("x" * (index + 1) for index in range(inputs))
    return IntegerOperator("o", kind, names, output, bits, 1.0, "", attributes, roles)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("bits", "near"), [(8, 41), (8, 50), (16, 35), (16, 41), (32, 31)])
def test_linear(seed: int, bits: int, near: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    multiplier, shift = factor(draw, near, 24)
    tensors = {
        "weight": torch.randint(-128, 128, (24, 70 + 200 * (seed % 3)), generator=draw),
        "bias": torch.randint(-(1 << 30), 1 << 30, (24,), generator=draw),
        "multiplier": multiplier,
        "shift": shift,
    }
    tensors["bias"][::2] >>= 14
    x = codes(draw, 8, 2, 9, tensors["weight"].shape[1])
    operator = operator_of("Linear31", bits, (9, 24), tensors, {})
    same(operator, [source(8, 9, x.shape[-1])], tensors, [x])


@pytest.mark.parametrize("faithful", [0, 1])
@pytest.mark.parametrize("a", [1, 2, 7, 20, 34, 64, 127])
def test_gelu(faithful: int, a: int) -> None:
    draw = torch.Generator().manual_seed(a)
    x = codes(draw, 8, 3, 7, 60)
    for near in (37, 40, 63):
        attributes = {"a": a, "faithful": faithful, **pair(draw, "output", near)}
        operator = operator_of("ShiftGelu", 8, (7, 60), {}, attributes)
        same(operator, [source(8, 7, 60)], {}, [x])


@pytest.mark.parametrize("newton", [0, 1])
@pytest.mark.parametrize("width", [4, 192, 768, 1024])
@pytest.mark.parametrize("bits", [8, 16])
def test_layernorm(newton: int, width: int, bits: int) -> None:
    draw = torch.Generator().manual_seed(width)
    multiplier, shift = factor(draw, 60, width)
    tensors = {
        "bias": torch.randint(-(1 << 31), 1 << 31, (width,), generator=draw),
        "alive": (torch.rand(width, generator=draw) > 0.1).to(torch.int8),
        "multiplier": multiplier,
        "shift": shift,
    }
    tensors["bias"][::2] >>= 5
    operator = operator_of("ILayerNorm", bits, (40, width), tensors, {"newton": newton})
    inside = source(16, 40, width)
    for spread in (0, 8, 13):  # rows of small variance, where Newton's steps have not converged
        same(operator, [inside], tensors, [codes(draw, 16, 3, 40, width) >> spread])


def test_the_reciprocal_of_a_root_that_is_a_power_of_two() -> None:
    """Catches 2**31 over the root, which is 2**16 here, in the place of 2**31 - 1."""
    row = torch.tensor([[[23170, -23170] * 3 + [23172, -23172]]])
    tensors = {
        "bias": torch.zeros(8, dtype=torch.int64),
        "alive": torch.ones(8, dtype=torch.int8),
        "multiplier": torch.full((8,), 1 << 30),
        "shift": torch.full((8,), 44),
    }
    operator = operator_of("ILayerNorm", 16, (1, 8), tensors, {"newton": 0})
    assert int(same(operator, [source(16, 1, 8)], tensors, [row])[0, 0, 0]) == 23169


@pytest.mark.parametrize("octaves", [4, 7, 8, 15])
@pytest.mark.parametrize("a", [1, 8, 34, 127, 332])
def test_attention(octaves: int, a: int) -> None:
    draw = torch.Generator().manual_seed(a + octaves)
    heads, width, tokens = 3, 16, 37
    for near_score, near_apply, bits in ((43, 41, 8), (49, 44, 8), (40, 38, 16)):
        attributes = {
            "heads": heads,
            "a": a,
            "octaves": octaves,
            **pair(draw, "score", near_score),
            **pair(draw, "apply", near_apply),
        }
        operator = operator_of("ShiftAttention", bits, (tokens, 48), {}, attributes, 3)
        operands = [codes(draw, 8, 2, tokens, heads * width) for _ in range(3)]
        same(operator, [source(8, tokens, 48)] * 3, {}, operands)


@pytest.mark.parametrize("seed", SEEDS)
def test_embedding(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    tensors = {"constant": codes(draw, 16, 12, 8)}
    attributes = {"first_token": seed % 4, **pair(draw, "patches", 31)}
    operator = operator_of("Embed31", 16, (12, 8), tensors, attributes)
    expected = same(operator, [source(16, 9, 8)], tensors, [codes(draw, 16, 2, 9, 8)])
    assert int(expected.max()) == 32767  # what overflows saturates


@pytest.mark.parametrize("seed", SEEDS)
def test_addition(seed: int) -> None:
    """Each branch is rounded on its own: one rounding of the sum would differ on most rows."""
    draw = torch.Generator().manual_seed(seed)
    attributes = {**pair(draw, "left", 32), **pair(draw, "right", 34)}
    operator = operator_of("Add31", 16, (9, 50), {}, attributes, 2)
    operands = [codes(draw, 16, 2, 9, 50) for _ in range(2)]
    same(operator, [source(16, 9, 50)] * 2, {}, operands)
