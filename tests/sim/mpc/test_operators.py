"""The traffic of whole models equals what CrypTen and SPU counted; operators without a protocol."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from vitruvius.errors import VitruviusError
from vitruvius.models.graph import Graph, Operator, TensorSpec, check
from vitruvius.models.trace import trace
from vitruvius.sim.mpc.operators import mpc_traffic, refusals, setup_traffic
from vitruvius.sim.mpc.options import MpcOptions
from vitruvius.sim.mpc.protocols import load_protocol
from vitruvius.sim.mpc.replacements import replaced
from vitruvius.sim.mpc.traffic import NOTHING, Traffic

from .encoders import encoder

DATA = Path(__file__).parent / "data"
CRYPTEN = json.loads((DATA / "crypten.json").read_text())["models"]
SEMI2K = json.loads((DATA / "semi2k.json").read_text())["models"]
NORMALISER = ("Softmax", "Relu", "Sum", "Add", "Pow", "Div", "Mul")


def replacing(graph: Graph, attention: str, activation: str = "gelu") -> Graph:
    return replaced(
        graph,
        softmax=None if attention == "softmax" else attention,
        gelu=None if activation == "gelu" else activation,
    )


def without_output(graph: Graph, protocol: str, **options: object) -> dict[str, Traffic]:
    """What was measured does not hold the opening of the result."""
    chosen = MpcOptions.model_validate(options)
    found = mpc_traffic(graph, load_protocol(protocol), chosen)
    assert found.keys() == {op.name for op in graph.operators()}
    return {name: item.online for name, item in found.items() if name not in graph.outputs}


@pytest.mark.parametrize("attention", ["softmax", "2quad", "scale"])
def test_crypten_counted_the_cifar_vit(attention: str) -> None:
    graph = replacing(encoder("CIFAR"), attention)
    traffic = without_output(graph, "crypten")
    measured = CRYPTEN[attention]
    assert sum(item.rounds for item in traffic.values()) == measured["rounds"]
    assert sum(item.sent_and_received for item in traffic.values()) == measured["bytes"]
    rounds: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for name, item in traffic.items():
        op = graph.operator(name)
        part = {"MatMul": "products", "Gelu": "activation", "Linear": "linear"}.get(
            op.kind, op.kind
        )
        if op.kind == "Linear" and op.output.shape[-1] == 10:
            part = "head"
        if op.kind in NORMALISER:
            part = "attention norm"
        rounds[part] += item.rounds
        size[part] += item.sent_and_received
    for part, (expected_rounds, expected_bytes) in measured["parts"].items():
        assert (rounds[part], size[part]) == (expected_rounds, expected_bytes), part


@pytest.mark.parametrize(
    ("model", "layers", "attention", "activation", "by_element", "by_row", "actions"),
    SEMI2K,
    ids=str,
)
def test_spu_counted_whole_models(
    model: str,
    layers: int,
    attention: str,
    activation: str,
    by_element: int,
    by_row: int,
    actions: int,
) -> None:
    graph = replacing(encoder(model, layers), attention, activation)
    for division, expected in (("element", by_element), ("row", by_row)):
        traffic = without_output(graph, "semi2k", division=division)
        assert sum(item.bytes_sent for item in traffic.values()) == expected
        assert sum(item.rounds for item in traffic.values()) == actions


def test_heads_apart_multiply_the_rounds_of_attention_only() -> None:
    graph = encoder("CIFAR", 1)
    together = without_output(graph, "crypten")
    apart = without_output(graph, "crypten", heads="apart")
    for name, item in apart.items():
        kind = graph.operator(name).kind
        assert item.bytes_sent == together[name].bytes_sent
        times = 4 if kind in ("MatMul", "Softmax") else 1
        assert item.rounds == times * together[name].rounds
    product = next(op.name for op in graph.operators() if op.kind == "MatMul")
    spu = [
        without_output(graph, "semi2k", heads=how)[product].rounds for how in ("batched", "apart")
    ]
    assert spu == [4 * 2 + 1, 4 * (2 + 1)]  # products one by one anyway, then the scale


def test_weights_opened_once_leave_the_images() -> None:
    graph = encoder("CIFAR", 1)
    options = MpcOptions(weights="once")
    protocol = load_protocol("crypten")
    each = without_output(graph, "crypten")
    once = without_output(graph, "crypten", weights="once")
    saved = sum(each[name].bytes_sent - once[name].bytes_sent for name in each)
    weights = 256 * 48 + (3 + 1 + 2 + 2) * 256 * 256 + 10 * 256
    assert saved == 8 * weights
    assert setup_traffic(graph, protocol, options) == Traffic(1, 8 * weights, 8 * weights)
    assert setup_traffic(graph, protocol) == Traffic()


class _Owned(nn.Module):
    """What the owner computes alone costs nothing; a product with it does."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.exp(self.table) + 2.0 * x


