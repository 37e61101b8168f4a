import torch

from vitruvius.models.integer.inverse_sqrt import inverse_sqrt


def check(values):
    """1 / sqrt within 2**-13: half of the mantissa's truncation, and the floor of the root."""
    r, half = inverse_sqrt(values)
    assert int(r.min()) >= 1 << 15
    assert int(r.max()) < 1 << 16
    relative = r.double() * 2.0 ** -(23 + half.double()) * values.double().sqrt() - 1
    assert relative.abs().max() <= 2.0**-13
    return r, half


def test_every_value_of_sixteen_bits_gives_the_largest_root():
    values = torch.arange(1, 1 << 16)
    r, half = check(values)
    mantissa = values * 4**7 >> 2 * (half + 7)
    assert int((r * r * mantissa).max()) < 1 << 46
    assert int(((r + 1) * (r + 1) * mantissa).min()) >= 1 << 46


def test_random_values_of_every_length():
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 62, (4000,), generator=generator)
    below = torch.rand(4000, generator=generator, dtype=torch.float64)
    check(((below + 1) * 2.0 ** (lengths.double() - 1)).long().clamp(min=1))
