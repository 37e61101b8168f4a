import torch
import torch.nn.functional as F

from vitruvius.models.integer.gelu import DELTA_LIMIT, delta_table, gelu

ALL_CODES = torch.arange(-32768, 32768)


def test_every_code_is_within_its_bound_of_erf_gelu():
    # Half a step of the result, 1e-4 of linear interpolation (step**2 / 8 * max|delta''|), and half
    # a step of a table entry.
    exact = F.gelu(ALL_CODES.double() / 1024)
    error = (gelu(ALL_CODES).double() / 1024 - exact).abs()
    assert error.max() <= 2.0**-11 + 1e-4 + 2.0**-15


def test_beyond_the_table_it_is_relu():
    far = ALL_CODES[ALL_CODES.abs() >= DELTA_LIMIT * 32]
    assert torch.equal(gelu(far), far.clamp(min=0))


def test_stays_in_sixteen_bits_and_never_below_the_minimum_of_gelu():
    result = gelu(ALL_CODES)
    assert result.max() == 32767
    assert result.min() == round(-0.16997 * 1024)


def test_table_holds_delta_of_the_float_function():
    a = torch.arange(DELTA_LIMIT + 1).double() / 32
    delta = ((a - F.gelu(a)) * 2**14).round()
    assert delta_table() == delta.long().tolist()
