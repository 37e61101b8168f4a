"""Replacements compute their formulas, in sound graphs, and cost what they were measured at."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.models.graph import Operator, check, execute
from vitruvius.models.trace import trace
from vitruvius.sim.mpc.operators import mpc_traffic
from vitruvius.sim.mpc.protocols import load_protocol
from vitruvius.sim.mpc.replacements import replaced

from .encoders import encoder

SEED = 20241


class _Softmax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.softmax(x, dim=-1)


class _Gelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(x)


SOFTMAX = {
    "relu": lambda x: functional.relu(x) / (functional.relu(x).sum(-1, keepdim=True) + 1e-5),
    "2quad": lambda x: (x + 5) ** 2 / ((x + 5) ** 2).sum(-1, keepdim=True),
    "scale": lambda x: x / x.shape[-1],
}
GELU = {
    "quad": lambda x: 0.125 * x**2 + 0.25 * x + 0.5,
    "relu": functional.relu,
    "identity": lambda x: x,
}


@pytest.mark.parametrize("kind", sorted(SOFTMAX))
def test_softmax_is_replaced_by_its_formula(kind: str) -> None:
    print("seed", SEED)
    x = torch.randn(1, 2, 5, 7, generator=torch.Generator().manual_seed(SEED))
    graph = trace(_Softmax().eval(), (x,), name="softmax")
    found = replaced(graph, softmax=kind)
    check(found)
    assert "Softmax" in {op.kind for op in graph.operators()}
    assert "Softmax" not in {op.kind for op in found.operators()}
    torch.testing.assert_close(execute(found, x), SOFTMAX[kind](x))


@pytest.mark.parametrize("kind", sorted(GELU))
def test_gelu_is_replaced_by_its_formula(kind: str) -> None:
    print("seed", SEED)
    x = torch.randn(1, 5, 7, generator=torch.Generator().manual_seed(SEED))
    found = replaced(trace(_Gelu().eval(), (x,), name="gelu"), gelu=kind)
    check(found)
    torch.testing.assert_close(execute(found, x), GELU[kind](x))


def test_a_whole_encoder_stays_sound() -> None:
    graph = encoder("CIFAR", 2)
    assert replaced(graph) is graph
    for softmax in (None, *SOFTMAX):
        for gelu in (None, *GELU):
            found = replaced(graph, softmax=softmax, gelu=gelu)
            check(found)
            kinds = {op.kind for op in found.operators()}
            assert ("Softmax" in kinds) == (softmax is None)
            assert ("Gelu" in kinds) == (gelu is None)
    assert len(graph.regions) == 2


def test_cost_of_replacements_in_crypten() -> None:
    """On 64 x 65, as CrypTen counted them."""
    graph = trace(_Softmax().eval(), (torch.zeros(1, 64, 65),), name="softmax")
    expected = {"relu": (38, 2036736), "2quad": (30, 173056), "scale": (0, 0)}
    for kind, (rounds, size) in expected.items():
        found = replaced(graph, softmax=kind)
        traffic = mpc_traffic(found, load_protocol("crypten"))
        own = [item.online for name, item in traffic.items() if name not in found.outputs]
        assert sum(item.rounds for item in own) == rounds
        assert sum(item.sent_and_received for item in own) == size


def test_scale_goes_into_the_product_before_it() -> None:
    """As S / N is written into one factor, attention and all else the same."""
    print("seed", SEED)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(SEED))
    graph = encoder("CIFAR", 1)
    scores: list[Tensor] = []
    found = replaced(graph, softmax="scale")

    def see(op: Operator, value: Tensor) -> None:
        if op.kind == "MatMul":
            scores.append(value)

    execute(graph, x, observe=see)
    execute(found, x, observe=see)
    torch.testing.assert_close(scores[2], scores[0] / 65)
    assert "Mul" not in {op.kind for op in found.operators()}


def test_unknown_replacements() -> None:
    graph = encoder("CIFAR", 1)
    with pytest.raises(VitruviusError, match="softmax: expected relu, 2quad, scale, got 'sparse'"):
        replaced(graph, softmax="sparse")
    with pytest.raises(VitruviusError, match="gelu: expected quad, relu, identity, got 'none'"):
        replaced(graph, gelu="none")
