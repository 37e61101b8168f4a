"""The passes that bring attention to one form: what they fold and what they must leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from vitruvius.models.attention_forms import straighten_attention
from vitruvius.models.attention_products import absorb_transposes, fold_scales
from vitruvius.models.attention_regions import find_regions
from vitruvius.models.folding import fold_batch_norms, fold_channel_factors
from vitruvius.models.graph import (
    AttentionRegion,
    Graph,
    Operator,
    TensorSpec,
    check,
    execute,
    execute_all,
    violations,
)
from vitruvius.models.passes import (
    drop_identities,
    merge_views,
    raise_attention,
    raise_graph,
    remove_dead,
)
from vitruvius.models.written_out import (
    merge_twins,
    recognise_activations,
    recognise_norms,
    recognise_softmax,
)

SEED = 9


def op(
    name: str, kind: str, inputs: str, size: tuple[int, ...], /, **attributes: object
) -> Operator:
    tensors = {"value": name} if kind == "Constant" else {}
    output = TensorSpec(size, "float32")
    names = tuple(inputs.split())
    return Operator(name, kind, "", "", names, output, attributes, tensors)  # type: ignore[arg-type]


def product(name: str, inputs: str, shape: tuple[int, ...], transpose_b: bool = False) -> Operator:
    return op(name, "MatMul", inputs, shape, transpose_b=transpose_b, scale=1.0)


def hand_written() -> Graph:
    """softmax((2 q) (k^T permuted) / 8 + bias) v over 4 queries, 5 keys, 2 heads of 3."""
    operators = [
        op("q", "Input", "", (1, 2, 4, 3)),
        op("k", "Input", "", (1, 5, 2, 3)),
        op("v", "Input", "", (1, 2, 5, 6)),
        op("two", "Constant", "", (), number=2.0),
        op("eighth", "Constant", "", (1,)),
        op("bias", "Constant", "", (2, 4, 5)),
        op("scaled", "Mul", "q two", (1, 2, 4, 3)),
        op("keys", "View", "k", (1, 2, 3, 5), op="permute", dims=(0, 2, 3, 1)),
        product("scores", "scaled keys", (1, 2, 4, 5)),
        op("divided", "Mul", "eighth scores", (1, 2, 4, 5)),
        op("biased", "Add", "bias divided", (1, 2, 4, 5)),
        op("share", "Softmax", "biased", (1, 2, 4, 5), dim=-1),
        product("apply", "share v", (1, 2, 4, 6)),
        op("out", "Output", "apply", (1, 2, 4, 6)),
    ]
    generator = torch.Generator().manual_seed(SEED)
    tensors = {
        "two": torch.tensor(2.0),
        "eighth": torch.tensor([0.125]),
        "bias": torch.randn(2, 4, 5, generator=generator),
    }
    return Graph("hand", operators, tensors)


def inputs(graph: Graph) -> list[torch.Tensor]:
    print("seed", SEED)
    generator = torch.Generator().manual_seed(SEED)
    shapes = [graph.operator(name).output.shape for name in graph.inputs]
    return [torch.randn(3, *shape[1:], generator=generator) for shape in shapes]


def with_operator(graph: Graph, name: str, change: Callable[[Operator], Operator]) -> Graph:
    operators = [change(item) if item.name == name else item for item in graph.operators()]
    return Graph(graph.name, operators, graph.tensors)


def with_second_reader(graph: Graph, name: str) -> Graph:
    """The same graph with ``name`` as another output."""
    shape = graph.operator(name).output.shape
    return Graph(graph.name, [*graph.operators(), op("more", "Output", name, shape)], graph.tensors)


def test_everything_folds_into_one_region_and_the_result_stays() -> None:
    graph = hand_written()
    check(graph)
    raised = raise_attention(graph)
    check(raised)
    q, k, v = inputs(graph)
    expected = torch.softmax((2 * q) @ k.permute(0, 2, 3, 1) / 8 + graph.tensors["bias"], -1) @ v
    torch.testing.assert_close(execute(raised, q, k, v), expected, rtol=0, atol=1e-5)
    (region,) = raised.regions
    assert (region.heads, region.tokens, region.keys, region.head_dim) == (2, 4, 5, 3)
    assert (region.scale, region.bias) == (0.25, "biased")
    scores = raised.operator("scores")
    assert scores.attributes == {"transpose_b": True, "scale": 0.25}
    assert raised.operator(scores.inputs[1]).output.shape == (1, 2, 5, 3)
    assert [item.kind for item in raised.operators()].count("Mul") == 0
    assert set(raised.tensors) == {"bias"}


PASSES = [
    absorb_transposes,
    drop_identities,
    find_regions,
    fold_batch_norms,
    fold_channel_factors,
    fold_scales,
    merge_twins,
    merge_views,
    raise_attention,
    raise_graph,
    recognise_activations,
    recognise_norms,
    recognise_softmax,
    remove_dead,
    straighten_attention,
]


@pytest.mark.parametrize("apply", PASSES)
def test_no_pass_changes_its_input_or_the_result(apply: Callable[[Graph], Graph]) -> None:
    graph = hand_written()
    before, tensors = graph.operators(), dict(graph.tensors)
    after = apply(graph)
    assert graph.operators() == before
    assert graph.tensors == tensors
    assert graph.regions == ()
    check(after)
    values = inputs(graph)
    torch.testing.assert_close(execute(after, *values), execute(graph, *values), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "scale"), [("scaled", 0.125), ("scores", 2.0), ("divided", 0.25)])
def test_a_value_that_others_see_keeps_its_scale(name: str, scale: float) -> None:
    graph = with_second_reader(hand_written(), name)
    folded = fold_scales(graph)
    check(folded)
    assert folded.operator("scores").attributes["scale"] == scale
    values = inputs(graph)
    for ours, theirs in zip(execute_all(folded, *values), execute_all(graph, *values), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_factor_of_several_numbers_stays() -> None:
    graph = hand_written()
    operators = [
        replace(item, output=TensorSpec((2, 1, 1), "float32")) if item.name == "eighth" else item
        for item in graph.operators()
    ]
    tensors = {**graph.tensors, "eighth": torch.tensor([0.1, 0.2]).reshape(2, 1, 1)}
    folded = fold_scales(Graph("g", operators, tensors))
    assert folded.operator("divided").kind == "Mul"
    assert folded.operator("scores").attributes["scale"] == 2.0


def test_what_is_no_attention_is_no_region() -> None:
    graph = hand_written()
    over_queries = with_operator(graph, "share", lambda o: replace(o, attributes={"dim": 2}))
    assert raise_attention(over_queries).regions == ()
    assert raise_attention(with_second_reader(graph, "share")).regions == ()
    assert len(raise_attention(graph).regions) == 1


def test_dead_operators_go_and_inputs_stay() -> None:
    spec = TensorSpec((1, 2, 4, 3), "float32")
    graph = with_operator(hand_written(), "out", lambda o: replace(o, inputs=("q",), output=spec))
    left = remove_dead(graph)
    assert [item.name for item in left.operators()] == ["q", "k", "v", "out"]
    assert left.tensors == {}


def test_a_region_is_held_to_its_heads_and_windows() -> None:
    """The scores are [1, 2, 4, 5] of 3 features: 2 heads in 1 window."""
    graph = raise_attention(hand_written())
    (region,) = graph.regions

    def broken(changed: AttentionRegion) -> list[str]:
        return violations(Graph("g", graph.operators(), graph.tensors, regions=[changed]))

    assert broken(region) == []
    assert broken(replace(region, heads=1, windows=2)) == []
    assert broken(replace(region, windows=2)) == [
        "regions: region scores: 2 windows of 2 heads, operator (1, 2, 4, 5)"
    ]
    assert broken(replace(region, head_dim=6)) == [
        "regions: region scores: heads of 6, its queries are not"
    ]


def test_sums_with_zeros_go_and_sums_that_repeat_stay() -> None:
    """A zero that makes the sum larger than the operand repeats it."""
    operators = [
        op("x", "Input", "", (1, 4)),
        op("zero", "Constant", "", (4,)),
        op("wide", "Constant", "", (3, 4)),
        op("same", "Add", "zero x", (1, 4)),
        op("repeated", "Add", "same wide", (3, 4)),
        op("out", "Output", "repeated", (3, 4)),
    ]
    graph = Graph("g", operators, {"zero": torch.zeros(4), "wide": torch.zeros(3, 4)})
    left = drop_identities(graph)
    check(left)
    assert [item.name for item in left.operators()] == ["x", "wide", "repeated", "out"]


def test_views_that_undo_each_other_go() -> None:
    operators = [
        op("x", "Input", "", (1, 2, 3)),
        op("turned", "View", "x", (1, 3, 2), op="permute", dims=(0, 2, 1)),
        op("back", "View", "turned", (1, 2, 3), op="permute", dims=(0, 2, 1)),
        op("flat", "View", "back", (1, 6), op="reshape", shape=(-1, 6)),
        op("cut", "View", "flat", (1, 3, 2), op="reshape", shape=(-1, 3, 2)),
        op("out", "Output", "cut", (1, 3, 2)),
    ]
    left = merge_views(Graph("g", operators, {}))
    check(left)
    assert [item.name for item in left.operators()] == ["x", "cut", "out"]
    x = torch.arange(12.0).reshape(2, 2, 3)
    torch.testing.assert_close(execute(left, x), x.reshape(2, 3, 2))
