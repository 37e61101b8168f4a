"""The operators of scheme `ivit` against vectors of two independent scripts, against the published
formulas in Python's own integers, and against float.
"""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
import torch

from vitruvius.models.integer.ivit.dyadic import (
    Dyadic31,
    add_requantized,
    dyadic31,
    requantize31,
)
from vitruvius.models.integer.ivit.layernorm import affine, integer_root, layernorm, mean_half_even
from vitruvius.models.integer.ivit.shift_exp import reciprocal_step, shift_exp
from vitruvius.models.integer.ivit.shift_gelu import (
    LARGEST_STEP,
    gelu_step,
    shift_gelu,
    shift_sigmoid,
)
from vitruvius.models.integer.ivit.shiftmax import largest_step, octaves_reached, shiftmax

TOP = (1 << 31) - 1
CODES = torch.arange(-128, 128)


# Dyadic requantization.


@pytest.mark.parametrize(
    ("ratio", "multiplier", "shift"),
    [
        (0.0123, 1690499128, 37),
        (0.5, 1073741824, 31),
        (1.0, 1073741824, 30),
        (3.7e-9, 2132904784, 59),
        (-0.02, -1374389535, 36),
        (0.99999999999, 1 << 30, 30),  # 2**31 after rounding: renormalised
        (0.0, 0, 1),
        (1e-30, 0, 1),
    ],
)
def test_ratios_become_the_published_pairs(ratio: float, multiplier: int, shift: int) -> None:
    assert dyadic31(ratio) == Dyadic31(multiplier, shift)


def test_impossible_ratios_are_refused() -> None:
    for ratio in (math.nan, math.inf, 2.0**30, -(2.0**30)):
        with pytest.raises(ValueError, match=r"expected a magnitude below 2\*\*30, got"):
            dyadic31(ratio)


@pytest.mark.parametrize(
    ("rounding", "results"),
    [
        ("half-even", [0, 2, 2, 0, -2, -2]),
        ("half-up", [1, 2, 3, 0, -1, -2]),
        ("half-away", [1, 2, 3, -1, -2, -3]),
    ],
)
def test_ties_go_where_the_mode_says(rounding, results) -> None:
    codes = torch.tensor([1, 3, 5, -1, -3, -5])
    assert requantize31(codes, 1 << 30, 31, 8, rounding).tolist() == results


@pytest.mark.parametrize("rounding", ["half-even", "half-up", "half-away"])
def test_requantizing_equals_exact_fractions(rounding) -> None:
    """Catches a product that has left 63 bits, and shifts at their ends."""
    draw = random.Random(f"{rounding}")
    nearest = {
        "half-even": round,
        "half-up": lambda value: math.floor(value + Fraction(1, 2)),
        "half-away": lambda value: (
            int(math.copysign(1, value)) * math.floor(abs(value) + Fraction(1, 2))
        ),
    }[rounding]
    for _ in range(4000):
        width = draw.randint(1, 32)
        code = draw.choice([draw.randrange(-(1 << (width - 1)), 1 << (width - 1)), -(1 << 31)])
        multiplier = draw.randrange(1 << 30, 1 << 31) * draw.choice([1, -1])
        shift, bits = draw.randint(1, 63), draw.choice([8, 16, 32])
        exact = nearest(Fraction(code * multiplier, 1 << shift))
        limit = 1 << (bits - 1)
        got = int(requantize31(torch.tensor(code), multiplier, shift, bits, rounding))
        assert got == min(max(exact, -limit), limit - 1), (code, multiplier, shift, bits)


def test_branches_are_rounded_apart() -> None:
    """1/2 + 1/2 is 0 when each is rounded to even, and 1 in one wide addition."""
    half = dyadic31(0.5)
    left, right = torch.tensor([1, 1, 70000]), torch.tensor([1, 2, 70000])
    assert add_requantized(left, half, right, half).tolist() == [0, 1, 32767]


# ShiftExp.


def exponential(code: int, a: int, n: int) -> int:
    """The published line by line in exact fractions: the argument's octaves, cut; whole and rest;
    ``rest / 2 + a`` shifted and rounded down.
    """
    octaves = max(code + (code >> 1) - (code >> 4), -n * a)
    whole = math.floor(Fraction(octaves, -a))
    rest = octaves + a * whole
    return math.floor((Fraction(rest, 2) + a) * Fraction(2) ** (n - whole))


