"""The graph's own behaviour: order, execution, errors, and every invariant broken on purpose."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vitruvius.errors import VitruviusError
from vitruvius.models.evaluate import multiply_accumulates
from vitruvius.models.graph import (
    AttentionRegion,
    Graph,
    Operator,
    TensorSpec,
    check,
    evaluate,
    execute,
    execute_all,
    violations,
)


def spec(*shape: int) -> TensorSpec:
    return TensorSpec(shape, "float32")


def small_operators() -> list[Operator]:
    """One attention head without projections, plus a residual: x + softmax(x x^T / 2) x."""
    return [
        Operator("x", "Input", "", "", (), spec(1, 3, 4)),
        Operator(
            "scores",
            "MatMul",
            "attn",
            "net.py:7",
            ("x", "x"),
            spec(1, 3, 3),
            {"transpose_b": True, "scale": 0.5},
        ),
        Operator("share", "Softmax", "attn", "net.py:8", ("scores",), spec(1, 3, 3), {"dim": -1}),
        Operator(
            "mixed",
            "MatMul",
            "attn",
            "net.py:9",
            ("share", "x"),
            spec(1, 3, 4),
            {"transpose_b": False, "scale": 1.0},
        ),
        Operator(
            "offset", "Constant", "", "", (), spec(1, 1, 4), tensors={"value": "offset"}, params=4
        ),
        Operator("shifted", "Add", "", "net.py:10", ("mixed", "offset"), spec(1, 3, 4)),
        Operator("sum", "Add", "", "net.py:10", ("x", "shifted"), spec(1, 3, 4)),
        Operator("y", "Output", "", "", ("sum",), spec(1, 3, 4)),
    ]


REGION = AttentionRegion("scores", "share", "mixed", 1, 3, 4, 0.5, 3)
TENSORS = {"offset": torch.tensor([[[1.0, -1.0, 0.5, 0.0]]])}


def small_graph() -> Graph:
    return Graph("small", small_operators(), TENSORS, regions=[REGION])


def test_executes_what_the_formula_says_for_any_batch() -> None:
    graph = small_graph()
    for batch in (1, 4):
        x = torch.randn(batch, 3, 4, generator=torch.Generator().manual_seed(1))
        expected = x + torch.softmax(x @ x.mT / 2, -1) @ x + TENSORS["offset"]
        torch.testing.assert_close(execute(graph, x), expected, rtol=0, atol=1e-6)


def test_order_is_topological_whatever_the_order_given() -> None:
    seed = 20
    print("seed", seed)
    shuffled = small_operators()
    random.Random(seed).shuffle(shuffled)
    graph = Graph("small", shuffled, TENSORS)
    seen: set[str] = set()
    for operator in graph.operators():
        assert set(operator.inputs) <= seen
        seen.add(operator.name)
    x = torch.ones(1, 3, 4)
    assert torch.equal(execute(graph, x), execute(small_graph(), x))


def test_observe_sees_every_operator_once_with_its_shape() -> None:
    seen: list[str] = []

    def observe(operator: Operator, value: Tensor) -> None:
        assert tuple(value.shape) == operator.output.shape
        seen.append(operator.name)

    execute(small_graph(), torch.ones(1, 3, 4), observe=observe)
    assert seen == [operator.name for operator in small_graph().operators()]


def test_consumers_and_edges() -> None:
    graph = small_graph()
    assert [op.name for op in graph.consumers("x")] == ["scores", "mixed", "sum"]
    assert graph.digraph.edges["scores", "share"]["spec"] == spec(1, 3, 3)
    assert (graph.inputs, graph.outputs) == (("x",), ("y",))


def test_views_selects_and_concats_map_integer_indices() -> None:
    index = torch.arange(2 * 6).reshape(1, 2, 6)
    view = {"op": "reshape", "shape": (-1, 2, 3, 2)}
    turned = {"op": "permute", "dims": (2, 0, 1, 3)}
    pick = {"op": "select", "dim": 0, "index": 1}
    part = {"op": "slice", "dim": 2, "start": 0, "stop": 2, "step": 1}
    operators = [
        Operator("i", "Input", "", "", (), spec(1, 2, 6)),
        Operator("a", "View", "", "", ("i",), spec(1, 2, 3, 2), view),
        Operator("b", "View", "", "", ("a",), spec(3, 1, 2, 2), turned),
        Operator("c", "Select", "", "", ("b",), spec(1, 2, 2), pick),
        Operator("d", "Select", "", "", ("i",), spec(1, 2, 2), part),
        Operator("e", "Concat", "", "", ("c", "d"), spec(1, 4, 2), {"dim": 1}),
        Operator("o", "Output", "", "", ("e",), spec(1, 4, 2)),
    ]
    graph = Graph("views", operators, {})
    check(graph)
    assert execute(graph, index).tolist() == [[[2, 3], [8, 9], [0, 1], [6, 7]]]


def test_class_token_of_batch_one_joins_a_longer_batch() -> None:
    tokens = torch.zeros(5, 2, 3)
    operator = Operator("cat", "Concat", "", "", ("a", "b"), spec(1, 3, 3), {"dim": 1})
    graph = Graph(
        "cat",
        [
            Operator("a", "Input", "", "", (), spec(1, 1, 3)),
            Operator("b", "Input", "", "", (), spec(1, 2, 3)),
            operator,
        ],
        {},
    )
    assert evaluate(operator, [torch.ones(1, 1, 3), tokens], graph).shape == (5, 3, 3)


def test_errors_name_what_is_wrong() -> None:
    graph = small_graph()
    with pytest.raises(
        VitruviusError, match=r"input x expected shape \[1, 3, 4\].*got \[1, 4, 3\]"
    ):
        execute(graph, torch.ones(1, 4, 3))
    with pytest.raises(VitruviusError, match=r"expected 1 inputs \(x\), got 2"):
        execute(graph, torch.ones(1, 3, 4), torch.ones(1))
    with pytest.raises(VitruviusError, match="no operator 'score', did you mean 'scores'"):
        graph.operator("score")
    with pytest.raises(VitruviusError, match=r"operator scores \(net.py:7\) of kind MatMul"):
        evaluate(graph.operator("scores"), [torch.ones(1, 3, 4), torch.ones(1, 3, 5)], graph)
    with pytest.raises(VitruviusError, match="2 outputs, expected exactly one"):
        second = Operator("z", "Output", "", "", ("mixed",), spec(1, 3, 4))
        execute(Graph("two", [*small_operators(), second], TENSORS), torch.ones(1, 3, 4))


def test_two_outputs_come_in_order() -> None:
    second = Operator("z", "Output", "", "", ("share",), spec(1, 3, 3))
    graph = Graph("two", [*small_operators(), second], TENSORS)
    first, shares = execute_all(graph, torch.ones(2, 3, 4))
    assert first.shape == (2, 3, 4)
    torch.testing.assert_close(shares, torch.full((2, 3, 3), 1 / 3))


def test_malformed_graphs_are_refused() -> None:
    operators = small_operators()
    with pytest.raises(VitruviusError, match="occur twice: share"):
        Graph("g", [*operators, operators[2]], TENSORS)
    with pytest.raises(VitruviusError, match="operator y reads unknown operator nothing"):
        Graph("g", [*operators[:-1], replace(operators[-1], inputs=("nothing",))], TENSORS)
    with pytest.raises(VitruviusError, match="cycle"):
        operators[1] = replace(operators[1], inputs=("sum", "x"))
        Graph("g", operators, TENSORS)


def test_a_sound_graph_breaks_nothing() -> None:
    assert violations(small_graph()) == []
    check(small_graph())


def edited(name: str, **changes: object) -> Callable[[], Graph]:
    def build() -> Graph:
        operators = [
            replace(op, **changes) if op.name == name else op  # type: ignore[arg-type]
            for op in small_operators()
        ]
        return Graph("broken", operators, TENSORS, regions=[REGION])

    return build


def regioned(**changes: object) -> Callable[[], Graph]:
    region = replace(REGION, **changes)  # type: ignore[arg-type]
    return lambda: Graph("broken", small_operators(), TENSORS, regions=[region])


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (edited("sum", kind="Frobnicate"), "vocabulary: sum: kind Frobnicate"),
        (edited("sum", inputs=("x",)), "vocabulary: sum: Add expected 2 operands, got 1"),
        (edited("offset", tensors={}), "vocabulary: offset: Constant lacks tensors value"),
        (
            edited("sum", tensors={"bias": "offset"}),
            "vocabulary: sum: Add has unexpected tensors bias",
        ),
        (edited("share", attributes={}), "vocabulary: share: Softmax lacks attributes dim"),
        (edited("offset", tensors={"value": "lost"}), "tensors: offset: value is lost"),
        (
            edited("share", attributes={"dim": -1, "x": None}),
            "plain attributes: share: attribute x",
        ),
        (edited("sum", output=spec(1, 3, 5)), "shapes: sum: recorded float32 (1, 3, 5)"),
        (edited("sum", output=TensorSpec((1, 3, 4), "int64")), "shapes: sum: recorded int64"),
        (edited("y", inputs=("share",)), "alive: sum: leads to no output"),
        (regioned(scale=1.0), "regions: region scores: scale 1.0"),
        (regioned(tokens=4), "regions: region scores: 4 x 3"),
        (regioned(softmax="sum"), "regions: region scores: kinds MatMul, Add, MatMul"),
        (regioned(apply="scores"), "regions: region scores: its operators do not follow"),
        (regioned(apply="gone"), "regions: region scores: unknown operators gone"),
    ],
)
def test_each_broken_invariant_is_found(build: Callable[[], Graph], rule: str) -> None:
    graph = build()
    found = violations(graph)
    assert any(text.startswith(rule) for text in found), found
    with pytest.raises(VitruviusError, match="breaks"):
        check(graph)


def test_a_tensor_nobody_names_is_found() -> None:
    graph = Graph("g", small_operators(), {**TENSORS, "spare": torch.zeros(1)})
    assert violations(graph) == ["tensors: tensor spare belongs to no operator"]


def test_macs_equal_the_flop_counter() -> None:
    seed = 3
    print("seed", seed)
    draw = random.Random(seed)
    for _ in range(20):
        n, k, o, m = (draw.randint(1, 9) for _ in range(4))
        groups = draw.choice([1, 2])
        a, w = torch.zeros(2, n, k), torch.zeros(o, k)
        image, kernel = torch.zeros(1, 2 * k, 9, 9), torch.zeros(2 * o, 2 * k // groups, 3, 2)
        b = torch.zeros(2, k, m)
        for kind, operands, weight, run in (
            ("Linear", [a], w, lambda a=a, w=w: torch.nn.functional.linear(a, w)),
            ("MatMul", [a, b], None, lambda a=a, b=b: a @ b),
            (
                "Conv2d",
                [image],
                kernel,
                lambda image=image, kernel=kernel, groups=groups: torch.conv2d(
                    image, kernel, stride=2, groups=groups
                ),
            ),
        ):
            with FlopCounterMode(display=False) as counter:
                out = run()
            macs = multiply_accumulates(
                kind,
                [tuple(x.shape) for x in operands],
                None if weight is None else tuple(weight.shape),
                tuple(out.shape),
            )
            assert 2 * macs == counter.get_total_flops() > 0, kind
    assert multiply_accumulates("Add", [(1, 2), (1, 2)], None, (1, 2)) == 0
