"""The 4f convolution against torch's, and against itself with each known mistake put in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.optical import convolution
from vitruvius.optical.convolution import Conv4f, Readout
from vitruvius.optical.planes import (
    camera_amplitude,
    centred_dft,
    fourier_mask,
    input_plane,
    kernel_plane,
    upright,
)
from vitruvius.optical.schemes import passes
from vitruvius.optical.tiling import Layout

from .scenes import normal, reference, relative

READOUTS: tuple[Readout, ...] = ("valid", "same", "full")


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 5), (2, 2), (4, 4), (3, 2), (2, 5), (7, 1)])
@pytest.mark.parametrize("size", [(7, 7), (8, 8), (11, 8), (8, 13)])
def test_equals_conv2d(readout: Readout, kernel: tuple[int, int], size: tuple[int, int]) -> None:
    images, weight = normal(2, 3, *size, seed=1), normal(4, 3, *kernel, seed=2)
    got = Conv4f(weight, readout=readout)(images)
    wanted = reference(images, weight, readout)
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max().detach()) < 1e-12


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("kernel", [3, 6])
def test_float32(readout: Readout, kernel: int) -> None:
    images = normal(2, 8, 16, 16, seed=3, dtype=torch.float32)
    weight = normal(8, 8, kernel, kernel, seed=4, dtype=torch.float32)
    got = Conv4f(weight, readout=readout)(images)
    assert got.dtype == torch.float32
    assert relative(got.double(), reference(images.double(), weight.double(), readout)) < 1e-5


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("stride", [(2, 2), (3, 1), (1, 4)])
def test_stride_decimates(readout: Readout, stride: tuple[int, int]) -> None:
    images, weight = normal(2, 2, 9, 10, seed=5), normal(3, 2, 3, 4, seed=6)
    got = Conv4f(weight, readout=readout, stride=stride)(images)
    assert relative(got, reference(images, weight, readout, stride)) < 1e-13


def test_patch_embedding_of_the_digits_model() -> None:
    images, weight = normal(3, 1, 8, 8, seed=7), normal(64, 1, 2, 2, seed=8)
    got = Conv4f(weight, stride=(2, 2))(images)
    assert relative(got, functional.conv2d(images, weight, stride=2)) < 1e-13


@pytest.mark.parametrize("groups", [2, 4])
def test_groups(groups: int) -> None:
    images, weight = normal(2, 4, 6, 6, seed=9), normal(8, 4 // groups, 3, 3, seed=10)
    got = Conv4f(weight, readout="same", groups=groups)(images)
    assert relative(got, reference(images, weight, "same", groups=groups)) < 1e-13


def test_a_linear_layer_is_a_shared_depthwise_valid_convolution() -> None:
    """ConvShareViT's identity: every token is a plane, the kernels are the weight's rows."""
    tokens, side, features = 5, 4, 16
    x, weight = normal(2, tokens, side, side, seed=11), normal(features, side * side, seed=12)
    layer = Conv4f(weight.reshape(features, 1, side, side))
    got = layer(x.reshape(2 * tokens, 1, side, side)).reshape(2, tokens, features)
    assert relative(got, functional.linear(x.flatten(2), weight)) < 1e-13


def test_every_image_and_channel_stays_in_its_place() -> None:
    images, weight = normal(5, 3, 8, 8, seed=13), normal(4, 3, 3, 3, seed=14)
    whole = Conv4f(weight)(images)
    batch, outs, ins = (
        torch.tensor([3, 0, 4, 1, 2]),
        torch.tensor([2, 0, 3, 1]),
        torch.tensor([2, 0, 1]),
    )
    assert torch.equal(Conv4f(weight)(images[batch]), whole[batch])
    assert torch.equal(Conv4f(weight[outs])(images), whole[:, outs])
    assert relative(Conv4f(weight[:, ins])(images[:, ins]), whole.detach()) < 1e-14


@pytest.mark.parametrize("size", [6, 8, 10])
def test_two_lenses_rotate_by_180_degrees_about_the_axis(size: int) -> None:
    plane = normal(2, size, size, seed=15)
    through = centred_dft(centred_dft(plane)) / size**2
    assert relative(upright(through.real), plane) < 1e-14
    assert relative(through.real, plane) > 0.5


def test_the_mask_is_passive() -> None:
    mask, gain = fourier_mask(normal(3, 8, 8, seed=16))
    assert float(mask.abs().amax()) == pytest.approx(1, abs=1e-12)
    assert gain.shape == (3, 1, 1)
    dark, unit = fourier_mask(torch.zeros(8, 8, dtype=torch.float64))
    assert not dark.abs().any()
    assert float(unit) == 1


def test_the_layer_is_the_planes_of_a_4f_system() -> None:
    """Its half spectra with the axis at sample 0 give what centred planes and a passive mask do."""
    image, kernel = normal(1, 1, 8, 7, seed=29).abs(), normal(1, 1, 3, 4, seed=30).abs()
    mask, gain = fourier_mask(kernel_plane(kernel, (12, 14)))
    seen = camera_amplitude(input_plane(image, (12, 14)), mask, 1e-3) * gain
    layer = Conv4f(kernel, readout="same", signed_input=False, floor=1e-3, plane=(12, 14))
    assert relative(layer(image), seen[..., 2:10, 4:11]) < 1e-14


def _wrong(
    place: object, name: str, function: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> float:
    """Relative error of the layer with one of its steps replaced."""
    images, weight = normal(2, 3, 12, 12, seed=17).abs(), normal(4, 3, 5, 5, seed=18)
    wanted = reference(images, weight, "same")
    right = relative(Conv4f(weight, readout="same")(images), wanted)
    monkeypatch.setattr(place, name, function)
    wrong = relative(Conv4f(weight, readout="same")(images), wanted)
    assert right < 1e-13
    return wrong


def test_an_unflipped_kernel_is_another_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Layout.kernel_planes
    unflipped = lambda self, tiles: right(self, tiles.flip((-2, -1)))  # noqa: E731
    assert _wrong(Layout, "kernel_planes", unflipped, monkeypatch) > 0.3


@pytest.mark.parametrize("by", ["half a plane", "one sample"])
def test_a_mask_off_its_centre_is_wrong(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Layout.kernel_planes

    def moved(self: Layout, tiles: Tensor) -> Tensor:
        step = 1 if by == "one sample" else self.plane[0] // 2
        return right(self, tiles).roll((step, step), (-2, -1))

    assert _wrong(Layout, "kernel_planes", moved, monkeypatch) > 0.5


def test_a_camera_read_the_wrong_way_round_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    right = convolution.camera_field
    turned = lambda *given: upright(right(*given))  # noqa: E731
    assert _wrong(convolution, "camera_field", turned, monkeypatch) > 0.1


def test_shifting_the_batch_too_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    right = convolution.camera_field
    rolled = lambda *given: torch.fft.fftshift(right(*given), dim=0)  # noqa: E731
    assert _wrong(convolution, "camera_field", rolled, monkeypatch) > 0.1


def test_reading_intensity_as_amplitude_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    intensity = lambda field, gain, floor: field.square()  # noqa: E731
    assert _wrong(convolution, "detected", intensity, monkeypatch) > 0.1


def test_a_signed_input_needs_the_split_of_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    images, weight = normal(1, 1, 12, 12, seed=19), normal(2, 1, 3, 3, seed=20)
    wanted = reference(images, weight, "valid")
    assert relative(Conv4f(weight)(images), wanted) < 1e-13
    with pytest.raises(VitruviusError, match="the camera would lose its sign"):
        Conv4f(weight, signed_input=False)(images)
    kernel_only = Conv4f(weight, signed_input=False)
    monkeypatch.setattr(kernel_only, "_check", lambda images: None)
    assert relative(kernel_only(images), wanted) > 0.3


def test_a_signed_kernel_needs_the_split_of_the_kernel() -> None:
    images, weight = normal(1, 1, 12, 12, seed=21).abs(), normal(1, 1, 3, 3, seed=22)
    layer = Conv4f(weight, signed_input=False)
    assert layer.passes == 2
    assert relative(layer(images), reference(images, weight, "valid")) < 1e-13
    magnitude = reference(images, weight, "valid").abs()
    assert relative(magnitude, reference(images, weight, "valid")) > 0.1


@pytest.mark.parametrize(("readout", "guard"), [("full", 4), ("same", 2), ("valid", 0)])
def test_the_guard_band_is_as_wide_as_needed(
    readout: Readout, guard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exact on the smallest plane; with two samples less the wrap is read."""
    images, weight = normal(1, 1, 8, 8, seed=23), normal(1, 1, 5, 5, seed=24)
    layer = Conv4f(weight, readout=readout)
    wanted = reference(images, weight, readout)
    assert layer.layout(1, 8, 8).plane == (8 + guard, 8 + guard)
    assert relative(layer(images), wanted) < 1e-13
    if guard:
        right = convolution.camera_field

        def smaller(field: Tensor, mask: Tensor, size: tuple[int, int]) -> Tensor:
            """The plane of ``size`` wrapped round into one of two samples less."""
            seen = right(field, mask, size)
            for axis in (-2, -1):
                whole = seen.shape[axis]
                seen = seen.clone()
                ends = seen.narrow(axis, 0, 2), seen.narrow(axis, whole - 2, 2)
                both = ends[0] + ends[1]
                ends[0].copy_(both)
                ends[1].copy_(both)
            return seen

        monkeypatch.setattr(convolution, "camera_field", smaller)
        assert relative(layer(images), wanted) > 0.1


