"""CrypTen's rounds and bytes equal its own counters."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.sim.mpc.options import MpcOptions
from vitruvius.sim.mpc.protocols import FUNCTIONS, load_protocol
from vitruvius.sim.mpc.traffic import Traffic

MEASURED = json.loads((Path(__file__).parents[1] / "data" / "crypten.json").read_text())
PROTOCOL = load_protocol("crypten")


def online(function: str, *shapes: tuple[int, ...], **options: object) -> tuple[int, int]:
    found = PROTOCOL.traffic(function, shapes, MpcOptions.model_validate(options)).online
    assert found.bytes_sent == found.bytes_received
    return found.rounds, found.sent_and_received


@pytest.mark.parametrize(
    ("function", "shapes", "rounds", "size"),
    MEASURED["rows"],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_measured(function: str, shapes: list[list[int]], rounds: int, size: int) -> None:
    assert online(function, *map(tuple, shapes)) == (rounds, size)


@pytest.mark.parametrize(("function", "rounds", "size"), MEASURED["by_element"])
def test_bytes_by_element(function: str, rounds: int, size: int) -> None:
    assert online(function, (3, 5)) == (rounds, 15 * size)


def test_a_product_opens_its_operands_before_they_are_broadcast() -> None:
    assert online("multiply", (65, 256), (65, 1)) == (1, 16 * (65 * 256 + 65))
    assert online("multiply", (65, 256), (256,)) == (1, 16 * (65 * 256 + 256))


def test_weights_may_be_opened_once() -> None:
    shapes = (65, 256), (512, 256)
    assert online("linear", *shapes) == (1, 2363392)
    assert online("linear", *shapes, weights="once") == (1, 16 * 65 * 256)
    assert online("matmul", (65, 256), (256, 512), weights="once") == (1, 2363392)


def test_maximum_of_a_row() -> None:
    """By the formulas that were fitted to CrypTen's counters."""
    for n in (2, 3, 5, 17, 65, 257):
        assert online("max", (1, n), maximum="tree") == (
            9 * math.ceil(math.log2(n)),
            464 * (n - 1),
        )
        rounds, size = (
            8 + math.ceil(math.log2(n - 1)) + 10 + 1,
            432 * n * (n - 1) + 32 * n * (n - 2) + 288 + 432 * n + 32 * n,
        )
        assert online("max", (1, n), maximum="pairs") == (rounds, size)
    for kind in ("reduction", "tree", "pairs"):
        assert online("max", (7, 1), maximum=kind) == (0, 0)
        assert online("softmax", (7, 1), maximum=kind) == (37, 7 * (128 + 608 + 32))


def test_softmax_with_a_lean_tree() -> None:
    n = 65
    size = 464 * (n - 1) + 128 * n + 608 + 16 * (n + 1)
    assert online("softmax", (64, n), maximum="tree") == (9 * 7 + 37, 64 * size)


def test_division_by_element() -> None:
    n = 65
    assert online("relu_softmax", (64, n), division="element") == (38, 64 * n * (464 + 608 + 32))
    assert online("divide", (64, n), (64, 1)) == (29, 16 * (64 * n + 64) + 608 * 64)


def test_goldschmidt_takes_sixteen_rounds() -> None:
    assert online("inv_sqrt", (10,), rsqrt="goldschmidt") == (16, 6080)
    assert online("layernorm", (1, 256), rsqrt="goldschmidt") == (18, 16 * 256 + 608 + 16 * 257)


def test_gelu_by_option() -> None:
    assert online("gelu", (10,)) == (26, 8480)
    assert online("gelu", (10,), gelu="sigmoid") == (24, 7840)
    assert online("gelu", (10,), gelu="pieces") == (12, 14720)


def test_the_dealer_sends_a_word_for_each_element_of_a_product() -> None:
    """To one party; a comparison has 13 ANDs and one conversion of a bit."""

    def offline(function: str, *shapes: tuple[int, ...]) -> Traffic:
        return PROTOCOL.traffic(function, shapes).offline

    assert offline("multiply", (1024,), (1024,)) == Traffic(0, 0, 8192)
    assert offline("ltz", (1,)) == Traffic(0, 0, 13 * 8 + 8)
    assert offline("matmul", (65, 256), (256, 512)) == Traffic(0, 0, 8 * 65 * 512)
    assert offline("linear", (65, 256), (512, 256)) == Traffic(0, 0, 8 * 65 * 512)
    assert offline("exp", (1,)) == Traffic(0, 0, 64)
    free = load_protocol("crypten", dealer="tfp").traffic("multiply", ((4,), (4,)))
    assert free.offline == Traffic()
    assert free.online == Traffic(1, 64, 64)


def test_every_function_has_a_cost() -> None:
    shapes = {1: ((4, 6),), 2: ((4, 6), (4, 6)), 3: ((1, 4, 8, 8), (4, 1, 3, 3), (1, 4, 8, 8))}
    for name, function in FUNCTIONS.items():
        given: tuple[tuple[int, ...], ...] = shapes[function.shapes[0]]
        if name == "matmul":
            given = ((4, 6), (6, 4))
        if name == "convolution":
            given = ((1, 3, 8, 8), (4, 3, 2, 2))
        found = PROTOCOL.traffic(name, given)
        free = name in ("public_multiply", "scale")
        assert (found.online.rounds == 0) == free, name


@pytest.mark.parametrize(
    ("function", "shapes", "options", "text"),
    [
        ("softmx", ((4, 4),), {}, "unknown function 'softmx': did you mean 'softmax'"),
        ("relu", ((4,), (4,)), {}, "relu: expected 1 shapes, got 2"),
        ("relu", ((4, 0),), {}, "extents of at least 1, got shape 4x0"),
        ("multiply", ((4,), (5,)), {}, "shapes 4 and 5 do not broadcast"),
        ("matmul", ((4, 5), (4, 5)), {}, "...xMxK and ...xKxN, got 4x5 and 4x5"),
        ("linear", ((4, 5), (5, 4)), {}, "...xK and OxK, got 4x5 and 5x4"),
        ("convolution", ((1, 3, 8, 8), (4, 2, 2, 2)), {}, "BxCxHxW and OxCxhxw that fit"),
    ],
)
def test_refusals(
    function: str, shapes: tuple[tuple[int, ...], ...], options: dict[str, str], text: str
) -> None:
    with pytest.raises(VitruviusError, match=text.replace(".", r"\.")):
        PROTOCOL.traffic(function, shapes, MpcOptions.model_validate(options))


def test_parties_and_dealers_are_checked() -> None:
    with pytest.raises(VitruviusError, match="crypten is for 2 parties, got 3"):
        load_protocol("crypten", parties=3)
    with pytest.raises(VitruviusError, match="expected dealer ttp or tfp, got 'me'"):
        load_protocol("crypten", dealer="me")
    with pytest.raises(VitruviusError, match="unknown protocol 'cryptn': did you mean 'crypten'"):
        load_protocol("cryptn")
