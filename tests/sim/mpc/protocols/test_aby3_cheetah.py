"""ABY3's averages and CHEETAH's bytes beside what SPU counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.sim.mpc.operators import mpc_traffic, setup_traffic
from vitruvius.sim.mpc.options import MpcOptions
from vitruvius.sim.mpc.protocols import load_protocol
from vitruvius.sim.mpc.protocols.cheetah import ciphertexts
from vitruvius.sim.mpc.replacements import replaced

from ..encoders import encoder

DATA = Path(__file__).parents[1] / "data"
ABY3 = json.loads((DATA / "aby3.json").read_text())
CHEETAH = json.loads((DATA / "cheetah.json").read_text())
BY_ELEMENT = MpcOptions(division="element")


@pytest.mark.parametrize(("function", "fewest", "most", "size"), ABY3["by_element"])
def test_aby3_by_element(function: str, fewest: int, most: int, size: float) -> None:
    shapes = ((1000,),) * (2 if function in ("multiply", "divide") else 1)
    found = load_protocol("aby3").traffic(function, shapes, BY_ELEMENT).online
    assert fewest <= found.rounds <= most
    assert abs(found.bytes_sent / 1000 - size) < 0.051


@pytest.mark.parametrize(("function", "shapes", "fewest", "most", "size", "digit"), ABY3["rows"])
def test_aby3_by_row(
    function: str, shapes: list[list[int]], fewest: int, most: int, size: float, digit: float
) -> None:
    given = tuple(tuple(shape) for shape in shapes)
    found = load_protocol("aby3").traffic(function, given, BY_ELEMENT).online
    assert fewest <= found.rounds <= most
    assert abs(found.bytes_sent - size) <= digit


def test_aby3_has_three_parties() -> None:
    assert load_protocol("aby3", parties=3).parties == 3
    with pytest.raises(VitruviusError, match="aby3 is for 3 parties, got 4"):
        load_protocol("aby3", parties=4)


@pytest.mark.parametrize(("function", "sent", "received"), CHEETAH["by_element"])
def test_cheetah_by_element(function: str, sent: float, received: float) -> None:
    found = load_protocol("cheetah").traffic(function, ((100_000,),)).online
    assert found.bytes_sent == pytest.approx(100_000 * sent)
    assert found.bytes_received == pytest.approx(100_000 * received)


@pytest.mark.parametrize(("m", "k", "n", "request_mib", "answer_mib"), CHEETAH["matrices_mib"])
def test_cheetahs_ciphertexts(
    m: int, k: int, n: int, request_mib: float, answer_mib: float
) -> None:
    sent, answered = ciphertexts(m, k, n)
    assert sent * 0.529 / 3 == pytest.approx(request_mib, abs=0.001)
    assert answered * 2.183 / 18 == pytest.approx(answer_mib, abs=0.001)


@pytest.mark.parametrize(("attention", "activation", "sent", "received"), CHEETAH["blocks_mb"])
def test_cheetahs_blocks(attention: str, activation: str, sent: float, received: float) -> None:
    """Fits to these four blocks: within 2 %, keys and transfers at the start included."""
    graph = encoder("CIFAR", 1)
    graph = replaced(
        graph,
        softmax=None if attention == "softmax" else attention,
        gelu=None if activation == "gelu" else activation,
    )
    protocol = load_protocol("cheetah")
    traffic = [item.online for item in mpc_traffic(graph, protocol).values()]
    setup = setup_traffic(graph, protocol)
    assert sum(item.bytes_sent for item in [*traffic, setup]) == pytest.approx(sent * 1e6, rel=0.02)
    total = sum(item.bytes_received for item in [*traffic, setup])
    assert total == pytest.approx(received * 1e6, rel=0.02)
