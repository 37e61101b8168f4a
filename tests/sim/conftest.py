"""Machines and models that the co-simulation tests share, so that they share Verilator builds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vitruvius.hwgen.machine import load_machine
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.zoo.vit import VisionTransformer, VisionTransformerConfig

AWKWARD = """
name = "{name}"
rows = {rows}
cols = {cols}
depth = {depth}
packing = {packing}
clock_hz = 100e6
[buffers]
token = 32
key = 8
value = 8
attention = 4
residual = 8
weight = 512
column = 48
tokens = 64
features = 512
results = 128
instructions = 128
"""


@pytest.fixture(scope="session")
def machine(tmp_path_factory):
    """``machine(name)``: a shipped machine, or one of sizes that divide nothing."""
    shapes = {"awkward": (3, 5, 7), "wide": (1, 6, 4), "packed": (3, 5, 7)}
    folder = tmp_path_factory.mktemp("machines")

    def get(name):
        if name not in shapes:
            return load_machine(name)
        path = folder / f"{name}.toml"
        rows, cols, depth = shapes[name]
        packing = "true" if name == "packed" else "false"
        path.write_text(
            AWKWARD.format(name=name, rows=rows, cols=cols, depth=depth, packing=packing)
        )
        return load_machine(str(path))

    return get


@pytest.fixture(scope="session")
def odd_model():
    """(integer model, images): 7 tokens of 22 in 2 heads of 11, 3 channels, 5 classes, random."""
    torch.manual_seed(11)
    config = VisionTransformerConfig(
        image_size=6,
        patch_size=2,
        channels=3,
        dim=22,
        depth=1,
        heads=2,
        mlp_ratio=37 / 22,
        classes=5,
        norm_eps=1e-5,
    )
    module = VisionTransformer(config).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    images = torch.rand(20, 3, 6, 6)
    graph = trace(module, (images[:1],), name="odd")
    return quantize(graph, images[:16]), images[16:]
