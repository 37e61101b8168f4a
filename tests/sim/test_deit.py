"""DeiT at its real size in Verilog: every logit, every block boundary, every counter."""

from __future__ import annotations

import functools

import pytest
import torch

from vitruvius.hwgen.core.compiler import compile_model
from vitruvius.hwgen.core.machine import load_machine
from vitruvius.hwgen.core.program import Program
from vitruvius.models.datasets import photographs
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.zoo import ZOO
from vitruvius.models.zoo.vit import VisionTransformer
from vitruvius.sim.cosim import CosimReport, cosimulate, prepare
from vitruvius.sim.cycle import simulate

pytestmark = pytest.mark.slow

SIZE = (224, 224)
BARS = {"large": 1_360_000, "medium": 5_150_000}
LEAST_USEFUL = 0.93
LAYERS = 12


@functools.cache
def program(size: str, layers: int, machine: str) -> Program:
    torch.manual_seed(0)
    entry = ZOO[f"deit_{size}_patch16_224"]
    config = entry.config.model_copy(update={"depth": layers})
    module = VisionTransformer(config).eval()
    graph = trace(module, entry.example_inputs(), name=f"deit_{size}_{layers}")
    return compile_model(quantize(graph, photographs(4, SIZE)), load_machine(machine))


@functools.cache
def run(size: str, layers: int, machine: str, images: int = 1, tensors="none") -> CosimReport:
    made = prepare(load_machine(machine))
    pictures = photographs(images, SIZE, seed=3)
    report = cosimulate(program(size, layers, machine), pictures, tensors=tensors, prepared=made)
    assert report.bit_exact_images == images
    assert report.cycle_exact
    return report


@pytest.mark.parametrize(
    ("machine", "images", "tensors"), [("large", 2, "blocks"), ("medium", 1, "none")]
)
def test_whole_images_of_tiny(machine: str, images: int, tensors) -> None:
    report = run("tiny", LAYERS, machine, images, tensors)
    assert report.tensors_compared == (25 * images if tensors == "blocks" else 0)
    assert report.rtl_cycles[0] <= BARS[machine]


def test_two_layers_of_small() -> None:
    report = run("small", 2, "base", tensors="blocks")
    assert report.tensors_compared == 5


def test_layers_of_base_waste_little() -> None:
    """One layer with everything around it, and what a second one adds, measured in Verilog."""
    one, two = (run("base", layers, "base").rtl_cycles[0] for layers in (1, 2))
    macs = [program("base", layers, "base").macs for layers in (1, 2)]
    multipliers = load_machine("base").multipliers
    assert macs[0] / multipliers / one >= LEAST_USEFUL
    assert (macs[1] - macs[0]) / multipliers / (two - one) >= LEAST_USEFUL


def test_whole_base_wastes_little() -> None:
    """Simulated: two such layers are what the Verilog is measured on."""
    assert simulate(program("base", LAYERS, "base")).utilisation >= LEAST_USEFUL