def test_shift_exp_gives_the_vectors() -> None:
    codes = torch.tensor([0, -1, -2, -3, -10, -33, -34, -50, -100, -255])
    assert shift_exp(codes, 34, 15).tolist() == [
        1114112, 1097728, 1081344, 1048576, 884736, 450560, 442368, 266240, 62464, 656,
    ]  # fmt: skip


@pytest.mark.parametrize("n", [15, 23])
def test_shift_exp_for_every_step_and_difference(n: int) -> None:
    """All differences of two 8-bit codes, with every step of 8 to 332: equal to the published
    formula, monotonic, and within the error of its straight line.
    """
    differences = torch.arange(-255, 1)
    for a in range(8, 333):
        got = shift_exp(differences, a, n)
        assert got.tolist() == [exponential(code, a, n) for code in range(-255, 1)], a
        assert bool((got[1:] >= got[:-1]).all())
        assert int(got[-1]) == a << n
        assert int(got.min()) >= a
        octaves = differences + (differences >> 1) - (differences >> 4)
        inside = octaves > -n * a
        true = torch.exp2(octaves[inside].double() / a) * a * 2.0**n
        ratio = got[inside].double() / true
        assert float(ratio.max()) < 1.0616
        assert float((got[inside].double() - true).min()) > -1


def test_codes_above_zero_saturate_what_they_are_added_to() -> None:
    for a in (1, 8, 20, 127):
        for code in (1, 5, 128):
            got = int(shift_exp(torch.tensor(code), a, 23))
            assert min(got, TOP) == min(exponential(code, a, 23), TOP)


def test_steps_of_scales() -> None:
    assert [reciprocal_step(scale) for scale in (0.05, 0.03, 1.0, 7.0)] == [20, 34, 1, 1]
    assert reciprocal_step(0.03, nearest=True) == 33
    assert gelu_step(0.03) == 20
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="expected a positive number, got"):
            reciprocal_step(scale)


# Shiftmax.


ROW = torch.tensor([20, 15, 0, -7, -128, 127, 100, 90])


def test_shiftmax_gives_the_vectors() -> None:
    assert shiftmax(ROW, 34).tolist() == [769, 661, 423, 353, 9, 16745, 7756, 6033]
    assert shiftmax(ROW, 34, bits=8).tolist() == [3, 2, 1, 1, 0, 65, 30, 23]


