import pytest
import torch
import torch.nn.functional as F

from vitruvius.models.integer.layernorm import (
    MAX_WIDTH,
    NORMAL_FRACTION,
    LayerNormCodes,
    layernorm,
    normalise,
)


def example_rows(width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([3.0, 100.0, 5000.0]).repeat(10).unsqueeze(-1)
    middle = torch.randint(-8000, 8000, (30, 1), generator=generator)
    noise = torch.randn(30, width, generator=generator) * spread
    return (noise.round().long() + middle).clamp(-32768, 32767)


@pytest.mark.parametrize("width", [2, 64, 192, MAX_WIDTH])
def test_normalised_value_is_within_its_bound_of_torch(width):
    """Half a step of 2**-10, and 2**-13 of the value from the inverse square root."""
    x = example_rows(width)
    epsilon = 1
    exact = F.layer_norm(x.double(), (width,), eps=epsilon / width**2)
    z = normalise(x, epsilon).double() / 2**NORMAL_FRACTION
    bound = 2.0 ** -(NORMAL_FRACTION + 1) + exact.abs() * 2.0**-13
    assert ((z - exact).abs() <= bound).all()


def test_affine_result_is_within_one_and_a_half_steps_of_torch():
    width, scale = 64, 0.05
    generator = torch.Generator().manual_seed(2)
    weight = torch.rand(width, generator=generator, dtype=torch.float64) + 0.5
    bias = torch.randn(width, generator=generator, dtype=torch.float64)
    shift = 20
    unit = 2.0 ** (shift - NORMAL_FRACTION) / scale
    codes = LayerNormCodes(
        gain=(weight * unit).round().long(),
        offset=(bias * unit * 2**NORMAL_FRACTION).round().long(),
        shift=shift,
        epsilon=1,
    )
    assert int(codes.gain.abs().max()) < 1 << 15
    x = example_rows(width)
    exact = F.layer_norm(x.double(), (width,), weight, bias, eps=1 / width**2) / scale
    inside = exact.abs() < 127
    # z is off by up to 2**-11 + |z| 2**-13 (|z| < 8 here), times a gain of up to 1.5 / scale.
    bound = 0.5 + (2.0**-11 + 8 * 2.0**-13) * 1.5 / scale + 0.01
    error = (layernorm(x, codes).double() - exact.clamp(-128, 127)).abs()
    assert error[inside].max() <= bound
    assert bound < 1.5


def test_corners():
    width = 64
    assert normalise(torch.full((1, width), -32768), 1).abs().max() == 0
    spike = torch.full((1, width), -32768)
    spike[0, -1] = 32767
    z = normalise(spike, 1).double() / 2**NORMAL_FRACTION
    exact = F.layer_norm(spike.double(), (width,))
    assert (z - exact).abs().max() <= 2.0**-11 + 8 * 2.0**-13


def test_the_widest_row_of_extreme_codes_does_not_overflow():
    row = torch.full((1, MAX_WIDTH), -32768)
    row[0, ::2] = 32767
    z = normalise(row, 1)
    assert z.unique().tolist() == [-1024, 1024]
