"""Activations by table against PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vitruvius.models.integer.activation import activation, activation_table
from vitruvius.models.integer.gelu import gelu

EXACT = {
    "Gelu": functional.gelu,
    "GeluTanh": lambda x: functional.gelu(x, approximate="tanh"),
    "QuickGelu": lambda x: x * torch.sigmoid(1.702 * x),
    "Silu": functional.silu,
    "Relu": functional.relu,
}


@pytest.mark.parametrize("kind", EXACT)
def test_every_code_is_within_one_step_of_the_exact_function(kind):
    codes = torch.arange(-(1 << 15), 1 << 15)
    exact = EXACT[kind](codes.to(torch.float64) / 1024) * 1024
    error = (activation(kind, codes) - exact).abs()
    # Half a step of rounding and what the table's linear interpolation and entries lose.
    assert float(error.max()) <= 0.75, (kind, int(codes[error.argmax()]))


def test_relu_is_exact_and_gelu_is_the_hardware_unit():
    codes = torch.arange(-(1 << 15), 1 << 15)
    assert torch.equal(activation("Relu", codes), codes.clamp(min=0))
    assert torch.equal(activation("Gelu", codes), gelu(codes))


@pytest.mark.parametrize("kind", EXACT)
def test_a_table_ends_in_zero_and_fits_the_hardware_entry(kind):
    table = activation_table(kind)
    assert table[-1] == 0
    assert max(table) < 1 << 13


def test_an_unknown_kind_is_a_key_error():
    with pytest.raises(KeyError, match="Mish"):
        activation_table("Mish")