@pytest.mark.parametrize("bits", [8, 16])
def test_shiftmax_equals_the_formula_in_big_integers(bits: int) -> None:
    draw = random.Random(bits)
    for _ in range(300):
        a, keys = draw.randint(8, 332), draw.randint(1, 60)
        spread = draw.choice([0, 3, 255])
        row = [draw.randint(-128, 127) * spread // 255 for _ in range(keys)]
        weights = [exponential(code - max(row), a, 15) for code in row]
        factor = TOP // min(sum(weights), TOP)
        expected = [weight * factor >> (32 - bits) for weight in weights]
        assert shiftmax(torch.tensor(row), a, bits=bits).tolist() == expected


def test_sums_do_not_saturate_up_to_the_largest_step() -> None:
    equal = torch.zeros(197, dtype=torch.int64)
    a = largest_step(197)
    assert int(shift_exp(equal, a, 15).sum()) <= TOP < int(shift_exp(equal, a + 1, 15).sum())
    assert set(shiftmax(equal, a).tolist()) == {32768 // 197}


def test_fewer_octaves_change_no_weight_but_the_sum_s_reciprocal() -> None:
    """Exponentials of all differences keep their ratios to within one unit, whatever the step, and
    equal scores get equal shares, of which 15 octaves lose up to half.
    """
    differences = torch.arange(-255, 1)
    for a in range(8, 333):
        octaves = octaves_reached(a)
        few = shift_exp(differences, a, octaves).double() / (1 << octaves)
        many = shift_exp(differences, a, 15).double() / (1 << 15)
        assert float((few - many).abs().max()) < 2.0**-octaves, a
    equal = torch.zeros(197, dtype=torch.int64)
    assert int(shiftmax(equal, 128, n=octaves_reached(128))[0]) == 32768 // 197
    assert int(shiftmax(equal, 128)[0]) == 128  # the published 15: of 166


def test_rows_are_probabilities() -> None:
    """Never above the top code; the sum falls short by what rounding down costs, which grows with
    the sum of weights, and a probability is as far off as the straight line is.
    """
    draw = torch.Generator().manual_seed(4)
    for a in (12, 20, 34, 64):
        rows = torch.randint(-128, 128, (200, 50), generator=draw)
        got = shiftmax(rows, a).double() / 32768
        true = torch.softmax(rows.double() / a, -1)
        assert float(got.max()) < 1
        assert float((got - true).abs().max()) < 0.04
        short = 1 - got.sum(-1)
        assert 0 <= float(short.min()) <= float(short.max()) < a * 50 / 65536 + 50 / 32768


# ShiftGELU.


GELU_ROW = torch.tensor([-128, -60, -20, -5, 0, 5, 20, 60, 100, 127])


def test_shift_gelu_gives_the_vectors() -> None:
    assert shift_sigmoid(GELU_ROW, 20).tolist() == [0, 6, 36, 58, 63, 73, 94, 121, 126, 120]
    assert shift_gelu(GELU_ROW, 20).tolist() == [
        0, -360, -720, -290, 0, 365, 1880, 7260, 12600, 15240,
    ]  # fmt: skip


def test_shift_gelu_equals_the_formula_in_big_integers() -> None:
    draw = random.Random(9)
    for _ in range(400):
        a = draw.randint(1, 127)
        low = draw.choice([-128, 0, -100])
        row = [draw.randint(low, max(low, draw.choice([127, -1]))) for _ in range(20)]
        expected = []
        for code in row:
            own, other = exponential(code - max(row), a, 23), exponential(-max(row), a, 23)
            expected.append(code * (own * (TOP // min(own + other, TOP)) >> 24))
        assert shift_gelu(torch.tensor(row), a).tolist() == expected


@pytest.mark.parametrize("a", [8, 16, 32, 38, 64, 86, 127])
def test_the_faithful_gain_of_large_codes_is_that_of_its_short_quotient(a: int) -> None:
    """``floor(Q) / Q`` with ``Q = (2**31 - 1) / (a * 2**23)``: up to half is lost."""
    quotient = TOP / (a << 23)
    row = torch.tensor([127])
    sigmoid = int(shift_sigmoid(row, a)) / 128
    assert sigmoid <= math.floor(quotient) / quotient + 1 / 128
    true = 128 / (1 + math.exp(-127 / a))
    assert abs(int(shift_sigmoid(row, a, "safe")) - true) < 2


def test_the_safe_mode_does_not_collapse() -> None:
    """Row maximum beyond 9.4: the published form gives x/2 for strongly negative x."""
    scale = 12 / 127
    a = gelu_step(scale)
    faithful, safe = shift_gelu(CODES, a), shift_gelu(CODES, a, "safe")
    true = torch.nn.functional.gelu(CODES.double() * scale)
    faithful_error = (faithful.double() * scale / 128 - true).abs().max()
    safe_error = (safe.double() * scale / 128 - true).abs().max()
    assert float(faithful_error) > 5
    assert float(safe_error) < 0.12


@pytest.mark.parametrize("a", range(4, LARGEST_STEP + 1, 3))
def test_safe_gelu_of_every_code(a: int) -> None:
    """Against x * sigmoid(1.702 x) with the same step: the straight line's error, and the code that
    is lost where a sigmoid is rounded down.
    """
    safe = shift_gelu(CODES, a, "safe").double() / 128
    true = CODES.double() * torch.sigmoid(CODES.double() / a)
    error = (safe - true).abs() - CODES.abs() / 128
    assert float(error.max()) / a < 0.03
    assert bool((shift_sigmoid(CODES, a, "safe") <= 128).all())


# I-LayerNorm.


def test_means_are_rounded_to_even() -> None:
    draw = random.Random(2)
    for _ in range(500):
        row = [draw.randint(-32768, 32767) for _ in range(draw.choice([1, 2, 3, 8, 192]))]
        expected = round(Fraction(sum(row), len(row)))
        assert int(mean_half_even(torch.tensor(row))) == expected


def test_roots_are_exact_everywhere() -> None:
    """Squares and their neighbours up to 42 bits, where a float root may round up."""
    near = torch.arange(1, 1 << 21, 37) ** 2
    values = torch.cat([torch.arange(5000), near - 1, near, near + 1])
    assert integer_root(values).tolist() == [max(1, math.isqrt(v)) for v in values.tolist()]


def test_newton_gives_the_published_values() -> None:
    values = torch.tensor([0, 100, 10_000])
    assert integer_root(values, "newton").tolist() == [64, 64, 108]
    converged = torch.arange(34_596, 60_000, 13)
    difference = integer_root(converged, "newton") - integer_root(converged)
    assert set(difference.tolist()) <= {0, 1}


ROOT_OF_A_POWER_OF_TWO = [23170, -23170] * 3 + [23172, -23172]
"""The root of the squares' sum is 2**16, so that 2**31 over it is not the published 2**31 - 1."""


@pytest.mark.parametrize("root", ["exact", "newton"])
def test_layernorm_equals_the_formula_in_big_integers(root) -> None:
    """Catches another reciprocal constant, division towards zero, and a sum that has wrapped."""
    draw = random.Random(f"{root}")
    rows = [ROOT_OF_A_POWER_OF_TWO, [32767] * 4 + [-32768] * 4, [0] * 8, [5] * 7 + [6]]
    rows += [[draw.randint(-(1 << width), (1 << width) - 1) for _ in range(8)] for width in
             [draw.randint(1, 15) for _ in range(200)]]  # fmt: skip
    gamma = torch.tensor([1, -2, 0.5, 1, 1, 3, 1, -1.0])
    beta = torch.tensor([0, 1, -0.25, 0.1, 0, 2, 7, -3.0])
    parameters = affine(gamma, beta)
    got = layernorm(torch.tensor(rows), parameters, root).tolist()
    for row, found in zip(rows, got, strict=True):
        centred = [code - round(Fraction(sum(row), 8)) for code in row]
        squares = sum(code * code for code in centred)
        k = max(1, math.isqrt(squares))
        if root == "newton":
            k = 1 << 16
            for _ in range(10):
                k = (k + squares // k) // 2
        normal = [code * (TOP // k) // 2 for code in centred]
        expected = [
            min(max(code + bias, -TOP - 1), TOP)
            for code, bias in zip(normal, parameters.bias.tolist(), strict=True)
        ]
        assert found == expected, row


def test_layernorm_equals_float() -> None:
    """Codes of any scale, to within the roundings of mean, root and reciprocal."""
    generator = torch.Generator().manual_seed(6)
    width = 192
    gamma, beta = torch.randn(width, generator=generator), torch.randn(width, generator=generator)
    gamma[3], gamma[4], beta[4] = 0, 0, 0
    codes = torch.randint(-20000, 20000, (50, width), generator=generator)
    parameters = affine(gamma, beta)
    got = layernorm(codes, parameters).double() * parameters.scale
    true = torch.nn.functional.layer_norm(
        codes.double(), (width,), gamma.double(), beta.double(), eps=0
    )
    large = (beta / gamma).abs() > 2 * math.sqrt(width)  # saturated, but for gamma 0
    keep = ~large | (gamma == 0)
    assert float((got - true)[:, keep].abs().max()) < 2e-3
    assert torch.allclose(got[:, 3], beta[3].double().expand(50))


def test_layernorm_of_equal_codes_is_the_bias() -> None:
    parameters = affine(torch.ones(8), torch.arange(8) / 8)
    got = layernorm(torch.full((2, 8), -777), parameters)
    assert got.tolist() == [parameters.bias.tolist()] * 2


def test_biases_saturate() -> None:
    parameters = affine(torch.tensor([1e-3, -1e-3]), torch.tensor([1.0, 1.0]))
    assert parameters.bias.tolist() == [TOP, -TOP - 1]
