"""Tiles, frames and times against the figures that FatNet and Li & Gupta publish."""

from __future__ import annotations

import pytest

from vitruvius.errors import VitruviusError
from vitruvius.optical.cost import (
    FATNET_OPTICS,
    PUBLISHED,
    ConvolutionWork,
    Optics,
    PublishedTiming,
    convolution_cost,
    fatnet_time_per_image,
)

# CIFAR-100 FatNet, (input channels, output channels); the published count leaves the last layer
# out.
FATNET_LAYERS = [
    (3, 64), *[(64, 64)] * 4, (64, 82), *[(82, 82)] * 3, (82, 78), *[(78, 78)] * 3,
    (78, 151), (151, 155), (155, 151), (151, 155),
]  # fmt: skip
# ResNet-18 for small images: stem, 4 stages of 4 convolutions, three 1 x 1 shortcuts.
RESNET18_LAYERS = [
    (3, 64), *[(64, 64)] * 4, (64, 128), *[(128, 128)] * 3, (128, 256), *[(256, 256)] * 3,
    (256, 512), *[(512, 512)] * 3,
]  # fmt: skip
VGG16_LAYERS = [
    (3, 64), (64, 64), (64, 128), (128, 128), (128, 256), *[(256, 256)] * 2,
    (256, 512), *[(512, 512)] * 5,
]  # fmt: skip


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda p: f"{p.network}-{p.batch}")
def test_fatnet_timings_to_four_digits(published: PublishedTiming) -> None:
    got = fatnet_time_per_image([(1, published.convolutions)], batch=published.batch)
    assert f"{got:.3e}" == f"{published.time_per_image_s:.3e}"
    assert published.source.startswith("published: ")


def test_fatnet_count_follows_from_its_layers() -> None:
    """The layer list reproduces the published number of convolutions, and so the published time."""
    assert sum(i * o for i, o in FATNET_LAYERS) == 148_637
    assert f"{fatnet_time_per_image(FATNET_LAYERS, batch=3136):.3e}" == "9.479e-05"


def test_resnet18_count_follows_from_its_layers() -> None:
    assert sum(i * o for i, o in RESNET18_LAYERS) == 1_220_800


@pytest.mark.parametrize(
    ("rows", "size", "kernel", "tiles"),
    [(2160, 32, 7, 3136), (2160, 32, 3, 3969), (3840, 32, 3, 12_544)],
)
def test_tiles_with_the_published_block_rule(rows: int, size: int, kernel: int, tiles: int) -> None:
    optics = Optics("square", rows, rows, 1e-6, 1e-6, 1e-6, source="test")
    assert optics.tiles(size, kernel, "full") == tiles


def test_a_valid_readout_packs_more() -> None:
    assert FATNET_OPTICS.tiles(8, 7, "valid") == 72_900
    assert FATNET_OPTICS.tiles(8, 7, "full") == 154**2


def test_li_and_gupta_vgg16_without_tiling() -> None:
    """0.817 s: S. Li, P. Gupta, Proc. SPIE 12019, 2022; 2 MHz, one pass, one frame each."""
    optics = Optics("4K", 2160, 3840, 0.5e-6, 0.5e-6, 0.5e-6, source="Li & Gupta 2022")
    costs = [
        convolution_cost(
            ConvolutionWork(1, i, o, 32, 3, signed_input=False, signed_kernel=False, tiled=False),
            optics,
        )
        for i, o in VGG16_LAYERS
    ]
    assert sum(cost.frames for cost in costs) == 1_634_496
    assert f"{sum(cost.time_s for cost in costs):.3f}" == "0.817"


def test_frames_count_passes_settings_pairs_and_plane_loads() -> None:
    optics = Optics("small", 100, 100, 2e-6, 1e-6, 1e-6, source="test", frames_per_pass=3)
    cost = convolution_cost(ConvolutionWork(26, 4, 6, 16, 5, "full"), optics)
    # 25 tiles of 20 samples, so 26 images are two loads; signed input and kernel are four passes.
    assert (cost.tiles, cost.passes, cost.frames) == (25, 4, 4 * 3 * 24 * 2)
    assert cost.time_s == pytest.approx(576 * 2e-6)
    assert cost.bottleneck == "input panel"
    depthwise = convolution_cost(ConvolutionWork(26, 4, 8, 16, 5, "full", groups=4), optics)
    assert depthwise.frames == 4 * 3 * 8 * 2


def test_the_camera_link_can_be_the_bottleneck() -> None:
    """2160 x 2160 samples of 8 bits at 2 MHz are 9.3 TB/s; 10 Gbit/s make a frame 3.7 ms."""
    optics = Optics("linked", 2160, 2160, 5e-7, 5e-7, 5e-7, source="test", read_bits_per_s=1e10)
    frame_s, bottleneck = optics.frame()
    assert bottleneck == "read-out"
    assert frame_s == pytest.approx(2160 * 2160 * 8 / 1e10)
    serial = Optics("s", 10, 10, 1e-3, 2e-3, 3e-3, source="test", pipelined=False)
    assert serial.frame() == (pytest.approx(6e-3), "exposure")


@pytest.mark.parametrize("batch", [0, 3137])
def test_a_batch_beyond_one_plane_is_refused(batch: int) -> None:
    with pytest.raises(VitruviusError, match=f"batch must be 1 to 3136, .* got {batch}"):
        fatnet_time_per_image([(3, 64)], batch=batch)


def test_bad_figures_are_refused_all_at_once() -> None:
    with pytest.raises(VitruviusError, match=r"optics bad: rows .* got 0; exposure_s .* got -1"):
        Optics("bad", 0, 10, 0.0, 0.0, -1.0, source="test")
    with pytest.raises(VitruviusError, match="images must be at least 1, got 0"):
        ConvolutionWork(0, 1, 1, 8, 3)
    with pytest.raises(VitruviusError, match="groups must divide 4 and 6 channels, got 4"):
        ConvolutionWork(1, 4, 6, 8, 3, groups=4)
    with pytest.raises(VitruviusError, match="holds no image of 2166 x 2166"):
        convolution_cost(ConvolutionWork(1, 1, 1, 2160, 7, "full"), FATNET_OPTICS)
