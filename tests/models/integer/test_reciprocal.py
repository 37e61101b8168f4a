import torch

from vitruvius.models.integer.reciprocal import bit_length, reciprocal


def test_bit_length_is_pythons():
    values = [0, 1, 2, 3, *(1 << p for p in range(62)), *((1 << p) - 1 for p in range(1, 62))]
    assert bit_length(torch.tensor(values)).tolist() == [value.bit_length() for value in values]


def test_every_value_of_eighteen_bits():
    """Truncation to 16 bits and the floor of the quotient each cost at most 2**-15."""
    values = torch.arange(1, 1 << 18)
    r, length = reciprocal(values)
    assert int(r.min()) >= 1 << 15
    assert int(r.max()) < 1 << 16
    relative = r.double() / 2.0 ** (15 + length.double()) * values.double() - 1
    assert relative.abs().max() <= 2.0**-14


def test_sixteen_bit_values_give_the_exact_floor():
    values = list(range(1, 1 << 16, 37))
    r, length = reciprocal(torch.tensor(values))
    for value, mantissa, bits in zip(values, r.tolist(), length.tolist(), strict=True):
        assert mantissa == ((1 << 31) - 1) // (value << (16 - bits))


def test_large_values():
    r, length = reciprocal(torch.tensor([(1 << 61) - 1, 1 << 40]))
    assert length.tolist() == [61, 41]
    assert r.tolist() == [(2**31 - 1) // 0xFFFF, 65535]
