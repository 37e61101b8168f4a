"""Programs of the streaming accelerator: what waits for what, and what is refused."""

from __future__ import annotations

import pytest

from vitruvius.benchmarks.random_pairs import pair
from vitruvius.errors import VitruviusError
from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.core import Target
from vitruvius.hwgen.core.image import ParameterImage
from vitruvius.hwgen.core.instruction import Norm, Product, Source, decode, encode
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.hwgen.core.program import Program


@pytest.fixture(scope="module", params=[5, 10, 30])
def program(request: pytest.FixtureRequest) -> Program:
    print(f"pair {request.param}")
    return pair(request.param).program


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
    held = sum(byte != 0 for byte in data)
    weights = int((program.weights != 0).sum())
    assert held > weights


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
