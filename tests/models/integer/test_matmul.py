"""Products through BLAS against plain int64, at the edge of what floats hold exactly."""

from __future__ import annotations

import pytest
import torch

from vitruvius.models.integer.matmul import (
    accumulator_type,
    matmul,
    matmul_reference,
    product_bound,
)


@pytest.mark.parametrize("seed", range(12))
def test_random_shapes_and_code_widths_equal_plain_int64(seed):
    """A float type chosen too small loses low bits as soon as a sum leaves its exact range."""
    generator = torch.Generator().manual_seed(seed)
    rows, inner, columns = torch.randint(1, 300, (3,), generator=generator).tolist()
    bits = (4, 8, 12, 16, 20, 24)[seed % 6]
    top = 1 << (bits - 1)
    a = torch.randint(-top, top, (2, rows, inner), generator=generator)
    b = torch.randint(-top, top, (inner, columns), generator=generator)
    assert torch.equal(matmul(a, b), matmul_reference(a, b)), f"seed {seed}"


@pytest.mark.parametrize(
    ("inner", "code"), [(1024, 127), (1025, 128), (3072, 128), (4096, 4096), (1 << 13, 1 << 20)]
)
def test_extreme_codes_of_one_sign_and_an_odd_last_term(inner, code):
    """All products add up; one more unit at the end must not be rounded away."""
    a = torch.full((1, inner + 1), code)
    b = torch.full((inner + 1, 1), code)
    a[0, -1], b[-1, 0] = 1, 1
    assert matmul(a, b).item() == inner * code * code + 1


def test_the_type_changes_where_floats_stop_being_exact():
    assert torch.tensor(2.0**24) + 1 == 2.0**24  # float32 loses the unit
    assert accumulator_type(1 << 24) is torch.float32
    assert accumulator_type((1 << 24) + 1) is torch.float64
    assert accumulator_type(1 << 53) is torch.float64
    assert accumulator_type((1 << 53) + 1) is torch.int64


def test_reduced_precision_products_are_not_trusted():
    """bfloat16 products, which PyTorch may use when allowed, are not exact."""
    try:
        torch.set_float32_matmul_precision("medium")
        assert accumulator_type(100) is torch.float64
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_bound_is_the_largest_column_of_absolute_codes():
    codes = torch.tensor([[1, -5], [-2, 4]], dtype=torch.int8)
    assert product_bound(codes, 128) == 9 * 128
    assert product_bound(torch.full((300, 1), -128, dtype=torch.int8), 128) == 300 * 128 * 128
