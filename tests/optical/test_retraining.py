"""Noise-aware retraining: what it sees forwards, what it learns by, and what it leaves on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from vitruvius.errors import VitruviusError
from vitruvius.models.datasets import Dataset
from vitruvius.models.graph import Graph, execute
from vitruvius.models.trace import trace
from vitruvius.models.weights import load_weights
from vitruvius.optical.camera import Camera
from vitruvius.optical.execution import DeviceOptics, execute_once
from vitruvius.optical.mapping import Placed, mapped
from vitruvius.optical.options import DeviceOptions
from vitruvius.optical.retraining import NormalCamera, TrainingOptics, retrain, shared_tensors

DARK = DeviceOptions(photons=20.0, read_noise_e=2.0, panel_bits=6, adc_bits=10)


def made(seed: int = 0) -> tuple[nn.Module, Graph, list[Placed]]:
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 2, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)
    ).eval()
    graph = trace(module, (torch.zeros(1, 1, 8, 8),), name="tiny")
    return module, graph, mapped(graph, non_negative_inputs=True)


@pytest.fixture
def few(digit_images: Dataset) -> Dataset:
    """128 training images."""
    return replace(
        digit_images,
        train_images=digit_images.train_images[:128],
        train_labels=digit_images.train_labels[:128],
    )


@pytest.mark.parametrize("photons", [30.0, 1e4])
@pytest.mark.parametrize("part", [0.1, 1.0])
def test_the_quick_camera_has_the_mean_and_sigma_of_the_camera(photons: float, part: float) -> None:
    """Within 5 %, read noise and dark electrons included."""
    given = {"photons": photons, "quantum_efficiency": 0.8, "read_noise_e": 3.0, "dark_e": 2.0}
    intensity = torch.full((40_000,), part, dtype=torch.float64)
    print("seed 1")
    exact, quick = (
        camera.measure(intensity, 1.0, torch.Generator().manual_seed(1))
        for camera in (Camera(**given), NormalCamera(**given))
    )
    assert float(quick.mean()) == pytest.approx(float(exact.mean()), rel=0.01)
    assert float(quick.std()) == pytest.approx(float(exact.std()), rel=0.05)
    electrons = 0.8 * photons
    sigma = (part * electrons + 2 + 9) ** 0.5 / electrons
    assert float(exact.std()) == pytest.approx(sigma, rel=0.05)
    codes = NormalCamera(**given, adc_bits=3).measure(intensity, 1.0, None)
    assert set((codes * 7).round(decimals=9).tolist()) <= set(range(8))


def test_forwards_are_the_devices_and_backwards_the_exact_operators() -> None:
    module, graph, placed = made()
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    shared = shared_tensors(module, graph, placed)
    graph.tensors.update({key: value.view(value.shape) for key, value in shared.items()})
    coarse = DeviceOptions(panel_bits=4, adc_bits=6)
    seen = execute_once(graph, images, placed, TrainingOptics(coarse))
    devices = execute_once(graph, images, placed, DeviceOptics(coarse))
    torch.testing.assert_close(seen, devices, rtol=0, atol=1e-6)
    assert float((seen - module(images)).detach().norm()) > 0.01
    seen.sum().backward()
    # the last layer's gradient is that of a linear layer on what the optics gave it
    hidden = []
    execute_once(
        graph,
        images,
        placed,
        lambda p, o, g: (hidden.append(o[0]), DeviceOptics(coarse)(p, o, g))[1],
    )
    wanted = hidden[-1].sum(0).expand(10, -1)
    torch.testing.assert_close(module[3].weight.grad, wanted, rtol=1e-5, atol=1e-6)
    assert float(module[0].weight.grad.abs().sum()) > 0


def test_parameters_in_another_shape_are_shared() -> None:
    class Reshaped(nn.Module):
        """A matrix used as kernels."""

        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Parameter(torch.randn(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(x, self.rows.reshape(3, 1, 2, 2)).flatten(1)

    module = Reshaped()
    graph = trace(module, (torch.zeros(1, 1, 4, 4),), name="reshaped")
    shared = shared_tensors(module, graph, mapped(graph))
    assert [value is module.rows for value in shared.values()] == [True]


def test_a_weight_that_is_computed_is_refused() -> None:
    class Scaled(nn.Module):
        """Twice its parameter."""

        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Parameter(torch.randn(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.rows * 2)

    graph = trace(Scaled(), (torch.zeros(1, 4),), name="scaled")
    with pytest.raises(VitruviusError, match="is computed from the module's parameters"):
        shared_tensors(Scaled(), graph, mapped(graph))


def test_an_interrupted_run_ends_as_a_whole_one_does(few: Dataset, tmp_path: Path) -> None:
    """The same bytes, and a lower loss than at the start; other seeds, other weights."""
    losses: list[float] = []

    def stop(epoch: int, _: int, __: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    def run(name: str, *, seed: int = 0, interrupted: bool = False) -> bytes:
        def go() -> None:
            module, graph, placed = made()
            told = stop if interrupted else lambda _, __, loss: losses.append(loss)
            retrain(
                module,
                graph,
                placed,
                few,
                DARK,
                tmp_path / name,
                epochs=4,
                seed=seed,
                rate=0.02,
                progress=told,
            )

        if interrupted:
            with pytest.raises(KeyboardInterrupt):
                go()
            interrupted = False
        go()
        return (tmp_path / name).read_bytes()

    whole = run("whole")
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert run("parts", interrupted=True) == whole
    assert len(losses) == 6
    assert run("other", seed=1) != whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "parts", "whole"]


def test_the_weights_written_are_those_of_the_module(few: Dataset, tmp_path: Path) -> None:
    module, graph, placed = made()
    before = execute(graph, few.test_images[:4])
    out = tmp_path / "weights.safetensors"
    result = retrain(module, graph, placed, few, DARK, out, epochs=1, rate=0.01)
    tensors, metadata = load_weights(out)
    assert metadata["model"] == "tiny"
    assert '"photons":20.0' in metadata["devices"]
    other, _, _ = made(seed=5)
    other.load_state_dict(tensors)
    after = module(few.test_images[:4])
    torch.testing.assert_close(other(few.test_images[:4]), after, rtol=0, atol=0)
    assert not torch.allclose(before, after)
    assert result.path == out


@pytest.mark.parametrize(
    ("options", "changed", "reason"),
    [
        ({"scheme": "absolute"}, {}, "expects a scheme that computes convolutions"),
        ({}, {"epochs": 0}, "epochs must be at least 1, got 0"),
        ({}, {"rate": -1.0}, "rate must be above 0 and below 1, got -1"),
        ({}, {"seed": -1}, "seed must be between 0"),
    ],
    ids=["scheme", "epochs", "rate", "seed"],
)
def test_mistakes(
    options: dict[str, object],
    changed: dict[str, float],
    reason: str,
    few: Dataset,
    tmp_path: Path,
) -> None:
    module, graph, placed = made()
    devices = DeviceOptions.of(**options)
    with pytest.raises(VitruviusError, match=reason):
        retrain(module, graph, placed, few, devices, tmp_path / "w", **changed)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_data_set_is_refused(few: Dataset, tmp_path: Path) -> None:
    module, graph, placed = made()
    with pytest.raises(VitruviusError, match="knows digits, mnistm, got the data set cats"):
        retrain(module, graph, placed, replace(few, name="cats"), DARK, tmp_path / "w")
