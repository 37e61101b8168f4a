"""Compiling: what fits, what does not, and that the images hold what the model holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vitruvius.errors import VitruviusError
from vitruvius.hwgen.compiler import compile_model
from vitruvius.hwgen.instruction import Instruction, Opcode, Source, decode, encode
from vitruvius.hwgen.loader import Target
from vitruvius.hwgen.machine import load_machine
from vitruvius.hwgen.program import check, violations


@pytest.fixture
def program(digits_model):
    return compile_model(digits_model, load_machine("medium"))


def test_the_program_keeps_its_invariants(program):
    assert violations(program) == []
    check(program)
    steps = program.steps
    broken = replace(program, steps=(steps[-1], *steps[:-1]))
    with pytest.raises(VitruviusError, match="exactly one END, as the last step"):
        check(broken)


def test_instructions_survive_encoding(program):
    for item in program.instructions:
        assert decode(encode(item)) == item
    with pytest.raises(ValueError, match="tokens: expected 12 bits, got 4096"):
        encode(Instruction(Opcode.PRODUCT, tokens=4096))


def test_the_same_model_gives_the_same_bytes(program, digits_model):
    again = compile_model(digits_model, load_machine("medium"))
    assert program.digest == again.digest
    assert all(program.image_of(target) == again.image_of(target) for target in Target)


def test_weight_image_holds_each_weight_once(program, digits_model):
    """Sum of all weight bytes, as signed numbers: padding adds zeros only."""
    stored = program.weights.view(torch.int8).to(torch.int64)
    weights = [
        digits_model.tensors[operator.tensors["weight"]].to(torch.int64)
        for operator in digits_model.operators
        if operator.kind == "Linear"
    ]
    assert int(stored.sum()) == sum(int(weight.sum()) for weight in weights)
    assert int((stored**2).sum()) == sum(int((weight**2).sum()) for weight in weights)


def test_a_weight_stands_where_the_array_reads_it(program, digits_model):
    """Tile t, word w, column c, lane e of fc1 is output t*cols+c, input w*depth+e."""
    machine = program.machine
    item = next(step for step in program.steps if step.name == "blocks.1.mlp.fc1").instruction
    weight = digits_model.tensors["blocks.1.mlp.fc1.weight"]
    for tile, word, col, lane in ((0, 0, 0, 0), (5, 3, 2, 1), (31, 7, 7, 7)):
        row = program.weights[item.b_base + tile * item.words + word].view(torch.int8)
        expected = weight[tile * machine.cols + col, word * machine.depth + lane]
        assert row[col * machine.depth + lane] == expected
    assert item.b_source is Source.WEIGHT


def test_every_buffer_that_is_too_small_is_named_with_the_need(digits_model):
    small = load_machine("small")
    buffers = small.buffers.model_copy(update={"weight": 64, "tokens": 16, "token": 4})
    with pytest.raises(VitruviusError) as caught:
        compile_model(digits_model, small.model_copy(update={"buffers": buffers}))
    text = str(caught.value)
    assert "does not fit machine 'small'" in text
    assert "buffers.weight needs 197632 bytes, has 65536" in text
    assert "buffers.tokens needs 17 tokens, has 16" in text
    assert "buffers.token needs" in text
    assert "buffers.key" not in text
