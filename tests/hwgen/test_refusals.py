"""What the accelerator has no step for is told in one list."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vitruvius.benchmarks.random_pairs import pair
from vitruvius.errors import VitruviusError
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.models.integer_model import IntegerModel


def changed(model, change):
    """``model`` with every operator passed through ``change``."""
    return IntegerModel(model.name, tuple(map(change, model.operators)), model.tensors)


def refusal(model):
    with pytest.raises(VitruviusError) as caught:
        compile_model(model, load_machine("small"))
    return str(caught.value)


def test_kinds_and_widths_without_a_step_come_in_one_list(digits_model):
    def change(operator):
        if operator.kind == "Gelu":
            return replace(operator, kind="Silu")
        if operator.kind == "LayerNorm":
            return replace(operator, bits=6)
        return operator

    text = refusal(changed(digits_model, change))
    assert "the accelerator has no step for 17 of" in text
    assert "'blocks.0.norm1' and 8 more: LayerNorm with codes of 6 bits, expected 8" in text
    assert "'blocks.0.mlp.act' and 3 more: Silu has no step" in text
    assert "'blocks.0.mlp.fc1' and 3 more: a Linear that Silu reads" in text


def test_heads_added_at_the_end_are_refused(digits_model):
    head = digits_model.operators[-1]
    total = replace(head, name="sum", kind="Add", inputs=(head.name, head.name), tensors={})
    model = IntegerModel("two", (*digits_model.operators, total), digits_model.tensors)
    text = refusal(model)
    assert "Add of Linear and Linear, expected the residual stream and a Linear" in text


def test_mixtures_that_the_router_cannot_run_are_refused():
    """More winners than it finds, an activation without a table, a gate that is none."""
    model = pair(53).program.model

    def change(operator):
        if operator.kind == "Gate":
            return replace(operator, attributes={"k": 5})
        if operator.name == "blocks.0.mlp.experts.1.act":
            return replace(operator, kind="Silu")
        return operator

    text = refusal(changed(model, change))
    assert "Gate of the 5 best, expected at most 4" in text
    assert "Mixture with an expert of Linear, Silu, Linear, expected Linear, Gelu, Linear" in text
    assert "Silu has no step" in text


def test_a_machine_without_a_router_is_told():
    with pytest.raises(VitruviusError, match=r"buffers.experts needs 2 experts, has 0, 2 missing"):
        compile_model(pair(53).program.model, load_machine("small"))


def test_what_the_accelerator_knows_is_not_refused(digits_model):
    assert compile_model(digits_model, load_machine("small")).steps
