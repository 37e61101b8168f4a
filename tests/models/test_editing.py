"""The working copy of a graph that passes edit."""

from __future__ import annotations

from dataclasses import replace

import torch

from vitruvius.models.editing import Edit
from vitruvius.models.graph import Graph, Operator, TensorSpec, check

SPEC = TensorSpec((1, 4), "float32")


def op(name: str, kind: str, *inputs: str) -> Operator:
    tensors = {"value": name} if kind == "Constant" else {}
    return Operator(name, kind, "block", "model.py:3", inputs, SPEC, {}, tensors)


def chain() -> Graph:
    """relu(x) squared by itself, plus a constant."""
    operators = [
        op("x", "Input"),
        op("relu", "Relu", "x"),
        op("square", "Mul", "relu", "relu"),
        op("c", "Constant"),
        op("sum", "Add", "square", "c"),
        op("out", "Output", "sum"),
    ]
    return Graph("chain", operators, {"c": torch.ones(1, 4)})


def test_an_untouched_copy_is_the_graph_itself() -> None:
    graph = chain()
    assert Edit(graph).graph() is graph


def test_a_reader_that_reads_twice_is_not_the_only_one() -> None:
    edit = Edit(chain())
    assert edit.only_reader("relu") is None
    reader = edit.only_reader("square")
    assert reader is not None
    assert reader.name == "sum"


def test_what_loses_its_last_reader_goes_with_all_above_it() -> None:
    graph = chain()
    edit = Edit(graph)
    edit.redirect("sum", "x")
    assert "relu" not in edit
    left = edit.graph()
    check(left)
    assert [item.name for item in left.operators()] == ["x", "out"]
    assert left.tensors == {}
    assert len(graph.operators()) == 6


def test_an_operator_that_somebody_else_reads_stays() -> None:
    edit = Edit(chain())
    edit.put(replace(edit.operator("sum"), inputs=("relu", "c")))
    assert "square" not in edit
    assert [reader.name for reader in edit.readers("relu")] == ["sum"]


def test_a_new_operator_gets_the_place_and_path_and_a_name_never_used_before() -> None:
    edit = Edit(chain())
    first = edit.add("Relu", ["c"], like=edit.operator("sum"), label="extra")
    assert first == "block.extra"
    edit.put(replace(edit.operator("sum"), inputs=("square", first)))
    edit.redirect(first, "square")
    assert first not in edit
    second = edit.add("Relu", ["relu"], like=edit.operator("out"), label="extra")
    assert second == "block.extra_1"
    edit.put(replace(edit.operator("out"), inputs=(second,)))
    made = edit.graph().operator(second)
    assert (made.path, made.source, made.output) == ("block", "model.py:3", SPEC)
    check(edit.graph())


def test_tensors_get_keys_of_their_own() -> None:
    edit = Edit(chain())
    assert edit.hold("c", torch.zeros(1)) == "c_1"
    constant = edit.constant("c")
    assert constant is not None
    assert torch.equal(constant, torch.ones(1, 4))
    assert edit.constant("relu") is None
    assert edit.number("c") is None
