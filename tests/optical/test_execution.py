"""Traced models through the optics, against PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vitruvius.errors import VitruviusError
from vitruvius.models.graph import Graph, execute
from vitruvius.models.trace import trace
from vitruvius.models.zoo.vit import VisionTransformer, VisionTransformerConfig
from vitruvius.optical.execution import (
    DeviceOptics,
    MathOptics,
    Optics,
    calibrated,
    execute_through,
)
from vitruvius.optical.mapping import Placed, mapped
from vitruvius.optical.options import DeviceOptions

NOISY = DeviceOptions(photons=1e3, read_noise_e=2, panel_bits=6, adc_bits=8)


def doubled(graph: Graph) -> Graph:
    """The same graph in float64."""
    tensors = {key: value.double() for key, value in graph.tensors.items()}
    return Graph(
        graph.name, graph.operators(), tensors, regions=graph.regions, batched=graph.batched
    )


@pytest.fixture(scope="module")
def small() -> Graph:
    """A Vision Transformer of 5 tokens whose planes are not square: 3 x 4, heads 2 x 3."""
    torch.manual_seed(3)
    config = VisionTransformerConfig(
        image_size=8, patch_size=4, channels=1, classes=3, dim=12, depth=1, heads=2, mlp_ratio=2
    )
    return doubled(trace(VisionTransformer(config), (torch.zeros(1, 1, 8, 8),), name="small"))


@pytest.fixture(scope="module")
def convolutions() -> Graph:
    """Groups, strides, dilation, an even kernel, and padding of every sort."""
    torch.manual_seed(4)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, groups=3),
        nn.ReLU(),
        nn.Conv2d(6, 4, (3, 2), stride=(2, 1), dilation=2, padding=(1, 0), bias=False),
        nn.Conv2d(4, 2, 2, padding=1),
        nn.Flatten(),
        nn.LazyLinear(5),
    )
    module(torch.zeros(1, 3, 9, 8))
    return doubled(trace(module.eval(), (torch.zeros(1, 3, 9, 8),), name="convolutions"))


def images(graph: Graph, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    shape = graph.operator(graph.inputs[0]).output.shape[1:]
    return torch.rand(count, *shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", ["small", "convolutions"])
@pytest.mark.parametrize(
    "optics",
    [
        MathOptics(),
        DeviceOptics(DeviceOptions()),
        DeviceOptics(DeviceOptions(plane=32)),
        DeviceOptics(DeviceOptions(tiling="channel")),
        DeviceOptics(DeviceOptions(scheme="reference"), propagated=True),
    ],
    ids=["math", "devices", "tiles", "channels", "propagation"],
)
def test_each_layer_equals_pytorch(
    name: str, optics: Optics, request: pytest.FixtureRequest
) -> None:
    graph = request.getfixturevalue(name)
    shown = images(graph)
    placed = mapped(graph, non_negative_inputs=True)
    got, exact = execute_through(graph, shown, placed, optics)
    wanted = execute(graph, shown)
    torch.testing.assert_close(exact, wanted, rtol=0, atol=0)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


def test_float32_is_close(digits_graph: Graph, digit_images) -> None:
    placed = mapped(digits_graph, non_negative_inputs=True)
    shown = digit_images.test_images[:8]
    got, exact = execute_through(digits_graph, shown, placed, DeviceOptics(DeviceOptions()))
    assert float((got - exact).norm() / exact.norm()) < 1e-5


def test_only_what_is_mapped_meets_the_devices(small: Graph) -> None:
    """With 3-bit panels, an operator has an error if and only if it is on optics."""
    shown = images(small)
    for forms in (("conv",), ("linear",), ("scores",)):
        placed = mapped(small, forms)
        seen: dict[str, float] = {}

        def observe(
            item: Placed, output: torch.Tensor, same: torch.Tensor, exact: torch.Tensor
        ) -> None:
            seen[item.operator.kind] = float((output - same).norm() / same.norm())  # noqa: B023

        execute_through(small, shown, placed, DeviceOptics(DeviceOptions(panel_bits=3)), observe)
        kind = {"conv": "Conv2d", "linear": "Linear", "scores": "MatMul"}[forms[0]]
        assert set(seen) == {kind}
        assert seen[kind] > 0.01


def test_own_and_carried_error_are_the_same_at_the_first_operator(small: Graph) -> None:
    errors = []

    def observe(
        item: Placed, output: torch.Tensor, same: torch.Tensor, exact: torch.Tensor
    ) -> None:
        errors.append((float((output - same).norm()), float((output - exact).norm())))

    optics = DeviceOptics(DeviceOptions(panel_bits=4))
    execute_through(small, images(small), mapped(small), optics, observe)
    assert errors[0][0] == errors[0][1] > 0
    assert all(own != carried for own, carried in errors[1:])


def test_light_is_set_by_calibration_images_not_by_what_is_run(small: Graph) -> None:
    """An image's output does not depend on the images beside it, and seeds repeat."""
    placed, shown = mapped(small), images(small, 6)
    quiet = DeviceOptions(panel_bits=6, adc_bits=8)
    lights = calibrated(small, shown[3:], placed, DeviceOptics(quiet))
    both, _ = execute_through(small, shown[:3], placed, DeviceOptics(quiet, lights))
    alone, _ = execute_through(small, shown[:1], placed, DeviceOptics(quiet, lights))
    torch.testing.assert_close(both[:1], alone, rtol=0, atol=1e-12)
    runs = [
        execute_through(
            small,
            shown[:3],
            placed,
            DeviceOptics(NOISY, lights, generator=torch.Generator().manual_seed(seed)),
        )[0]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_propagation_meets_the_same_panels_as_the_two_transforms() -> None:
    """On square planes, where both have the same masks, levels give the same numbers."""
    torch.manual_seed(6)
    module = nn.Sequential(nn.Linear(16, 4), nn.GELU(), nn.Linear(4, 3))
    graph = doubled(trace(module, (torch.zeros(1, 5, 16),), name="square"))
    placed = mapped(graph)
    coarse = DeviceOptions(panel_bits=4, camera_shift=(0.1, 0.0))
    lights = calibrated(graph, images(graph), placed, DeviceOptics(coarse))
    waves, exact = execute_through(
        graph, images(graph), placed, DeviceOptics(coarse, lights, propagated=True)
    )
    transforms, _ = execute_through(graph, images(graph), placed, DeviceOptics(coarse, lights))
    torch.testing.assert_close(waves, transforms, rtol=0, atol=1e-9)
    assert float((waves - exact).norm() / exact.norm()) > 0.01


def test_a_model_traced_for_one_image_runs_image_by_image() -> None:
    class Pinned(nn.Module):
        """Reshapes to a batch of one."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.reshape(1, 4))

    torch.manual_seed(7)
    graph = trace(Pinned(), (torch.zeros(1, 4),), name="pinned")
    assert not graph.batched
    shown = torch.rand(3, 4)
    got, exact = execute_through(graph, shown, mapped(graph), MathOptics())
    torch.testing.assert_close(got, exact, rtol=0, atol=1e-5)


def test_two_outputs_are_refused() -> None:
    class Two(nn.Module):
        """Returns its input twice."""

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + 1, x + 2

    graph = trace(Two(), (torch.zeros(1, 4),), name="two")
    with pytest.raises(VitruviusError, match="has 2 outputs, expected exactly one"):
        execute_through(graph, torch.zeros(1, 4), mapped(graph), MathOptics())
