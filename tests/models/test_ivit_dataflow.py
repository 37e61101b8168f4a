"""The tensors of a block in scheme `ivit` are those of the published data flow."""

from __future__ import annotations

import torch

from vitruvius.models.ivit_dataflow import FlowTensor, dataflow
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.zoo.vit import VisionTransformer, VisionTransformerConfig

# The integer types and shapes of one block, in order, as I-ViT's code has them: T tokens, D wide,
# H heads of d, a hidden width of 4 D. The specification of the golden, not what the golden says.
T, D, H, d = 37, 192, 3, 64
PUBLISHED = [
    (16, (T, D)), (32, (T, D)), (8, (T, D)), (32, (T, 3 * D)), (8, (T, 3 * D)), (32, (H, T, T)),
    (8, (H, T, T)), (16, (H, T, T)), (32, (H, T, d)), (8, (T, D)), (32, (T, D)), (16, (T, D)),
    (16, (T, D)), (32, (T, D)), (8, (T, D)), (32, (T, 4 * D)), (8, (T, 4 * D)), (16, (T, 4 * D)),
    (8, (T, 4 * D)), (32, (T, D)), (16, (T, D)), (16, (T, D)),
]  # fmt: skip
SCALES = {
    1: "gamma[c] sqrt(192) / 2^30", 3: "S2 S_w[c]", 4: "per tensor, one for all 3",
    5: "S4 S4 / 8", 7: "2^-15", 8: "2^-15 S4", 10: "S9 S_w[c]", 13: "gamma[c] sqrt(192) / 2^30",
    15: "S14 S_w[c]", 17: "S16 / 128", 19: "S18 S_w[c]",
}  # fmt: skip


def flow() -> list[FlowTensor]:
    config = VisionTransformerConfig(
        image_size=96, patch_size=16, channels=3, classes=10, dim=D, depth=2, heads=H
    )
    torch.manual_seed(5)
    images = torch.rand(2, 3, 96, 96)
    graph = trace(VisionTransformer(config).eval(), (images[:1],), name="two blocks")
    options = QuantizationOptions(scheme="ivit", equalise=False, bias_correction=False)
    model = quantize(graph, images, options=options)
    names = [operator.name for operator in model.operators]
    first, behind = names.index("blocks.0.norm1"), names.index("blocks.1.norm1")
    return dataflow(model, names[first - 1], names[first:behind])


def test_types_scales_and_shapes_are_the_published_ones() -> None:
    tensors = flow()
    assert [(tensor.register, tensor.shape) for tensor in tensors] == PUBLISHED
    assert [tensor.number for tensor in tensors] == list(range(len(PUBLISHED)))
    scales = {tensor.number: tensor.scale for tensor in tensors if tensor.scale != "per tensor"}
    assert scales == SCALES
    assert tensors[12].producer == "0 and 11, each requantized, then added"
    assert tensors[21].producer == "12 and 20, each requantized, then added"


def test_what_a_sum_needs_is_less_than_its_register() -> None:
    for tensor in flow():
        assert tensor.bits <= tensor.register
        if tensor.name.endswith("accumulator"):
            assert 16 < tensor.bits < 32
