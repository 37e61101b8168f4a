"""What the accelerator has no step for is told in one list."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from vitruvius.benchmarks.random_pairs import pair
from vitruvius.errors import VitruviusError
from vitruvius.hwgen.core import compiler
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.models.integer_model import IntegerModel
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.quantize import quantize


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


@pytest.mark.parametrize("winners", [0, 5])
def test_mixtures_that_the_router_cannot_run_are_refused(winners):
    """No winner or more than it finds, an activation without a table, a gate that is none."""
    model = pair(53).program.model

    def change(operator):
        if operator.kind == "Gate":
            return replace(operator, attributes={"k": winners})
        if operator.name == "blocks.0.mlp.experts.1.act":
            return replace(operator, kind="Silu")
        return operator

    text = refusal(changed(model, change))
    assert f"Gate of the {winners} best, expected 1 to 4" in text
    assert "Mixture with an expert of Linear, Silu, Linear, expected Linear, Gelu, Linear" in text
    assert "Silu has no step" in text


def test_a_machine_without_a_router_is_told():
    with pytest.raises(VitruviusError, match=r"buffers.experts needs 2 experts, has 0, 2 missing"):
        compile_model(pair(53).program.model, load_machine("small"))


def with_weights(kib):
    """The machine ``experts`` with another weight buffer, narrow enough for parts."""
    machine = load_machine("experts").model_copy(update={"cols": 4, "depth": 4})
    buffers = machine.buffers.model_copy(update={"weight": kib})
    return machine.model_copy(update={"buffers": buffers})


def test_experts_in_unequal_numbers_of_products_are_named(unequal_experts):
    """The widest of them alone does not go through a weight buffer of 1 KiB in one part."""
    model, _ = unequal_experts
    with pytest.raises(VitruviusError) as caught:
        compile_model(model, with_weights(1))
    assert str(caught.value) == (
        "unequal: the experts of 'blocks.1.mlp.route' come in unequal numbers of products on "
        "machine 'experts', expected as many of each: that of 'blocks.1.mlp.experts.1.fc1' in 2, "
        "that of 'blocks.1.mlp.experts.0.fc1' in 6; a larger buffers.weight than 1 KiB, or experts "
        "of one width, make them equal"
    )
    assert compile_model(model, with_weights(4)).mixtures[0].parts == 2


def test_the_machine_that_fits_is_found_behind_one_with_unequal_products(
    unequal_experts, monkeypatch
):
    """Catches a search that ends with what it finds wrong with a machine that nobody asked for."""
    model, _ = unequal_experts
    machines = {"a": with_weights(1), "b": load_machine("experts")}
    monkeypatch.setattr(compiler, "machine_names", lambda: list(machines))
    monkeypatch.setattr(compiler, "load_machine", machines.__getitem__)
    with pytest.raises(VitruviusError, match="0, 4 missing; it fits machine 'experts'"):
        compile_model(model, load_machine("small"))


def test_of_scheme_ivit_only_the_safe_mode_has_steps(digits_graph, digit_images):
    """The maximum of a row and Newton's root have no hardware, nor have odd exponentials."""
    options = QuantizationOptions(scheme="ivit", ivit_mode="faithful")
    text = refusal(quantize(digits_graph, digit_images.calibration_images, options=options))
    assert "'blocks.0.norm1' and 8 more: ILayerNorm with the root of ten Newton steps" in text
    assert "'blocks.0.mlp.act' and 3 more: ShiftGelu relative to the row's maximum" in text
    options = QuantizationOptions(scheme="ivit")
    safe = quantize(digits_graph, digit_images.calibration_images, options=options)

    def with_attributes(attributes, operator):
        if operator.kind != "ShiftAttention":
            return operator
        return replace(operator, attributes={**operator.attributes, **attributes})

    for attributes, expected in (
        ({"octaves": 16}, "ShiftAttention of 16 octaves, expected 1 to 15"),
        ({"octaves": 2, "a": 100}, "with a = 100, expected a * 2**octaves of at least 512"),
        ({"a": 512}, "ShiftAttention with a = 512, expected at most 511"),
    ):
        text = refusal(changed(safe, partial(with_attributes, attributes)))
        assert "'blocks.0.attn.apply' and 3 more: ShiftAttention" in text
        assert expected in text


def test_what_the_accelerator_knows_is_not_refused(digits_model):
    assert compile_model(digits_model, load_machine("small")).steps