def test_passes_follow_the_signs() -> None:
    assert [
        passes("split", signed_input=i, signed_kernel=k)
        for i in (False, True)
        for k in (False, True)
    ] == [
        1,
        2,
        2,
        4,
    ]
    weight = normal(1, 1, 3, 3, seed=25)
    assert Conv4f(weight).passes == 4
    assert Conv4f(weight.abs()).passes == 2
    assert Conv4f(weight.abs(), signed_input=False).passes == 1


@pytest.mark.parametrize("signed_input", [True, False])
def test_gradients_through_the_intensity(signed_input: bool) -> None:
    images, weight = normal(1, 2, 5, 5, seed=26), normal(2, 2, 3, 3, seed=27)
    if not signed_input:
        images = images.abs() + 0.1
    layer = Conv4f(weight, readout="same", signed_input=signed_input, floor=1e-2)

    def run(x: Tensor, w: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": w}, (x,))

    assert torch.autograd.gradcheck(run, (images.requires_grad_(), weight.requires_grad_()))


def test_gradients_are_finite_in_the_dark() -> None:
    layer = Conv4f(normal(1, 1, 3, 3, seed=28))
    images = torch.zeros(1, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    layer(images).sum().backward()
    assert images.grad is not None
    assert layer.weight.grad is not None
    assert bool(torch.isfinite(images.grad).all() and torch.isfinite(layer.weight.grad).all())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"weight": torch.ones(2, 3)}, "expected a floating-point weight"),
        ({"weight": torch.ones(1, 1, 3, 3, dtype=torch.int8)}, r"got int8 \[1, 1, 3, 3\]"),
        ({"readout": "wrap"}, "readout must be valid, same, full, got 'wrap'"),
        ({"stride": (0, 1)}, "stride must be at least 1"),
        ({"groups": 3}, "groups must divide the 4 output channels, got 3"),
        ({"floor": -1.0}, "floor must not be negative"),
    ],
)
def test_bad_layers_are_refused(arguments: dict[str, object], text: str) -> None:
    given: dict[str, object] = {"weight": torch.ones(4, 2, 3, 3), **arguments}
    with pytest.raises(VitruviusError, match=text):
        Conv4f(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (
            torch.ones(1, 3, 8, 8),
            r"expected images \[batch, 2, height, width\], got \[1, 3, 8, 8\]",
        ),
        (torch.ones(1, 2, 8, 8, dtype=torch.float64), "expected images of float32"),
        (torch.ones(1, 2, 2, 8), "at least 3 x 3, the kernel, got 2 x 8"),
    ],
)
def test_bad_images_are_refused(images: Tensor, text: str) -> None:
    with pytest.raises(VitruviusError, match=text):
        Conv4f(torch.ones(4, 2, 3, 3))(images)
