"""Every tiling against conv2d, its frames against counts made by hand, and its limits."""

from __future__ import annotations

from math import prod
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.optical import convolution
from vitruvius.optical import tiling as tiling_module
from vitruvius.optical.convolution import Conv4f, correlations
from vitruvius.optical.tiling import Readout, Tiling, arrange

from .scenes import normal, reference, relative

TILINGS = get_args(Tiling)
READOUTS: tuple[Readout, ...] = ("valid", "same", "full")


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("tiling", TILINGS)
@pytest.mark.parametrize(
    ("size", "kernel", "groups", "stride", "plane"),
    [
        ((8, 8), (3, 3), 1, (1, 1), None),
        ((7, 9), (4, 4), 1, (1, 1), (44, 36)),
        ((8, 5), (2, 3), 2, (1, 2), (30, 62)),
        ((6, 6), (6, 6), 4, (1, 1), (22, 22)),
        ((9, 4), (5, 1), 2, (2, 3), None),
    ],
)
def test_equals_conv2d(
    tiling: Tiling,
    readout: Readout,
    size: tuple[int, int],
    kernel: tuple[int, int],
    groups: int,
    stride: tuple[int, int],
    plane: tuple[int, int] | None,
) -> None:
    """Batches and outputs that do not fill the last plane among them."""
    images = normal(5, 4, *size, seed=1)
    weight = normal(12, 4 // groups, *kernel, seed=2)
    layer = Conv4f(
        weight, readout=readout, stride=stride, groups=groups, tiling=tiling, plane=plane
    )
    assert relative(layer(images), reference(images, weight, readout, stride, groups)) < 1e-12


@pytest.mark.parametrize("tiling", TILINGS)
@pytest.mark.parametrize("readout", READOUTS)
def test_float32(tiling: Tiling, readout: Readout) -> None:
    images = normal(2, 8, 16, 16, seed=3, dtype=torch.float32)
    weight = normal(8, 8, 5, 5, seed=4, dtype=torch.float32)
    got = Conv4f(weight, readout=readout, tiling=tiling, plane=(64, 80))(images)
    assert got.dtype == torch.float32
    assert relative(got.double(), reference(images.double(), weight.double(), readout)) < 1e-5


@pytest.mark.parametrize("tiling", TILINGS)
def test_an_image_smaller_than_half_its_kernel(tiling: Tiling) -> None:
    images, weight = normal(4, 3, 1, 2, seed=5), normal(5, 3, 5, 4, seed=6)
    layer = Conv4f(weight, readout="same", tiling=tiling)
    assert relative(layer(images), reference(images, weight, "same")) < 1e-12


@pytest.mark.parametrize("tiling", TILINGS)
def test_memory_is_bounded_without_a_trace(tiling: Tiling, monkeypatch: pytest.MonkeyPatch) -> None:
    """One plane at a time gives what all at once do, masks once per kernel."""
    images, weight = normal(5, 4, 6, 6, seed=7), normal(6, 2, 3, 3, seed=8)
    layer = Conv4f(weight, groups=2, tiling=tiling, plane=(14, 14))
    whole = layer(images)
    monkeypatch.setattr(tiling_module, "SAMPLES", 1)
    assert relative(layer(images), whole.detach()) < 1e-14


def test_signs_that_are_absent_take_no_exposures() -> None:
    weight, frames = normal(6, 4, 3, 3, seed=9), []
    for kernel, signed_input in ((weight, True), (weight, False), (weight.abs(), False)):
        layer = Conv4f(kernel, signed_input=signed_input, tiling="channel")
        images = normal(5, 4, 8, 8, seed=10)
        images = images if signed_input else images.abs()
        assert relative(layer(images), reference(images, kernel, "valid")) < 1e-13
        frames.append(layer.frames(5, 8, 8))
    assert frames == [24, 12, 6]


@pytest.mark.parametrize(
    ("tiling", "wanted"),
    [
        # 8 x 8 slots of 10 samples; 100 images, 9 channels, 20 kernels
        ("none", 100 * 9 * 20),
        ("input", 2 * 9 * 20),
        ("kernel", 100 * 9 * 1),
        # 3 x 3 slots hold the channels, 2 x 2 of those blocks the images
        ("channel", 25 * 20),
        # 4 x 4 of the images and 2 x 2 of the kernels: 7 * 5; 2 x 4 and 4 x 2 are 13 * 3 frames,
        # 8 x 4 and 1 x 2: 4 * 10, 2 x 2 and 4 x 4: 25 * 2
        ("mixed", 9 * 7 * 5),
    ],
)
def test_frames_are_those_counted_by_hand(tiling: Tiling, wanted: int) -> None:
    layout = arrange(tiling, (8, 8), (5, 5), "same", (80, 80), images=100, channels=9, kernels=20)
    assert layout.frames(100, 9, 20) == wanted


def test_frames_are_those_the_camera_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0
    right = convolution.camera_field

    def counted(field: Tensor, mask: Tensor, size: tuple[int, int]) -> Tensor:
        nonlocal taken
        seen = right(field, mask, size)
        taken += prod(seen.shape[:-2])
        return seen

    monkeypatch.setattr(convolution, "camera_field", counted)
    images, weight = normal(7, 6, 8, 8, seed=11), normal(10, 3, 3, 3, seed=12)
    for tiling in TILINGS:
        layer = Conv4f(weight, groups=2, tiling=tiling, plane=(18, 28))
        taken = 0
        layer(images)
        assert taken == layer.frames(7, 8, 8), tiling


def test_tiles_per_plane_are_the_published_ones() -> None:
    """FatNet's 3136 images of 32 x 32 on 2160 samples; 72,900 tokens of 8 x 8 without guard."""
    fatnet = arrange("input", (32, 32), (7, 7), "full", (2160, 2160), images=10_000)
    assert prod(fatnet.images) == 3136
    tokens = arrange("input", (8, 8), (8, 8), "valid", (2160, 2160), images=100_000)
    assert prod(tokens.images) == 72_900
    assert (
        prod(arrange("input", (8, 8), (7, 7), "full", (2160, 2160), images=100_000).images)
        == 23_716
    )


def test_channels_lie_in_a_square_as_published() -> None:
    """Li and Gupta: ceil(sqrt(C)) tiles a side, as many blocks as fit."""
    layout = arrange("channel", (30, 30), (3, 3), "full", (2160, 3840), images=500, channels=70)
    assert layout.channels == (9, 9)
    assert prod(layout.images) == (2160 // (9 * 32)) * (3840 // (9 * 32))
    narrow = arrange("channel", (30, 30), (3, 3), "full", (96, 3840), images=5, channels=70)
    assert narrow.channels == (3, 24)
    assert narrow.frames(5, 70, 1) == 1
    crowded = arrange("channel", (30, 30), (3, 3), "full", (64, 64), images=2, channels=9)
    assert crowded.frames(2, 9, 1) == 2 * 3


def test_nine_queries_meet_sixteen_keys_in_one_frame() -> None:
    """A plane of A B s samples a side is enough, as measured before: 9 x 16 pairs, s = 8."""
    queries, keys = normal(9, 8, 8, seed=13), normal(16, 8, 8, seed=14)
    layout = arrange("mixed", (8, 8), (8, 8), "valid", (96, 96), images=9, kernels=16)
    assert layout.frames(9, 1, 16) == 1
    got = correlations(queries, keys, plane=(96, 96))
    assert float((got - queries.flatten(1) @ keys.flatten(1).mT).abs().max()) < 1e-12


@pytest.mark.parametrize("plane", [None, (72, 60), (8, 6), (26, 200)])
def test_scores_are_the_product_of_flattened_planes(plane: tuple[int, int] | None) -> None:
    """Non-square tokens, batch and heads before them, planes that do not hold all pairs."""
    queries, keys = normal(2, 3, 10, 8, 6, seed=15), normal(2, 3, 7, 8, 6, seed=16)
    wanted = queries.flatten(-2) @ keys.flatten(-2).mT
    got = correlations(queries, keys, plane=plane)
    assert relative(got, wanted) < 1e-12
    single = correlations(queries.float(), keys.float(), plane=plane)
    assert relative(single.double(), wanted) < 1e-5


def test_attention_of_planes_is_attention_of_vectors() -> None:
    """Scores by correlation, values by electronics, against torch's attention."""
    q, k, v = (normal(2, 9, 4, 4, seed=seed) for seed in (17, 18, 19))
    weights = (correlations(q, k) / 4).softmax(-1)
    wanted = functional.scaled_dot_product_attention(q.flatten(2), k.flatten(2), v.flatten(2))
    assert relative(weights @ v.flatten(2), wanted) < 1e-12


@pytest.mark.parametrize("tiling", TILINGS)
@pytest.mark.parametrize("positive", [True, False])
def test_gradients_through_the_intensity(tiling: Tiling, positive: bool) -> None:
    """Odd and even taps. A root with a low floor is steep in the dark, where signed parts are."""
    images, weight = normal(2, 2, 3, 3, seed=20), normal(2, 2, 3, 2, seed=21)
    if positive:
        images, weight = images.abs() + 0.5, weight.abs() + 0.5
    layer = Conv4f(
        weight, tiling=tiling, floor=1e-6 if positive else 1e-2, signed_input=not positive
    )

    def run(x: Tensor, w: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": w}, (x,))

    assert torch.autograd.gradcheck(run, (images.requires_grad_(), weight.requires_grad_()))


def test_gradients_of_scores() -> None:
    queries, keys = normal(2, 2, 2, 3, seed=22), normal(2, 3, 2, 3, seed=23)
    assert torch.autograd.gradcheck(
        lambda q, k: correlations(q, k, floor=1e-2),
        (queries.requires_grad_(), keys.requires_grad_()),
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tiling": "both"}, "tiling must be none, input, kernel, channel, mixed, got 'both'"),
        ({"readout": "wrap"}, "readout must be valid, same, full, got 'wrap'"),
        ({"plane": (32, 31)}, "even number of samples a side, the axis in its middle, got 32 x 31"),
        (
            {"plane": (32, 8)},
            "a plane of 32 x 8 samples is too small: an image of 8 and a kernel of 5 samples need "
            "12 for a full readout, or the image wraps round into itself",
        ),
        (
            {"readout": "valid", "kernel": (3, 9)},
            "a valid readout expects images of at least 3 x 9, the kernel, got 8 x 8",
        ),
    ],
)
def test_bad_layouts_are_one_sentence_each(changes: dict[str, object], text: str) -> None:
    given: dict[str, object] = {
        "tiling": "mixed",
        "size": (8, 8),
        "kernel": (5, 5),
        "readout": "full",
        "plane": (32, 32),
    }
    with pytest.raises(VitruviusError) as refusal:
        arrange(**(given | changes))  # type: ignore[arg-type]
    assert text in str(refusal.value)


@pytest.mark.parametrize(
    ("queries", "keys"), [((3, 4, 4), (3, 4, 5)), ((2, 3, 4, 4), (3, 4, 4)), ((4, 4), (4, 4))]
)
def test_scores_of_unlike_planes_are_refused(
    queries: tuple[int, ...], keys: tuple[int, ...]
) -> None:
    with pytest.raises(VitruviusError, match=r"expected queries .* and keys .* of one size"):
        correlations(torch.ones(queries), torch.ones(keys))
