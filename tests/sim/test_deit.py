"""DeiT-Tiny at its real size in Verilog: every logit, every block boundary, every counter."""

from __future__ import annotations

import pytest
import torch

from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.models.datasets import photographs
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.zoo import ZOO
from vitruvius.sim.cosim import cosimulate

NAME = "deit_tiny_patch16_224"
BARS = {"large": 1_360_000, "medium": 5_150_000}


@pytest.fixture(scope="module")
def deit():
    torch.manual_seed(0)
    entry = ZOO[NAME]
    graph = trace(entry.build().eval(), entry.example_inputs(), name=NAME)
    return quantize(graph, photographs(8, (224, 224)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "images", "tensors"), [("large", 2, "blocks"), ("medium", 1, "none")]
)
def test_whole_images(deit, machine: str, images: int, tensors) -> None:
    program = compile_model(deit, load_machine(machine))
    report = cosimulate(program, photographs(images, (224, 224), seed=3), tensors=tensors)
    assert report.bit_exact_images == images
    assert report.tensors_compared == (25 * images if tensors == "blocks" else 0)
    assert report.cycle_exact
    assert report.rtl_cycles[0] <= BARS[machine]
