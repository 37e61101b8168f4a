"""Programs of the streaming accelerator: what waits for what, and what is refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from vitruvius.benchmarks.random_pairs import pair
from vitruvius.errors import VitruviusError
from vitruvius.hwgen.core.compiler import OPERATORS, compile_model
from vitruvius.hwgen.core.core import Target
from vitruvius.hwgen.core.image import ParameterImage
from vitruvius.hwgen.core.instruction import Norm, Product, Source, decode, encode
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.hwgen.core.program import Program
from vitruvius.hwgen.refusals import refuse_unknown


@pytest.fixture(scope="module", params=[5, 10, 30])
def program(request: pytest.FixtureRequest) -> Program:
    print(f"pair {request.param}")
    return pair(request.param).program


@pytest.mark.parametrize("kind", [*OPERATORS, "Mean"])
def test_a_kind_is_let_through_exactly_if_it_has_steps(kind: str, digits_model) -> None:
    """Catches a kind that is entered in one of the two places alone: the table or the refusals."""
    reader = next(operator for operator in digits_model.operators if operator.kind == "Gelu")
    changed = copy.copy(digits_model)
    changed.operators = tuple(
        replace(operator, kind=kind, inputs=2 * operator.inputs) if operator is reader else operator
        for operator in digits_model.operators
    )
    try:
        refuse_unknown(changed)
        text = ""
    except VitruviusError as error:
        text = str(error)
    known = kind in OPERATORS
    assert (f"{kind} has no step" in text) == (not known)
    readable = known and OPERATORS[kind].of_linear is not None
    assert (f"a Linear that {kind} reads" in text) == (not readable)


def test_instructions_survive_their_encoding(program: Program) -> None:
    for step in program.steps:
        assert decode(Product, encode(step.instruction)) == step.instruction
    for norm in program.norms:
        assert decode(Norm, encode(norm.instruction)) == norm.instruction


def test_no_matrix_is_overwritten_before_it_is_read(program: Program) -> None:
    """Two images, transfer by transfer: whoever still has to read a word keeps it."""
    products = len(program.steps)
    reader = {}
    weights = [fetch for fetch in program.fetches if fetch.target is Target.WEIGHT]
    users = [
        index
        for index, step in enumerate(program.steps)
        if step.instruction.b_source is Source.WEIGHT
    ]
    assert len(weights) == len(users)
    for image in range(3):
        for fetch, user in zip(weights, users, strict=True):
            free = -1 if fetch.threshold is None else fetch.threshold + image * products
            for word in range(fetch.destination, fetch.destination + fetch.words):
                if word in reader:
                    assert reader[word] < free  # that product is issued
                reader[word] = user + image * products
            assert free <= user + image * products  # and nothing waits for itself


def test_a_product_reads_the_matrix_that_was_fetched_for_it(program: Program) -> None:
    order = list(program.fetches)
    for step in program.steps:
        item = step.instruction
        if item.b_source is Source.WEIGHT:
            fetch = order[item.start_threshold - 1]
            if fetch.target is Target.IMAGE:
                fetch = order[item.start_threshold - 2]
            assert (fetch.destination, fetch.words) == (item.b_base, item.tiles * item.words)


def test_macs_are_those_of_the_model(program: Program) -> None:
    expected = sum(operator.macs for operator in program.model.operators)
    assert program.macs == expected


def test_the_parameter_image_holds_every_weight_once(program: Program) -> None:
    layout = ParameterImage(program)
    data = layout.to_bytes()
    assert data[:4] == b"VITR"
    assert len(data) == layout.size
    width = program.weights.shape[1]
    read = 0
    for fetch in program.fetches:
        if fetch.target is not Target.WEIGHT:
            continue
        address, beats = layout.place(fetch, 0)
        word_bytes = beats * layout.beat_bytes // fetch.words
        for word in range(fetch.words):
            start = address - layout.parameters + word * word_bytes
            expected = program.weights[fetch.source + word].numpy().tobytes()
            assert data[start : start + width] == expected
        read += fetch.words
    assert read == len(program.weights)


def test_a_model_that_is_too_large_is_told_all_at_once(program: Program) -> None:
    machine = load_machine("small")
    tiny = machine.model_copy(
        update={
            "buffers": machine.buffers.model_copy(update={"residual": 1, "token": 1, "tokens": 1})
        }
    )
    with pytest.raises(VitruviusError) as raised:
        compile_model(program.model, tiny)
    text = str(raised.value)
    assert "machine 'small'" in text
    assert "buffers.tokens needs" in text


def test_what_is_missing_and_where_it_fits_are_told(digits_model) -> None:
    """17 tokens of 256 hidden activations; keys fit."""
    small = load_machine("small")
    buffers = small.buffers.model_copy(update={"token": 4, "tokens": 16})
    with pytest.raises(VitruviusError) as raised:
        compile_model(digits_model, small.model_copy(update={"buffers": buffers}))
    text = str(raised.value)
    assert "vit_digits does not fit machine 'small'" in text
    assert "buffers.token needs 4352 bytes, has 4096, 256 missing" in text
    assert "buffers.tokens needs 17 tokens, has 16, 1 missing" in text
    assert "buffers.key" not in text
    assert text.endswith("; it fits machine 'small'")


def test_the_same_model_gives_the_same_bytes(digits_model) -> None:
    once, again = (compile_model(digits_model, load_machine("medium")) for _ in range(2))
    assert once.digest == again.digest
    assert ParameterImage(once).to_bytes() == ParameterImage(again).to_bytes()


def test_a_weight_stands_where_the_array_reads_it(digits_model) -> None:
    """Tile t, word w, column c, lane e of fc1 is output t*cols+c, input w*depth+e."""
    program = compile_model(digits_model, load_machine("medium"))
    machine = program.machine
    index, step = next(
        (index, step)
        for index, step in enumerate(
            step for step in program.steps if step.instruction.b_source is Source.WEIGHT
        )
        if step.name == "blocks.1.mlp.fc1"
    )
    source = [fetch for fetch in program.fetches if fetch.target is Target.WEIGHT][index].source
    weight = digits_model.tensors["blocks.1.mlp.fc1.weight"]
    for tile, word, col, lane in ((0, 0, 0, 0), (5, 3, 2, 1), (31, 7, 7, 7)):
        row = program.weights[source + tile * step.instruction.words + word].view(torch.int8)
        expected = weight[tile * machine.cols + col, word * machine.depth + lane]
        assert row[col * machine.depth + lane] == expected
