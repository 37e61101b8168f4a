"""Functions on shares in a running pair of parties: rounds and bytes on the socket are CrypTen's as
measured (mpc specification, table 3.1: sent + received of one party), values are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from vitruvius.sim.mpc.parties import comparison, functions, ring
from vitruvius.sim.mpc.parties.correlated import Masks, Request, correction
from vitruvius.sim.mpc.parties.party import Party
from vitruvius.sim.mpc.parties.stream import RandomStream, fresh_seed

N = 1024
Shared = Callable[..., Tensor]
Together = Callable[..., Any]


def spread(low: float, high: float, seed: int, shape: tuple[int, ...] = (N,)) -> Tensor:
    """Seeded floats; the seed is in the call that a failing test shows."""
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def apart_from_zero(seed: int) -> Tensor:
    x = spread(-4, 4, seed)
    return torch.where(x.abs() < 0.3, x.sign() * 0.5, x)


# name: function of the parties, its values in PyTorch, operands, rounds, bytes, largest error
MEASURED: dict[str, tuple[Shared, Shared, list[Tensor], int, int, float]] = {
    "multiply": (
        lambda p, a, b: p.multiply(a, b),
        torch.mul,
        [spread(-4, 4, 1), spread(-3, 3, 2)],
        *(1, 32768, 1e-4),
    ),
    "square": (lambda p, a: p.square(a), torch.square, [spread(-4, 4, 3)], 1, 16384, 1e-4),
    "matmul": (
        lambda p, a, b: p.matmul(a, b),
        torch.matmul,
        [spread(-2, 2, 4, (64, 64)), spread(-2, 2, 5, (64, 64))],
        *(1, 131072, 5e-4),
    ),
    "matmul of an MLP": (
        lambda p, a, b: p.matmul(a, b),
        torch.matmul,
        [spread(-2, 2, 6, (65, 256)), spread(-2, 2, 7, (256, 512))],
        *(1, 2363392, 2e-3),
    ),
    "batched matmul": (
        lambda p, a, b: p.matmul(a, b.transpose(-1, -2)),
        lambda a, b: a @ b.transpose(-1, -2),
        [spread(-2, 2, 8, (4, 65, 64)), spread(-2, 2, 9, (4, 65, 64))],
        *(1, 532480, 5e-4),
    ),
    "exp": (functions.exponential, torch.exp, [spread(-4, 0, 10)], 8, 131072, 5e-3),
    "reciprocal": (
        lambda p, a: functions.reciprocal(p, a, positive=True),
        torch.reciprocal,
        [spread(0.5, 8, 11)],
        *(28, 622592, 2e-4),
    ),
    "reciprocal of any sign": (
        lambda p, a: functions.reciprocal(p, a, positive=False),
        torch.reciprocal,
        [apart_from_zero(12)],
        *(38, 1130496, 2e-4),
    ),
    "inverse root": (
        lambda p, a: functions.inverse_root(p, a, "newton"),
        torch.rsqrt,
        [spread(0.5, 8, 13)],
        *(17, 376832, 3e-3),
    ),
    "root": (
        lambda p, a: functions.root(p, a, "newton"),
        torch.sqrt,
        [spread(0.5, 8, 14)],
        *(18, 409600, 2e-2),
    ),
    "log": (functions.logarithm, torch.log, [spread(0.5, 8, 15)], 32, 753664, 2e-2),
    "sigmoid": (functions.sigmoid, torch.sigmoid, [spread(-4, 4, 16)], 23, 770048, 5e-3),
    "tanh": (functions.tanh, torch.tanh, [spread(-4, 4, 17)], 23, 770048, 1e-2),
    "GELU, tanh form": (
        lambda p, a: functions.gelu(p, a, "tanh"),
        lambda a: torch_functional.gelu(a, approximate="tanh"),
        [spread(-4, 4, 18)],
        *(26, 868352, 3e-3),
    ),
    "GELU, sigmoid form": (
        lambda p, a: functions.gelu(p, a, "sigmoid"),
        torch_functional.gelu,
        [spread(-4, 4, 19)],
        *(24, 802816, 0.025),
    ),
    "ReLU": (comparison.relu, torch.relu, [spread(-4, 4, 20)], 9, 475136, 2e-5),
    "maximum": (
        lambda p, a: comparison.largest(p, a, "reduction"),
        lambda a: a.amax(-1, keepdim=True),
        [spread(-3, 3, 21, (64, 64))],
        *(78, 5029888, 2e-5),
    ),
    "maximum, all pairs": (
        lambda p, a: comparison.largest(p, a, "pairs"),
        lambda a: a.amax(-1, keepdim=True),
        [spread(-3, 3, 22, (64, 64))],
        *(25, 121522176, 2e-5),
    ),
    "maximum, lean tree": (
        lambda p, a: comparison.largest(p, a, "tree"),
        lambda a: a.amax(-1, keepdim=True),
        [spread(-3, 3, 23, (64, 64))],
        *(54, 1870848, 2e-5),
    ),
    "LayerNorm": (
        lambda p, a: functions.layer_norm(p, a, eps=1e-5, rsqrt="newton"),
        lambda a: torch_functional.layer_norm(a, (256,)),
        [spread(-3, 3, 24, (65, 256))],
        *(19, 557440, 5e-3),
    ),
    **{
        f"softmax of {length}": (
            lambda p, a: functions.softmax(p, a, maximum="reduction", division="row"),
            lambda a: a.softmax(-1),
            [spread(-3, 3, 25 + length, (64, length))],
            *(rounds, size, 5e-3),
        )
        for length, rounds, size in (
            (8, 93, 783360),
            (16, 95, 1727488),
            (64, 115, 5659648),
            (65, 115, 5975040),
        )
    },
}


@pytest.mark.parametrize("name", MEASURED)
def test_rounds_and_bytes_are_crypten_s_and_values_pytorch_s(together: Together, name: str) -> None:
    function, expected, operands, rounds, size, error = MEASURED[name]
    found = together(function, *operands)
    assert (found.rounds, found.sent + found.received) == (rounds, size)
    assert found.sent == found.received
    assert float((found.values - expected(*operands)).abs().max()) < error


def words(seed: int, shape: tuple[int, ...] = (4096,)) -> Tensor:
    print(f"seed {seed}")
    generator = torch.Generator().manual_seed(seed)
    found = torch.randint(-(2**63), 2**63 - 1, shape, generator=generator)
    # values of few bits too, of which the carries run through the whole word
    return found >> torch.randint(0, 64, shape, generator=generator)


def test_signs_are_exact_for_every_word(together: Together) -> None:
    x = words(30)
    x[:8] = torch.tensor([0, 1, -1, 2, -2, 2**62, -(2**63), 2**63 - 1])
    found = together(comparison.negative, x, encoded=False)
    assert torch.equal(found.words, (x < 0).long())
    assert (found.rounds, found.sent + found.received, 8 * found.offline) == (
        *(8, 432 * x.numel()),
        112 * x.numel(),
    )


def test_equality_is_exact_for_every_word(together: Together) -> None:
    x, y = words(31), words(32)
    y[::2] = x[::2]
    y[::4] = x[::4] ^ (1 << (torch.arange(y[::4].numel()) % 64))  # one bit apart
    found = together(comparison.equal, x, y, encoded=False)
    assert torch.equal(found.words, (x == y).long())
    assert (found.rounds, found.sent + found.received) == (7, 208 * x.numel())


def test_products_before_truncation_are_exact_modulo_2_64(together: Together) -> None:
    x, y = words(33, (31, 17)), words(34, (17, 23))

    def whole(party: Party, a: Tensor, b: Tensor) -> Tensor:
        request = Request(kind="matmul", shapes=((31, 17), (17, 23)), output=(31, 23))
        return party._product(request, a, b, False)

    found = together(whole, x, y, encoded=False)
    assert torch.equal(found.words, x @ y)


def test_and_of_shared_words_is_exact(together: Together) -> None:
    """Shares combined by exclusive or: seen here through their bits, word by word."""
    x = words(35, (64,))

    def conjunction(party: Party, a: Tensor) -> Tensor:
        left, right = party.binary(a, 0), party.binary(a, 1)
        bits = torch.stack([party.both(left, right) >> place for place in range(64)])
        return (party.arithmetic(bits & 1) << torch.arange(64, device=a.device)[:, None]).sum(0)

    found = together(conjunction, x, encoded=False, seed=7)
    blind = RandomStream(fresh_seed(7, "blind 0")).words(x.shape)
    assert torch.equal(found.words, (x - blind) & blind)


def test_truncation_is_off_by_at_most_one_unit(together: Together) -> None:
    x = words(37) >> 20
    found = together(lambda p, a: p.truncated(a), x, encoded=False)
    off = found.words - (x.double() / 2**16).trunc().long()
    assert int(off.abs().max()) <= 1


@pytest.mark.parametrize("ties", [1, 2, 5])
def test_a_maximum_with_ties_is_the_maximum_once(together: Together, ties: int) -> None:
    """A sampling that kept every tied element would return a multiple of the maximum."""
    x = spread(-3, 2, 38, (16, 9))
    x[:, :ties] = 2.5
    for way in ("reduction", "pairs", "tree"):
        found = together(lambda p, a, way=way: comparison.largest(p, a, way), x)
        assert float((found.values - 2.5).abs().max()) < 1e-4, way


@pytest.mark.parametrize("length", [1, 2, 3, 5, 7, 17, 33])
def test_maxima_of_odd_lengths(together: Together, length: int) -> None:
    x = spread(-30, 30, 40 + length, (5, length))
    for way in ("reduction", "pairs", "tree"):
        found = together(lambda p, a, way=way: comparison.largest(p, a, way), x)
        assert float((found.values - x.amax(-1, keepdim=True)).abs().max()) < 1e-4, way


@pytest.mark.parametrize("length", [65, 197, 257, 600])
def test_softmax_of_long_rows_of_equal_scores(length: int, together: Together) -> None:
    """CrypTen's reciprocal of a sum is wrong from 254 on, and 20 % off at 250."""
    x = torch.zeros(2, length, dtype=torch.float64)
    found = together(lambda p, a: functions.softmax(p, a, maximum="tree", division="row"), x)
    assert float((found.values.sum(-1) - 1).abs().max()) < 0.05


