"""Where tensors lie: nothing overflows the buffer, and every tensor has a place."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import nn

from vitruvius.models.graph import Graph
from vitruvius.models.trace import trace
from vitruvius.sim.npu.placement import ADDRESSING, PRODUCTS, Placement, place
from vitruvius.sim.npu.target import NpuTarget, load_npu


def changed(**tables: dict[str, object]) -> NpuTarget:
    fields = load_npu("edge16").model_dump(exclude_none=True)
    for table, values in tables.items():
        fields[table] |= values
    return NpuTarget.model_validate(fields)


def resident_bytes(graph: Graph, found: Placement) -> list[int]:
    """Bytes in the activation buffer while each operator runs, counted from the graph alone."""
    operators = graph.operators()
    number = {op.name: n for n, op in enumerate(operators)}
    inside = found.inside
    one = {}
    for region in graph.regions:
        for name in (region.scores, region.bias, region.softmax):
            one[name] = region.heads * region.windows
    used = [0] * len(operators)
    for op in operators:
        if found.where.get(op.name) != "chip":
            continue
        begin = number[inside.get(op.name, op.name)]
        names, end = {op.name}, begin
        for reader in operators[number[op.name] + 1 :]:
            if names & set(reader.inputs):
                end = max(end, number[inside.get(reader.name, reader.name)])
                if reader.kind in ADDRESSING:
                    names.add(reader.name)
        for step in range(begin, end + 1):
            bits = prod(op.output.shape) * found.bits[op.name]
            heads = one.get(op.name, 1)
            used[step] += min(2, heads) * -(-bits // (8 * heads))  # two at a time
    return used


@pytest.mark.parametrize("kib", [0, 2, 4, 8, 64])
def test_what_stays_fits_at_every_step(digits_graph: Graph, kib: int) -> None:
    target = changed(buffers={"activation_kib": kib})
    found = place(digits_graph, target, ())
    used = resident_bytes(digits_graph, found)
    assert max(used) <= kib * 1024
    assert found.peak_bytes == max(used)


class Crossing(nn.Module):
    """A tensor that a sum reads in the tiles of an early product, and a softmax after that."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        early = torch.relu(x)
        product = self.linear(x)
        late = torch.softmax(early, -1)
        return (product + early) * late


def test_a_tensor_stays_until_its_last_reader_in_time() -> None:
    """Not until the one that is last in the graph's order, whose work is done earlier."""
    graph = trace(Crossing(), (torch.zeros(1, 16, 64),), name="crossing")
    found = place(graph, changed(buffers={"activation_kib": 64}), ())
    assert any(found.behind.values())
    assert found.peak_bytes == max(resident_bytes(graph, found))
    assert found.peak_bytes == 16 * 64 * (1 + 2 + 2)  # beside the softmax: early, the sum, late


def test_a_larger_buffer_keeps_more(digits_graph: Graph) -> None:
    kept = []
    for kib in (0, 2, 4, 8, 64):
        found = place(digits_graph, changed(buffers={"activation_kib": kib}), ())
        kept.append(sum(where == "chip" for where in found.where.values()))
    assert kept[0] == 0
    assert kept == sorted(kept)
    assert kept[-1] > kept[0]


def test_what_comes_in_and_goes_out_is_in_dram(digits_graph: Graph) -> None:
    found = place(digits_graph, changed(buffers={"activation_kib": 4096}), ())
    for op in digits_graph.operators():
        if op.kind in ("Input", "Constant"):
            assert found.where[op.name] == "dram"
        if op.kind == "Output":
            assert found.where[found.base[op.name]] == "dram"


def test_results_for_the_host_go_through_dram(digits_graph: Graph) -> None:
    """Softmax on the host: it reads scores from DRAM and leaves its weights there."""
    target = changed(buffers={"activation_kib": 4096})
    softmax = next(op for op in digits_graph.operators() if op.kind == "Softmax")
    found = place(digits_graph, target, {softmax.name})
    assert found.where[softmax.name] == "dram"
    assert found.where[found.base[softmax.inputs[0]]] == "dram"


def test_elementwise_operators_work_on_the_tiles_before_them(digits_graph: Graph) -> None:
    """GELU behind fc1; the residual behind proj and fc2. Catches an operand of a fused sum that is
    written only after the product began.
    """
    found = place(digits_graph, load_npu("edge16"), ())
    assert found.behind["blocks.0.mlp.fc1"] == ("blocks.0.mlp.act",)
    assert found.behind["blocks.0.attn.proj"] == ("blocks.0.add",)
    number = {op.name: n for n, op in enumerate(digits_graph.operators())}
    for product, names in found.behind.items():
        assert digits_graph.operator(product).kind in PRODUCTS
        for name in names:
            others = set(digits_graph.operator(name).inputs) - {product, *names}
            for other in others:
                kind = digits_graph.operator(other).kind
                assert kind == "Constant" or number[other] < number[product]
    apart = place(digits_graph, changed(vector={"fused": False}), ())
    assert not any(apart.behind.values())


def test_widths_are_i_vits(digits_graph: Graph) -> None:
    """16 bits in the residual stream, what goes into it, and behind softmax; 8 elsewhere."""
    bits = place(digits_graph, load_npu("edge16"), ()).bits
    sixteen = ["blocks.0.add", "blocks.0.attn.proj", "blocks.0.mlp.fc2", "blocks.0.attn.softmax"]
    eight = ["blocks.0.norm1", "blocks.0.attn.qkv", "blocks.0.attn.scores", "blocks.0.mlp.act"]
    assert {bits[name] for name in sixteen} == {16}
    assert {bits[name] for name in eight} == {8}
    assert bits["patch_embed"] == 16  # nothing but the embedding's sum reads it
