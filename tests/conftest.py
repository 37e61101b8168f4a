"""What every test shares: results that do not depend on the machine's number of cores."""

from __future__ import annotations

import pytest
import torch

from vitruvius.models.datasets import digits
from vitruvius.models.quantize import quantize
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace


def pytest_configure(config: pytest.Config) -> None:
    """One torch thread each: several would compete for the cores of the other workers."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digit_images():
    """The digits, split as everywhere."""
    return digits()


@pytest.fixture(scope="session")
def digits_workload():
    """vit_digits with its shipped weights."""
    return resolve_model("vit_digits")


@pytest.fixture(scope="session")
def digits_graph(digits_workload):
    """The traced vit_digits."""
    return trace(digits_workload.module, digits_workload.example_inputs, name="vit_digits")


@pytest.fixture(scope="session")
def digits_model(digits_graph, digit_images):
    """The integer vit_digits, calibrated on training images."""
    return quantize(digits_graph, digit_images.calibration_images)