def test_gelu_in_pieces_goes_on_where_the_tanh_form_stops(together: Together) -> None:
    x = spread(-40, 40, 50)
    found = together(lambda p, a: functions.gelu(p, a, "pieces"), x)
    assert float((found.values - torch_functional.gelu(x)).abs().max()) < 0.012
    assert (found.rounds, found.sent + found.received) == (12, 1472 * N)


def test_inverse_root_by_goldschmidt(together: Together) -> None:
    x = spread(0.02, 2.0, 51)
    found = together(lambda p, a: functions.inverse_root(p, a, "goldschmidt"), x)
    assert float(((found.values - x.rsqrt()) / x.rsqrt()).abs().max()) < 2e-3
    assert (found.rounds, found.sent + found.received) == (16, 608 * N)


def test_one_bound_or_two(together: Together) -> None:
    x = spread(-4, 4, 52)
    for low, high, rounds, size in ((-1.0, 2.0, 9, 928), (None, 0.5, 9, 464), (0.5, None, 9, 464)):
        found = together(lambda p, a, lo=low, hi=high: functions.clamp(p, a, lo, hi), x)
        assert float((found.values - x.clamp(low, high)).abs().max()) < 1e-4
        assert (found.rounds, found.sent + found.received) == (rounds, size * N)


