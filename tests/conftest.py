"""What every test shares: results that do not depend on the machine's number of cores."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vitruvius.models.datasets import digits
from vitruvius.models.quantize import quantize
from vitruvius.models.resolve import resolve_model
from vitruvius.models.trace import trace
from vitruvius.models.zoo.layers import Mlp
from vitruvius.models.zoo.vit import Experts, VisionTransformer, VisionTransformerConfig


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


@pytest.fixture(scope="session")
def unequal_experts():
    """A random integer model whose experts have hidden widths of 44, 1, 7 and 29, and images."""
    config = VisionTransformerConfig(
        image_size=8,
        patch_size=2,
        channels=1,
        classes=5,
        dim=22,
        depth=2,
        heads=2,
        mlp_ratio=2,
        experts=Experts(count=4, top_k=2, hidden_ratio=1),
    )
    torch.manual_seed(7)
    module = VisionTransformer(config).eval()
    module.blocks[1].mlp.experts = nn.ModuleList(
        Mlp(config.dim, hidden, nn.GELU()) for hidden in (44, 1, 7, 29)
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5)
        module.blocks[1].norm2.bias.zero_()  # else most tokens would go to the same experts
    images = torch.randn(6, 1, 8, 8)
    return quantize(trace(module, (images[:1],), name="unequal"), images), images
