import torch

from vitruvius.models.integer.requantize import dyadic
from vitruvius.models.integer.softmax import exponential_table, row_scale, softmax_weights


def random_rows(seed, spread):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(200, 129, generator=generator) * spread * 32).round().long()


def test_probabilities_are_within_their_bound_of_torch():
    """A weight is off by half of 1/255, and so is each term of the sum."""
    for seed, spread in enumerate((0.1, 1.0, 4.0, 30.0)):
        scores = random_rows(seed, spread).clamp(-32768, 32767)
        exact = torch.softmax(scores.double() / 32, -1)
        weights, total = softmax_weights(scores)
        probabilities = weights.double() / total.double().unsqueeze(-1)
        exact_total = torch.exp((scores - scores.amax(-1, keepdim=True)).double() / 32).sum(-1)
        bound = (
            0.5
            / 255
            * (1 + exact * scores.shape[-1])
            / (exact_total - 0.5 / 255 * scores.shape[-1]).unsqueeze(-1)
        )
        assert ((probabilities - exact).abs() <= bound).all()


def test_the_order_of_keys_changes_nothing():
    scores = random_rows(9, 3.0)
    permutation = torch.randperm(scores.shape[-1], generator=torch.Generator().manual_seed(1))
    weights, total = softmax_weights(scores)
    shuffled, shuffled_total = softmax_weights(scores[:, permutation])
    assert torch.equal(weights[:, permutation], shuffled)
    assert torch.equal(total, shuffled_total)


def test_corners():
    equal, total = softmax_weights(torch.full((7,), -32768))
    assert equal.tolist() == [255] * 7
    assert int(total) == 7 * 255
    far, total = softmax_weights(torch.tensor([32767, -32768]))
    assert far.tolist() == [255, 0]
    assert int(total) == 255


def test_table_falls_to_zero_before_its_end():
    table = exponential_table()
    assert table[0] == 255
    assert table == sorted(table, reverse=True)
    assert table[-1] == 0


def test_row_scale_is_the_ratio_over_the_sum():
    """Three truncations to 16 bits: scale, reciprocal, product."""
    totals = torch.arange(255, 255 * 1024, 997)
    for ratio in (0.7, 1e-3, 12.0):
        multiplier, shift = row_scale(totals, dyadic(ratio))
        found = multiplier.double() / 2.0 ** shift.double()
        assert (found * totals.double() / ratio - 1).abs().max() <= 2.0**-13
        assert int(multiplier.max()) < 1 << 16
        assert int(shift.min()) >= 0
        assert int(shift.max()) < 64