def test_public_factors_keep_their_precision(together: Together) -> None:
    """A factor of 1/65 with 16 fraction bits would be wrong by 2.4e-4 of itself."""
    x = spread(-4, 4, 53)
    for factor in (1 / 65, 1e-5, -0.3, 3.0, 0.125, 2.2, 1000.5, -7.0):
        found = together(lambda p, a, f=factor: p.scaled(a, f), x)
        bound = 3 * 2.0**-16 + 4 * abs(factor) * 2.0**-15
        assert float((found.values - x * factor).abs().max()) < bound, factor


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_is_exact_modulo_2_64(groups: int) -> None:
    print("seed 54")
    generator = torch.Generator().manual_seed(54)
    x = torch.randint(-(2**20), 2**20, (2, 4, 9, 7), generator=generator)
    weight = torch.randint(-(2**20), 2**20, (6, 4 // groups, 3, 2), generator=generator)
    settings = {"stride": (2, 1), "padding": (1, 2), "dilation": (2, 1), "groups": groups}
    expected = torch_functional.conv2d(x.double(), weight.double(), None, *settings.values())
    assert torch.equal(ring.convolve(x, weight, **settings), expected.long())
    wrapped = ring.convolve(x + 2**61, weight, **settings)
    ones = torch.full_like(x, 2**61)
    assert torch.equal(
        wrapped - ring.convolve(ones, weight, **settings), ring.convolve(x, weight, **settings)
    )


def test_masks_of_a_party_differ_from_the_other_s_and_from_the_value() -> None:
    """A mask used twice, or zero, would show a value in what is opened."""
    request = Request(kind="multiply", shapes=((64,), (64,)), output=(64,))
    seeds = [fresh_seed(1, f"{rank}") for rank in (0, 1)]
    dealing = [Masks(RandomStream(seed), rank) for rank, seed in enumerate(seeds)]
    own = [Masks(RandomStream(seed), rank) for rank, seed in enumerate(seeds)]
    last = correction(request, *dealing)
    first, second = own[0].draw(request), own[1].draw(request)
    a, b = first[0] + second[0], first[1] + second[1]
    assert torch.equal(a * b, last + second[2])
    everything = torch.cat([*first, *second, last])
    assert len(everything.unique()) == everything.numel()
