import pytest
import torch

from vitruvius.hwgen.units.ivit.shift_exp import ShiftExp, cycles, latency
from vitruvius.models.integer.ivit.shift_exp import shift_exp

DISTANCES = list(range(256))
STEPS = sorted({1, 2, 3, 20, 24, 25, 34, 127, 128, 255, 256, 257, 332, 366, 367, 368, 510, 511})


def sweep(play, octaves, steps):
    """Results of every distance with each of the steps, and the golden's."""
    wait = latency(octaves)
    # A step stays until the last of its distances is out: the distance stands still meanwhile.
    distances = [*DISTANCES, *[255] * wait] * len(steps)
    held = [step for step in steps for _ in range(256 + wait)]
    unit = ShiftExp(octaves=octaves)
    result = play(
        unit, {"distance": distances, "step": held}, {"result": len(unit.result)}, extra=0
    )["result"]
    found, expected = [], []
    for index, step in enumerate(steps):
        begin = index * (256 + wait) + wait
        found.append(result[begin : begin + 256])
        expected.append(shift_exp(-torch.tensor(DISTANCES), step, octaves).tolist())
    return found, expected


@pytest.mark.parametrize(("octaves", "random_steps"), [(15, 12), (22, 0), (8, 0)])
def test_every_distance_equals_the_golden(play, rng, octaves, random_steps):
    """Fails for a wrong quotient, a rest that is lost, a cut elsewhere, or a latency off by one.

    22 and 8 octaves: results of 31 bits, and a cut that is a power of two.
    """
    steps = [*STEPS[:: 1 if random_steps else 2], *rng.sample(range(1, 512), random_steps)]
    found, expected = sweep(play, octaves, steps)
    assert found == expected


def chain(rest, step, octaves):
    """The unit's comparisons, bit by bit from the highest."""
    whole = torch.zeros_like(rest)
    for bit in reversed(range(octaves.bit_length())):
        fits = (rest >= step << bit).long()
        rest, whole = rest - fits * (step << bit), 2 * whole + fits
    cut = whole >= octaves
    return torch.where(cut, step, (2 * step - rest) << (octaves - 1 - whole).clamp(min=0))


@pytest.mark.parametrize("octaves", range(1, 23))
def test_a_quotient_of_few_bits_is_exact_for_every_step(octaves):
    """All 256 distances with all 511 steps: the division by comparing needs no more bits."""
    distance = torch.arange(256).unsqueeze(1)
    step = torch.arange(1, 512)
    octave = distance + ((distance + 1) >> 1) - ((distance + 15) >> 4)
    assert int(octave.max()) == 367
    columns = [shift_exp(-distance.squeeze(1), a, octaves) for a in range(1, 512)]
    assert torch.equal(chain(octave, step, octaves), torch.stack(columns, 1))


def test_the_published_values(play):
    distances = [0, 1, 2, 3, 10, 33, 34, 50, 100, 255]
    result = play(
        ShiftExp(),
        {"distance": distances, "step": [34]},
        {"result": 24},
        extra=latency(),
    )["result"]
    assert len(result) == cycles(len(distances)) + 1
    assert result[latency() :] == [
        1114112, 1097728, 1081344, 1048576, 884736, 450560, 442368, 266240, 62464, 656,
    ]  # fmt: skip


@pytest.mark.parametrize(("octaves", "step_bits"), [(23, 7), (15, 9)])
def test_codes_above_zero_equal_the_golden_saturated(play, octaves, step_bits):
    """Fails for a lowering by too few octaves, a wrap beyond 2**31, or a limit in the wrong place.

    Every distance from -128 on with each step, in octaves above and below 0.
    """
    distances = list(range(-128, 256))
    steps = [step for step in (*STEPS, 8, 15, 64) if step < 1 << step_bits]
    wait = latency(octaves, above=True)
    unit = ShiftExp(octaves=octaves, step_bits=step_bits, above=True)
    result = play(
        unit,
        {
            "distance": [*distances, *[255] * wait] * len(steps),
            "step": [step for step in steps for _ in range(len(distances) + wait)],
        },
        {"result": 31},
        extra=0,
    )["result"]
    for index, step in enumerate(steps):
        begin = index * (len(distances) + wait) + wait
        golden = shift_exp(-torch.tensor(distances), step, octaves).clamp(max=(1 << 31) - 1)
        assert result[begin : begin + len(distances)] == golden.tolist(), f"step {step}"


@pytest.mark.parametrize("octaves", [0, 23])
def test_bad_octaves_are_named(octaves):
    with pytest.raises(ValueError, match=f"octaves: expected 1 to 22, got {octaves}"):
        ShiftExp(octaves=octaves)


def test_a_bad_width_of_the_step_is_named():
    with pytest.raises(ValueError, match="step_bits: expected 1 to 30, got 31"):
        ShiftExp(step_bits=31)
    with pytest.raises(ValueError, match="octaves: expected 1 to 24, got 25"):
        ShiftExp(octaves=25, step_bits=7)
