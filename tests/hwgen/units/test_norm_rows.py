"""Both units that `NormRows` makes: rows in, rows out, in the stated cycles."""

from dataclasses import dataclass, field

import pytest
import torch

from vitruvius.hwgen.units import layernorm
from vitruvius.hwgen.units.ivit import layernorm as i_layernorm
from vitruvius.models.integer.ivit.layernorm import Affine
from vitruvius.models.integer.ivit.layernorm import layernorm as i_golden
from vitruvius.models.integer.layernorm import LayerNormCodes
from vitruvius.models.integer.layernorm import layernorm as golden

TOP = (1 << 31) - 1
SHIFT = 18


@dataclass
class Case:
    """A unit with its golden, on constants of a row: two numbers for each value, and ports.

    ``void``: constants with which no code gives 0.
    """

    unit: type
    cycles: object
    result_bits: int
    constant_bits: tuple[int, int]
    constants: object
    void: tuple[int, int]
    golden: object
    ports: dict[str, int] = field(default_factory=dict)


def gain_and_offset(rng):
    return rng.randint(-32768, 32767), rng.randint(-(1 << 22), 1 << 22)


def bias_and_alive(rng):
    """Biases that saturate both ways among small ones, and channels without gamma."""
    bias = rng.choice([-TOP - 1, TOP, 0, rng.randint(-(1 << 28), 1 << 28)])
    return bias, int(rng.random() < 0.8)


def edge(rng):
    epsilon = rng.choice([1, 5000])

    def results(rows, gain, offset):
        return golden(rows, LayerNormCodes(gain, offset, SHIFT, epsilon))

    ports = {"epsilon": epsilon, "affine_shift": SHIFT}
    unit = layernorm.LayerNorm
    void = (rng.randint(-32768, 32767), TOP)
    return Case(unit, layernorm.cycles, 8, (16, 32), gain_and_offset, void, results, ports)


def ivit(rng):
    def results(rows, bias, alive):
        return i_golden(rows, Affine(bias, alive, torch.ones(len(bias))))

    unit = i_layernorm.ILayerNorm
    return Case(unit, i_layernorm.cycles, 32, (32, 1), bias_and_alive, (TOP, 1), results)


def packed(values, bits):
    return sum((value & ((1 << bits) - 1)) << (bits * lane) for lane, value in enumerate(values))


def chunked(row, lanes, bits, fill):
    padded = row + [fill] * (-len(row) % lanes)
    return [packed(padded[begin : begin + lanes], bits) for begin in range(0, len(padded), lanes)]


def affine_writes(pairs, lanes, bits):
    """Port values that load the constants of values, and the one that ends loading."""
    words = [(first & ((1 << bits[0]) - 1)) | second << bits[0] for first, second in pairs]
    chunks = enumerate(chunked(words, lanes, sum(bits), 0))
    names = ("affine__enable", "affine__address", "affine__data")
    writes = [dict(zip(names, (1, address, word), strict=True)) for address, word in chunks]
    return [*writes, {"affine__enable": 0}]


@pytest.mark.parametrize("flow", ["free", "stalled"])
@pytest.mark.parametrize(("lanes", "width"), [(4, 13), (4, 16), (8, 5), (1, 3), (3, 1)])
@pytest.mark.parametrize("scheme", [edge, ivit])
def test_rows_equal_the_golden_in_the_stated_cycles(
    play_streams, rng, norm_row_examples, scheme, lanes, width, flow
):
    """Fails for a wrong result, void lanes that count or that leave as anything but 0, constants of
    another value, rows that mix, a cycle more or less.
    """
    case = scheme(rng)
    rows = norm_row_examples(rng, width)
    # Void lanes of the last chunk have codes and constants too, whose results must not leave.
    pairs = [case.constants(rng) for _ in range(width)]
    void = [case.void] * (-width % lanes)
    offers = [word for row in rows for word in chunked(row, lanes, 16, 32767)]
    patterns = {}
    if flow == "stalled":
        patterns["offering"] = [int(rng.random() < 0.5) for _ in range(97)] + [1]
        patterns["accepting"] = [int(rng.random() < 0.2) for _ in range(101)] + [1]
    taken, given = play_streams(
        case.unit(lanes=lanes, max_width=16),
        offers,
        len(offers),
        setup=affine_writes([*pairs, *void], lanes, case.constant_bits),
        width=width,
        **case.ports,
        **patterns,
    )
    first, second = (torch.tensor(values) for values in zip(*pairs, strict=True))
    results = case.golden(torch.tensor(rows), first, second).tolist()
    expected = [word for row in results for word in chunked(row, lanes, case.result_bits, 0)]
    assert [payload for _, payload in given] == expected
    if flow == "free":
        spent = given[-1][0] - taken[0]
        assert spent == case.cycles(width=width, lanes=lanes, rows=len(rows))


@pytest.mark.parametrize("unit", [layernorm.LayerNorm, i_layernorm.ILayerNorm])
def test_bad_parameters_are_named(unit):
    with pytest.raises(ValueError, match="lanes: expected at least 1, got 0"):
        unit(lanes=0)
    with pytest.raises(ValueError, match="max_width: expected 1 to 1024, got 1025"):
        unit(lanes=1, max_width=1025)