def test_operators_without_secret_operands_are_free() -> None:
    graph = trace(_Owned().eval(), (torch.zeros(3, 4)[None],), name="owned")
    traffic = mpc_traffic(graph, load_protocol("crypten"))
    kinds = {op.name: op.kind for op in graph.operators()}
    costs = sorted(
        (kinds[name], item.online.rounds, item.online.sent_and_received)
        for name, item in traffic.items()
        if item != NOTHING
    )
    assert costs == [("Mul", 1, 16 * (12 + 4)), ("Output", 1, 16 * 12)]


class _Impossible(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.erf(x) + torch.sin(x) * torch.pow(x, 1.5)


def test_operators_without_protocol_are_listed_at_once_with_advice() -> None:
    graph = trace(_Impossible().eval(), (torch.zeros(1, 4),), name="impossible")
    with pytest.raises(VitruviusError) as caught:
        mpc_traffic(graph, load_protocol("crypten"))
    text = str(caught.value)
    assert "impossible: 3 operators have no protocol" in text
    assert "Erf: use the tanh form of GELU" in text
    assert "Sin: replace it by a polynomial" in text
    assert "Pow: no protocol here has the exponent 1.5" in text
    partial = mpc_traffic(graph, load_protocol("crypten"), skip_unmapped=True)
    assert sum(item.online.rounds for item in partial.values()) == 2  # the product and the output


def test_functions_that_one_protocol_lacks_are_told() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.LogSoftmax(-1)).eval()
    graph = trace(module, (torch.zeros(1, 4),), name="logits")
    found = refusals(graph, load_protocol("aby3"))
    assert list(found.values()) == [
        "LogSoftmax: protocol aby3 has no figures for log; replace it, or take protocol crypten"
    ]
    assert not refusals(graph, load_protocol("crypten"))


def test_only_crypten_has_convolutions_in_groups() -> None:
    """SPU fails on them, so that there is nothing to count."""
    module = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ConvTranspose2d(4, 2, 2)).eval()
    graph = trace(module, (torch.zeros(1, 4, 8, 8),), name="grouped")
    found = refusals(graph, load_protocol("semi2k"))
    assert [reason.partition(":")[0] for reason in found.values()] == ["Conv2d", "ConvTranspose2d"]
    traffic = mpc_traffic(graph, load_protocol("crypten"))
    sizes = [item.online.sent_and_received for item in traffic.values() if item.online.rounds]
    assert sizes == [16 * (256 + 36), 16 * (4 * 36 + 4 * 2 * 4), 16 * 2 * 49]


def test_numbers_without_axes_vectors_and_nothing() -> None:
    """A sum [], its SiLU, a product of two vectors [4], and a tensor without elements."""

    def op(name: str, kind: str, inputs: str, shape: tuple[int, ...], **more: object) -> Operator:
        spec = TensorSpec(shape, "float32")
        return Operator(name, kind, "", "", tuple(inputs.split()), spec, more)  # type: ignore[arg-type]

    graph = Graph(
        "scalar",
        [
            op("x", "Input", "", (4,)),
            op("y", "Input", "", (4,)),
            op("sum", "Sum", "x", (), dims=(0,), keepdim=False),
            op("silu", "Silu", "sum", ()),
            op("dot", "MatMul", "x y", (), transpose_b=False, scale=1.0),
            op("none", "Select", "x", (0,), op="slice", dim=0, start=0, stop=0, step=1),
            op("relu", "Relu", "none", (0,)),
            op("total", "Sum", "relu", (), dims=(0,), keepdim=False),
            op("both", "Add", "silu dot", ()),
            op("all", "Add", "both total", ()),
            op("output", "Output", "all", ()),
        ],
        {},
    )
    check(graph)
    traffic = mpc_traffic(graph, load_protocol("crypten"))
    found = {name: item.online.sent_and_received for name, item in traffic.items()}
    assert {name: size for name, size in found.items() if size} == {
        "silu": 784,
        "dot": 16 * 8,
        "output": 16,
    }
