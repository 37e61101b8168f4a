"""Estimates of secure inference: totals, readings, what dominates, settings."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from vitruvius.errors import VitruviusError
from vitruvius.models.trace import trace
from vitruvius.sim.mpc.report import estimate_mpc
from vitruvius.sim.mpc.target import load_mpc, mpc_settings, setting_values

from .encoders import encoder


def test_the_cifar_vit_on_cheetahs_wan() -> None:
    """CrypTen's 1316 rounds and 451,640,192 bytes, and the logits: rounds of 20 ms or 40 ms, half
    the bytes at 50 MB/s.
    """
    found = estimate_mpc(encoder("CIFAR"), "mpc:crypten-wan")
    rounds, sent = 1316 + 1, (451_640_192 + 160) // 2
    assert (found.online.rounds, found.online.bytes_sent) == (rounds, sent)
    assert found.online.sent_and_received == 2 * sent
    network = rounds * 0.020 + sent / 50e6
    assert found.latency_s == pytest.approx(network + found.compute_s)
    assert found.readings["overlap"] == pytest.approx(found.latency_s)
    assert found.readings["acknowledged"] == pytest.approx(found.latency_s + rounds * 0.020)
    assert found.traffic_bytes["sent"] == sent
    assert found.offline.bytes_received == found.traffic_bytes["from the dealer"] > 0
    assert not found.unmapped
    assert (found.cycles, found.clock_hz, found.energy_j) == (0, 0.0, 0.0)
    json.dumps(found.record(), allow_nan=False)


def test_operators_and_kinds_add_up_and_each_names_what_dominates() -> None:
    graph = encoder("CIFAR", 1)
    found = estimate_mpc(graph, "mpc:crypten-lan")
    assert [detail.name for detail in found.mpc] == [op.name for op in graph.operators()]
    assert sum(detail.latency_s for detail in found.mpc) == pytest.approx(found.latency_s)
    assert sum(kind.online.rounds for kind in found.kinds) == found.online.rounds
    assert sum(kind.online.bytes_sent for kind in found.kinds) == found.online.bytes_sent
    for detail in found.mpc:
        parts = {
            "rounds": detail.rounds_s,
            "bytes": detail.transfer_s,
            "compute": detail.compute_s,
        }
        assert math.isclose(sum(parts.values()), detail.latency_s)
        if detail.online.rounds:
            assert parts[detail.dominant] == max(parts.values())
        else:
            assert detail.dominant == ""
            assert detail.reason.startswith("none: ")
    for network, dominant in (("spu-slow", "bytes"), ("wan", "rounds"), ("lan", "compute")):
        details = estimate_mpc(graph, f"mpc:crypten-{network}").mpc
        gelu = next(detail for detail in details if detail.kind == "Gelu")
        assert gelu.dominant == dominant  # of 14 MB and 26 rounds, each way
        assert gelu.calls == ("gelu",)


def test_options_have_the_gains_that_they_promise() -> None:
    graph = encoder("CIFAR")
    plain = estimate_mpc(graph, "mpc:crypten-wan")
    tree = estimate_mpc(graph, load_mpc("mpc:crypten-wan", mpc_settings(["maximum=tree"])))
    # A lean tree of 65: 63 rounds instead of 78, in each of seven layers
    assert plain.online.rounds - tree.online.rounds == 7 * (78 - 63)
    replaced = mpc_settings(["softmax=scale", "gelu=identity"])
    cheap = estimate_mpc(graph, load_mpc("mpc:crypten-wan", replaced))
    kinds = {kind.kind for kind in cheap.kinds}
    assert kinds == {"LayerNorm", "Linear", "MatMul", "Conv2d", "Output"}
    assert any("every softmax is replaced" in item.text for item in cheap.assumptions)


def test_what_has_no_protocol_is_listed_and_warned_of() -> None:
    class Rounded(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.round(x) * x

    graph = trace(Rounded().eval(), (torch.zeros(1, 4),), name="rounded")
    found = estimate_mpc(graph, "mpc:crypten-lan")
    assert [reason for _, reason in found.unmapped] == [
        "Round: rounding a secret opens its bits; leave it out"
    ]
    assert found.warnings == ("totals are without 1 operators that have no protocol: Round",)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("mpc:crypten", "unknown target 'mpc:crypten'"),
        ("mpc:crypt-lan", "did you mean 'mpc:crypten-lan'"),
        ("mpc:crypten-moon", "unknown network 'moon'"),
        ("mpc:crypten:none.toml", "network file none.toml cannot be read"),
    ],
)
def test_unknown_targets(spec: str, text: str) -> None:
    with pytest.raises(VitruviusError, match=text.replace("(", r"\(")):
        load_mpc(spec)


@pytest.mark.parametrize(
    ("texts", "text"),
    [
        (["maximum"], "expected KEY=VALUE, got 'maximum'"),
        (["maximun=tree"], "no setting 'maximun', did you mean 'maximum'"),
        (["maximum=tree,maximum=tree"], "maximum is given more than once"),
        (
            ["maximum=bush", "gelu=exact"],
            "maximum: expected reduction, tree, pairs, got 'bush'; gelu: expected tanh, sigmoid, "
            "pieces, quad, relu, identity, got 'exact'",
        ),
        (["fraction_bits=70"], "fraction_bits: expected a whole number from 1 to 60, got '70'"),
        (["parties=two"], "parties: expected a whole number, got 'two'"),
    ],
)
def test_bad_settings(texts: list[str], text: str) -> None:
    with pytest.raises(VitruviusError) as caught:
        mpc_settings(texts)
    assert text in str(caught.value)


def test_settings_that_a_protocol_does_not_have() -> None:
    with pytest.raises(VitruviusError, match="crypten is for 2 parties, got 3"):
        load_mpc("mpc:crypten-lan", mpc_settings(["parties=3"]))
    with pytest.raises(VitruviusError, match="protocol aby3: weights is each, got once"):
        load_mpc("mpc:aby3-lan", mpc_settings(["weights=once"]))
    assert setting_values()["softmax"] == "relu, 2quad, scale"
