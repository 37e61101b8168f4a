"""Tiles, frames, times and energies against what was published, and by hand on small planes."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.optical.cost import fits, frame_count, optical_cost, slots
from vitruvius.optical.mapping import OpticalWork
from vitruvius.optical.published import FatnetTiming, fatnet_time_per_image, published
from vitruvius.optical.target import OpticalSystem, load_optical

FATNET = load_optical("optical:4f-fatnet").system
FAST = load_optical("optical:4f-2mhz").system
KNOWN = published()


def _system(**changes: Any) -> OpticalSystem:
    """4f-2mhz with other figures."""
    return OpticalSystem.model_validate(FAST.model_dump() | changes)


def _work(
    fan_in: int, fan_out: int, size: int, kernel: int, readout: Any = "full", **changes: Any
) -> OpticalWork:
    plain = OpticalWork(
        images=1,
        in_channels=fan_in,
        out_channels=fan_out,
        groups=1,
        size=(size, size),
        kernel=(kernel, kernel),
        readout=readout,
        stride=(1, 1),
        dynamic=False,
        signed_input=False,
        signed_kernel=False,
    )
    return replace(plain, **changes)


@pytest.mark.parametrize("row", KNOWN.fatnet, ids=lambda row: f"{row.network}-{row.batch}")
def test_fatnet_timings_to_four_digits(row: FatnetTiming) -> None:
    got = fatnet_time_per_image(row.convolutions, row.batch, FATNET)
    assert f"{got:.3e}" == f"{row.optics_s:.3e}"


def test_counts_of_convolutions_follow_from_the_layers() -> None:
    """The published FatNet count leaves the last layer, 155 -> 1, out."""
    assert KNOWN.convolutions("ResNet-18") == 1_220_800
    assert KNOWN.convolutions("FatNet") == 148_792 == 148_637 + 155
    assert f"{1_220_800 / 148_637:.1f}" == "8.2"  # the abstract's ratio


@pytest.mark.parametrize(
    ("rows", "size", "kernel", "readout", "tiles"),
    [
        (2160, 32, 7, "full", 3136),
        (2160, 32, 3, "full", 3969),
        (3840, 32, 3, "full", 12_544),
        (2160, 8, 7, "full", 23_716),
        (2160, 8, 7, "valid", 72_900),
    ],
)
def test_tiles_of_a_plane(rows: int, size: int, kernel: int, readout: str, tiles: int) -> None:
    square = _system(rows=rows, cols=rows)
    assert slots(_work(1, 1, size, kernel, readout), square) == tiles


@pytest.mark.parametrize(("network", "count"), [("VGG-16", 1_634_496), ("AlexNet", 368_928)])
def test_li_and_gupta_without_tiling(network: str, count: int) -> None:
    """2 MHz, one pass, one frame for each pair of channels."""
    costs = [optical_cost(_work(*layer), FAST, "none") for layer in KNOWN.layers[network]]
    assert sum(cost.count.frames for cost in costs) == count
    (row,) = (row for row in KNOWN.li_gupta if row.network == network)
    assert f"{sum(cost.time_s for cost in costs):.3g}" == f"{row.none_s:.3g}"


@pytest.mark.parametrize(("cols", "seconds"), [(2160, 7.8e-6), (3840, 4.3e-6)])
def test_li_and_gupta_with_channel_tiling(cols: int, seconds: float) -> None:
    """VGG-16 at full planes; 6e-6 is published, the two planes bracket it."""
    batch = 10**6
    wide = _system(cols=cols)
    times = [
        optical_cost(_work(*layer), wide, "channel", batch).time_s
        for layer in KNOWN.layers["VGG-16"]
    ]
    assert f"{sum(times) / batch:.1e}" == f"{seconds:.1e}"


def test_the_bench_of_hu_by_joule_a_product() -> None:
    """29.6 W; 3 x 3 kernels on 28-pixel tiles over 1920 x 1080."""
    bench = load_optical("optical:4f-dmd").system
    digit = _work(1, 1, 28, 3)
    products = slots(digit, bench) * 28 * 28 * 9
    found = [f"{bench.static_w / (rate * products):.1e}" for rate in (100, 2e3, 15e3)]
    assert found == ["1.8e-08", "9.1e-10", "1.2e-10"]


def test_light_and_converters_of_one_frame() -> None:
    """Spec: 1.7e-8 J, 35 mW at 2 MHz; 6.9 uJ to read, 16.7 uJ to write, 14 W of ADC; 9.3 TB/s."""
    work = _work(1, 1, 2160, 1, "valid")
    cost = optical_cost(work, FAST)
    assert cost.count.frames == 1
    assert f"{FAST.light_j:.1e}" == "1.7e-08"
    assert f"{FAST.light_j * 2e6:.3f}" == "0.035"
    # 4,665,600 pixels x 1.5 pJ = 6.998 uJ, which the table of derived figures gives as 6.9
    assert cost.adc_j == pytest.approx(6.998e-6, rel=1e-3)
    assert cost.dac_j == pytest.approx(2 * 16.8e-6, rel=1e-2)
    assert round(cost.adc_j * 2e6) == 14
    assert f"{cost.read_samples * 2e6 / 1e12:.1f}" == "9.3"
    detected = cost.light_j * FAST.wall_plug * FAST.mask_transmission * 0.87**4 * 0.7
    assert detected == pytest.approx(FAST.light_j)


@pytest.mark.parametrize(
    ("metres", "joules"), [(450e-9, 4.41e-19), (532e-9, 3.73e-19), (1550e-9, 1.28e-19)]
)
def test_energy_of_a_photon(metres: float, joules: float) -> None:
    single = _system(wavelength_m=metres, photons=1.0)
    assert single.light_j / single.pixels == pytest.approx(joules, rel=3e-3)


def test_the_example_of_full_planes() -> None:
    """s = 8, T = 65, depth 8, r = 2, 2160, 2 MHz, 2 passes: 3,584 frames a plane load, 1,121
    images a plane, 3.2 us per image without scores.
    """
    token = _work(1, 1, 8, 8, "valid", images=65, signed_kernel=True)
    block = [64, 64, 64, 64, 128, 64]
    batch = slots(token, FAST) // 65
    costs = [optical_cost(replace(token, out_channels=o), FAST, "input", batch) for o in block]
    assert batch == 1121
    assert 8 * sum(cost.count.frames for cost in costs) == 2 * 3584
    assert f"{8 * sum(cost.time_s for cost in costs) / batch * 1e6:.1f}" == "3.2"


def test_passes_follow_signs_and_scheme() -> None:
    signed = _work(1, 1, 8, 3, signed_input=True, signed_kernel=True)
    frames = {
        scheme: optical_cost(signed, _system(scheme=scheme), "none").count.frames
        for scheme in ("split", "offset", "reference", "absolute")
    }
    assert frames == {"split": 4, "offset": 2, "reference": 2, "absolute": 1}


def test_frames_of_every_tiling_on_a_small_plane() -> None:
    """Slots of 10 samples: 10 x 10 of them on a plane of 100."""
    small = _system(rows=100, cols=100, frames_per_pass=3)
    work = _work(4, 6, 8, 3, images=1)

    def frames(tiling: Any, batch: int) -> int:
        return optical_cost(work, small, tiling, batch).count.frames

    assert frames("none", 7) == 3 * 7 * 24
    assert frames("input", 150) == 3 * 24 * 2
    assert frames("kernel", 7) == 3 * 7 * 4
    assert frames("channel", 26) == 3 * 6 * 2  # 25 squares of 2 x 2 channels
    assert frames("mixed", 100) == 3 * 4 * 6  # 6 kernels for 100 images in one load of 100 pairs
    assert frames("auto", 7) == 3 * min(7 * 24, 24, 7 * 4, 6, 4)


def test_frames_of_groups_do_not_share_channels() -> None:
    small = _system(rows=100, cols=100)
    depthwise = _work(8, 8, 8, 3, groups=8)
    assert optical_cost(depthwise, small, "input", 100).count.frames == 8
    # 8 channels x 8 kernels, of which 8 pairs are wanted, in one frame
    count = optical_cost(depthwise, small, "mixed").count
    assert (count.frames, count.merged) == (1, 8)
    assert count.use == pytest.approx(8 / 100)


def test_scores_are_all_pairs_and_are_not_shared_by_a_batch() -> None:
    scores = _work(
        2, 10, 8, 8, "valid", images=5, groups=2, dynamic=True, signed_input=True,
        signed_kernel=True,
    )  # fmt: skip
    cost = optical_cost(scores, FAST)
    assert (cost.count.tiling, cost.count.frames, cost.count.merged) == ("mixed", 4, 2)
    assert optical_cost(scores, FAST, batch=50).count.frames == 200
    # 2 x 4 slots hold 5 keys for one query: 5 loads a head, where 25 pairs over 8 slots would be 4.
    tight = _system(rows=16, cols=32)
    assert optical_cost(scores, tight, "mixed").count.frames == 4 * 2 * 5


def test_a_panel_that_does_not_change_takes_no_time() -> None:
    """One image plane, 24 kernels: a slow input panel is waited for once."""
    slow = _system(input_panel_s=1e-3, filter_panel_s=1e-6, exposure_s=1e-6, power_w=100.0)
    cost = optical_cost(_work(1, 24, 8, 3), slow, "input")
    assert (cost.input_changes, cost.filter_changes) == (1, 24)
    assert cost.time_s == pytest.approx(1e-3 + 23e-6)
    turned = _system(input_panel_s=1e-6, filter_panel_s=1e-3, exposure_s=1e-6, power_w=100.0)
    many = _work(1, 2, 8, 3, images=3)
    cost = optical_cost(many, turned, "none")
    assert (cost.input_changes, cost.filter_changes) == (6, 2)
    assert cost.time_s == pytest.approx(2e-3 + 4e-6)
    serial = _system(
        input_panel_s=1e-6, filter_panel_s=1e-3, exposure_s=2e-6, power_w=100.0, pipelined=False
    )
    assert optical_cost(many, serial, "none").time_s == pytest.approx(2e-3 + 6e-6 + 12e-6)


def test_the_three_brackets() -> None:
    linked = _system(read_bits_per_s=50e9)
    cost = optical_cost(_work(1, 24, 8, 3), linked, "input")
    assert cost.brackets.panels_s == pytest.approx(24 * 0.5e-6)
    assert cost.brackets.read_s == pytest.approx(24 * 2160 * 2160 * 8 / 50e9)
    assert cost.brackets.light_s == pytest.approx(24 * linked.light_s)
    assert cost.brackets.ruling == "read-out"
    assert cost.time_s == pytest.approx(cost.brackets.read_s)
    few = _system(read_bits_per_s=50e9, read="results")
    cost = optical_cost(_work(1, 24, 8, 3), few, "input")
    assert cost.read_samples == cost.results == 24 * 100
    dim = _system(power_w=1e-3)
    cost = optical_cost(_work(1, 24, 8, 3), dim, "input")
    assert cost.brackets.ruling == "light"
    assert cost.time_s == pytest.approx(24 * dim.light_s)


def test_data_links_of_the_panels() -> None:
    linked = _system(write_bits_per_s=1e10)
    cost = optical_cost(_work(1, 1, 8, 3), linked, "none")
    assert cost.time_s == pytest.approx(2160 * 2160 * 8 / 1e10)


def test_sizes_that_do_not_fit_say_so() -> None:
    huge = _work(1, 1, 2160, 7)
    text = fits(huge, FAST)
    assert text.startswith("a tile of 2166 x 2166 samples (image 2160 x 2160, kernel 7 x 7, full)")
    with pytest.raises(VitruviusError, match=r"4f-2mhz: a tile of 2166 x 2166 .* 2160 x 2160"):
        optical_cost(huge, FAST)
    assert fits(_work(1, 1, 2160, 7, "valid"), FAST) == ""


def test_use_never_exceeds_the_plane() -> None:
    for tiling in ("none", "input", "kernel", "channel", "mixed"):
        for batch in (1, 3, 500):
            count = frame_count(_work(5, 7, 8, 3), (128, 96), "split", 1, tiling, batch)
            assert 0 < count.use <= 1
            grids = (count.layout.images, count.layout.channels, count.layout.kernels)
            assert all(
                prod(grid[axis] for grid in grids) * count.layout.pitch[axis] <= (128, 96)[axis]
                for axis in (0, 1)
            )
