"""Codes of weights: scales by row, the nearest codes, and rounding that compensates."""

from __future__ import annotations

import pytest
import torch

from vitruvius.models.weight_codes import compensated, nearest, row_scales


def case(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [24, 48] and inputs [400, 48] that are correlated, as activations are."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(24, 48, generator=generator)
    mix = torch.randn(12, 48, generator=generator)
    inputs = torch.randn(400, 12, generator=generator) @ mix
    return weight, inputs + 0.3 * torch.randn(400, 48, generator=generator)


def test_eight_bits_are_the_nearest_codes_of_the_largest_weight():
    weight, _ = case(0)
    scale = row_scales(weight, 8)
    assert torch.allclose(scale, weight.abs().amax(1).double() / 127)
    codes = nearest(weight, scale, 8)
    assert int(codes.abs().max()) == 127
    assert float((codes * scale.unsqueeze(1) - weight).abs().max()) <= float(scale.max()) / 2 + 1e-9


@pytest.mark.parametrize("bits", [6, 4])
def test_few_bits_stay_in_range_and_clip_where_that_is_better(bits):
    weight, _ = case(1)
    weight[0, 0] = 30.0  # one large weight would waste the range of its row
    top = (1 << (bits - 1)) - 1
    scale = row_scales(weight, bits)
    codes = nearest(weight, scale, bits)
    assert int(codes.abs().max()) <= top

    def error(scales: torch.Tensor) -> torch.Tensor:
        return (nearest(weight, scales, bits) * scales.unsqueeze(1) - weight).square().sum(1)

    largest = weight.abs().amax(1).double() / top
    assert bool((error(scale) <= error(largest) + 1e-9).all())
    assert float(error(scale).sum()) < float(error(largest).sum())


@pytest.mark.parametrize("seed", range(4))
def test_compensated_codes_give_better_outputs_than_the_nearest(seed):
    weight, inputs = case(seed)
    scale = row_scales(weight, 4)
    moments = inputs.t() @ inputs / len(inputs)

    def error(codes: torch.Tensor) -> float:
        return float((inputs @ (codes * scale.unsqueeze(1) - weight).float().t()).square().sum())

    codes = compensated(weight, scale, 4, moments)
    assert int(codes.abs().max()) <= 7
    assert error(codes) < 0.5 * error(nearest(weight, scale, 4)), f"seed {seed}"


def test_without_correlation_compensation_is_the_nearest():
    """With a diagonal matrix of moments no error can be taken over by another column."""
    weight, _ = case(5)
    scale = row_scales(weight, 4)
    moments = torch.diag(torch.linspace(1, 9, 48))
    assert torch.equal(compensated(weight, scale, 4, moments), nearest(weight, scale, 4))


def test_columns_that_never_carry_anything():
    weight, inputs = case(6)
    inputs[:, 7] = 0.0
    scale = row_scales(weight, 4)
    codes = compensated(weight, scale, 4, inputs.t() @ inputs / len(inputs))
    assert torch.equal(codes[:, 7], nearest(weight, scale, 4)[:, 7])


def test_more_columns_than_inputs():
    weight, inputs = case(7)
    few = inputs[:5]
    codes = compensated(weight, row_scales(weight, 4), 4, few.t() @ few / len(few))
    assert codes.shape == weight.shape
