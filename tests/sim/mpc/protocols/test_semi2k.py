"""SEMI2K's sent bytes are those that SPU counted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.sim.mpc.options import MpcOptions
from vitruvius.sim.mpc.protocols import load_protocol

MEASURED = json.loads((Path(__file__).parents[1] / "data" / "semi2k.json").read_text())
PROTOCOL = load_protocol("semi2k")


def sent(function: str, *shapes: tuple[int, ...], **options: object) -> tuple[int, int]:
    found = PROTOCOL.traffic(function, shapes, MpcOptions.model_validate(options)).online
    assert found.bytes_sent == found.bytes_received
    return found.rounds, found.bytes_sent


@pytest.mark.parametrize(("function", "rounds", "size"), MEASURED["by_element"])
def test_bytes_by_element(function: str, rounds: int, size: int) -> None:
    shapes = ((3, 5),) * (2 if function in ("multiply", "divide") else 1)
    assert sent(function, *shapes) == (rounds, 15 * size)


@pytest.mark.parametrize(("function", "division", "rounds", "line"), MEASURED["by_row"])
def test_bytes_by_row(function: str, division: str, rounds: str, line: list[int]) -> None:
    for n in (2, 5, 65, 257):
        name, _, constant = rounds.partition("*log2")
        expected = (
            int(name) * math.ceil(math.log2(n)) + int(constant or 0)
            if constant or ("log2" in rounds)
            else int(rounds)
        )
        found = sent(function, (7, n), division=division)
        assert found == (expected, 7 * (line[0] + line[1] * n))


def test_a_product_of_matrices() -> None:
    assert sent("matmul", (64, 32), (32, 16)) == (2, 8 * (64 * 32 + 32 * 16) + 4 * 64 * 16)
    assert sent("linear", (64, 32), (16, 32), weights="once") == (2, 8 * 64 * 32 + 4 * 64 * 16)


def test_division_by_broadcast_scalar() -> None:
    """Issue spu#1119: 3 x 4 numbers by one, 6300 bytes by element and 745 by row."""
    assert sent("divide", (3, 4), (1,), division="element") == (38, 6300)
    assert sent("divide", (3, 4), (1,)) == (38, 745)


def test_options_and_functions_that_it_does_not_have() -> None:
    for options, text in (
        ({"maximum": "pairs"}, "maximum is reduction or tree, got pairs"),
        ({"gelu": "pieces", "rsqrt": "goldschmidt"}, "gelu is .*; rsqrt is newton, got"),
        ({"fraction_bits": 16}, "fraction_bits is 18, got 16"),
    ):
        with pytest.raises(VitruviusError, match=text):
            PROTOCOL.traffic("relu", ((4,),), MpcOptions.model_validate(options))
    with pytest.raises(VitruviusError, match="semi2k has no figures for polynomial4"):
        PROTOCOL.traffic("polynomial4", ((4,),))
    with pytest.raises(VitruviusError, match="semi2k is for 2 parties, got 5"):
        load_protocol("semi2k", parties=5)
