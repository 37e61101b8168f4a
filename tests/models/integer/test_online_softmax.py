import math
import random

from vitruvius.models.integer.online_softmax import online_softmax


def test_sum_is_within_its_bound_of_the_exact_one():
    """A term is off by half a unit; each new maximum loses up to one more and scales what was off.

    Terms below exp(-16) count as zero, which is less than half a unit too.
    """
    generator = random.Random(11)
    for _ in range(300):
        spread = generator.choice([10, 100, 1000, 30000])
        scores = [generator.randint(-spread, spread) for _ in range(generator.randint(1, 130))]
        maximum, total = online_softmax(scores)
        assert maximum == max(scores)
        exact = sum(math.exp((score - maximum) / 32) for score in scores)
        rescalings = sum(score > max(scores[:index]) for index, score in enumerate(scores) if index)
        # A rescaling multiplies the sum by an exponential that is off by half a unit.
        relative = rescalings * len(scores) * 0.5
        assert abs(total - exact * 2**15) <= 0.5 * len(scores) + rescalings + relative


def test_corners():
    assert online_softmax([-32768]) == (-32768, 1 << 15)
    assert online_softmax([7] * 10) == (7, 10 << 15)
    assert online_softmax([-32768, 32767]) == (32767, 1 << 15)
    assert online_softmax([32767, -32768]) == (32767, 1 << 15)


def test_rising_and_falling_rows_differ_only_by_rounding():
    scores = list(range(0, 640, 7))
    rising, falling = online_softmax(scores), online_softmax(scores[::-1])
    assert rising[0] == falling[0]
    assert 0 < abs(rising[1] - falling[1]) <= 2 * len(scores)
