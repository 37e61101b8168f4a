"""An image may be overwritten by the next one once every product that reads it is issued."""

from __future__ import annotations

import pytest
import torch

from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.core import Target
from vitruvius.hwgen.core.instruction import Source
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.zoo.config import VisionTransformerConfig
from vitruvius.models.zoo.vit import VisionTransformer
from vitruvius.sim.cosim import cosimulate
from vitruvius.sim.cycle import simulate

CONFIG = VisionTransformerConfig(
    image_size=(64, 64), patch_size=8, channels=3, classes=10, dim=64, depth=1, heads=2,
    mlp_ratio=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def program(images):
    """An embedding in eight parts, on a machine whose weight buffer holds the whole model, so that
    no transfer waits for weights that are still in use.
    """
    torch.manual_seed(0)
    module = VisionTransformer(CONFIG).eval()
    model = quantize(trace(module, (torch.zeros(1, 3, 64, 64),), name="patches"), images)
    small = load_machine("small")
    buffers = small.buffers.model_copy(
        update={
            "token": 64, "normal": 32, "image": 64, "key": 32, "value": 32, "attention": 32,
            "residual": 64, "constant": 64, "weight": 512, "column": 64, "tokens": 80,
        }
    )  # fmt: skip
    machine = small.model_copy(update={"rows": 1, "port_bits": 512, "buffers": buffers})
    return compile_model(model, machine)


def test_the_next_image_waits_for_every_part_of_the_embedding(program) -> None:
    """Catches a transfer that waits for the first part alone while the others read on."""
    index = next(i for i, fetch in enumerate(program.fetches) if fetch.target is Target.IMAGE)
    readers = [i for i, s in enumerate(program.steps) if s.instruction.a_source is Source.IMAGE]
    assert len(readers) > 1
    report = simulate(program, images=2)
    begun, _ = report.fetches[len(program.fetches) + index]
    assert begun >= report.products[readers[-1]].end


@pytest.mark.slow
def test_several_images_in_verilog(program, images) -> None:
    report = cosimulate(program, images, tensors="none")
    assert report.bit_exact_images == len(images)
    assert report.cycle_exact
