"""The integer model: accuracy, what it accepts, what it refuses, and that files reproduce it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.models.integer_model import IntegerModel, patches
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.train import accuracy
from vitruvius.models.zoo.vit import VisionTransformer, VisionTransformerConfig
from vitruvius.models.zoo.vit_digits import VIT_DIGITS


def tiny(**changes):
    torch.manual_seed(3)
    sizes = {"image_size": 4, "dim": 8, "depth": 1, "heads": 2, "mlp_ratio": 1.5, "classes": 3}
    config = VisionTransformerConfig(**{**VIT_DIGITS.model_dump(), **sizes, **changes})
    module = VisionTransformer(config).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    images = torch.rand(16, 1, 4, 4)
    return module, images


def test_accuracy_is_within_half_a_point_of_float(digits_workload, digits_model, digit_images):
    images, labels = digit_images.test_images, digit_images.test_labels
    assert len(labels) >= 360
    in_float = accuracy(digits_workload.module, images, labels)
    in_integers = digits_model.accuracy(images, labels)
    assert in_float >= 0.97
    assert in_integers >= in_float - 0.005


def test_codes_times_scale_follow_the_float_tensors(digits_model):
    """Each tensor's noise stays far below its signal; a wrong scale or order would be near 0 dB."""
    worst = min(digits_model.quality, key=lambda quality: quality.sqnr_db)
    assert worst.sqnr_db > 20, worst
    kinds = {quality.kind for quality in digits_model.quality}
    assert kinds == {"Embed", "LayerNorm", "Attention", "Linear", "Add", "Gelu"}


def test_one_image_alone_or_in_a_batch(digits_model, digit_images):
    images = digit_images.test_images[:5]
    together = digits_model.run(images)
    alone = torch.cat([digits_model.run(image.unsqueeze(0)) for image in images])
    assert torch.equal(together, alone)


def test_a_linear_layer_against_exact_fractions(digits_model, digit_images):
    """Linear and its requantization, recomputed with Python integers for one row."""
    from fractions import Fraction

    seen = {}
    digits_model.run(
        digit_images.test_images[:1], observe=lambda op, codes: seen.update({op.name: codes})
    )
    operator = digits_model.operator("blocks.2.attn.proj")
    role = {name: digits_model.tensors[key].tolist() for name, key in operator.tensors.items()}
    row = seen[operator.inputs[0]][0, 7].tolist()
    for output, got in enumerate(seen[operator.name][0, 7].tolist()):
        total = sum(a * b for a, b in zip(row, role["weight"][output], strict=True))
        exact = Fraction((total + role["bias"][output]) * role["multiplier"][output])
        rounded = round(exact / 2 ** role["shift"][output])  # Python rounds ties to even
        assert got == max(-32768, min(32767, rounded))


def test_save_and_load_reproduce_the_model_byte_for_byte(digits_model, digit_images, tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    digits_model.save(first)
    loaded = IntegerModel.load(first)
    loaded.save(second)
    assert first.read_bytes() == second.read_bytes()
    images = digit_images.test_images[:8]
    assert torch.equal(loaded.run(images), digits_model.run(images))


def test_patches_are_the_rows_that_a_convolution_sees():
    images = torch.arange(2 * 3 * 6 * 4, dtype=torch.float64).reshape(2, 3, 6, 4)
    weight = torch.randn(
        5, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    expected = functional.conv2d(images, weight, stride=2).flatten(2).transpose(1, 2)
    assert torch.allclose(patches(images, 2) @ weight.flatten(1).t(), expected)


class SeparateProjections(nn.Module):
    """vit_digits' attention with three projections and the softmax written out."""

    def __init__(self, fused: nn.Module) -> None:
        super().__init__()
        self.heads = fused.heads
        dim = fused.qkv.in_features
        self.q, self.k, self.v = (nn.Linear(dim, dim) for _ in range(3))
        for part, weight, bias in zip(
            (self.q, self.k, self.v),
            fused.qkv.weight.chunk(3),
            fused.qkv.bias.chunk(3),
            strict=True,
        ):
            part.weight, part.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
        self.proj = fused.proj

    def forward(self, x):
        batch, tokens, dim = x.shape
        q, k, v = (
            part(x).view(batch, tokens, self.heads, -1).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(dim // self.heads)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, dim))


def test_fused_and_separate_projections_give_the_same_integers():
    module, images = tiny()
    fused = quantize(trace(module, (images[:1],), name="fused"), images)
    for block in module.blocks:
        block.attn = SeparateProjections(block.attn)
    separate = quantize(trace(module.eval(), (images[:1],), name="separate"), images)
    assert torch.equal(fused.run(images), separate.run(images))


def test_a_column_of_zero_weights_keeps_its_bias():
    """A pruned output is its bias alone; a scale from its weights could not hold that."""
    module, images = tiny()
    with torch.no_grad():
        module.head.weight[1].zero_()
        module.head.weight[2].zero_()
        module.head.bias.copy_(torch.tensor([0.1, 1.5, 0.0]))
    model = quantize(trace(module, (images[:1],), name="pruned"), images)
    logits, step = model.logits(images), model.operators[-1].scale
    assert torch.all((logits[:, 1] - 1.5).abs() <= step)
    assert torch.all(logits[:, 2] == 0)


def test_an_mlp_that_never_fires_in_calibration():
    """GELU of values far below zero is next to nothing; the factor to its codes did not fit."""
    module, images = tiny()
    block = module.blocks[0].mlp
    with torch.no_grad():
        block.fc1.weight.mul_(1e-3)
        block.fc1.bias.fill_(-5.2)
    graph = trace(module, (images[:1],), name="silent")
    model = quantize(graph, images)
    expected = module(images).argmax(-1)
    assert (model.run(images).argmax(-1) == expected).double().mean() >= 0.9


def test_operators_without_an_integer_form_are_listed_together():
    module, images = tiny()
    module.blocks[0].mlp.act = nn.Tanh()
    module.head = nn.Sequential(nn.Linear(8, 8), nn.Mish(), nn.Linear(8, 3))
    graph = trace(module.eval(), (images[:1],), name="mixed")
    with pytest.raises(VitruviusError) as caught:
        quantize(graph, images)
    text = str(caught.value)
    assert "Tanh has no integer form" in text
    assert "Mish has no integer form" in text
    assert "blocks.0.mlp" in text
    assert ".py:" in text


def test_not_a_number_is_refused_with_its_place():
    module, images = tiny()
    graph = trace(module, (images[:1],), name="tiny")
    graph.tensors["blocks.0.mlp.fc1.weight"][0, 0] = float("nan")
    with pytest.raises(VitruviusError, match=r"blocks\.0\.mlp\.fc1\.weight holds NaN"):
        quantize(graph, images)
    module, images = tiny()
    graph = trace(module, (images[:1],), name="tiny")
    bad = images.clone()
    bad[3, 0, 1, 1] = float("inf")
    with pytest.raises(VitruviusError, match="calibration images: expected finite values"):
        quantize(graph, bad)


def test_the_first_layer_that_overflows_in_calibration_is_named():
    module, images = tiny()
    with torch.no_grad():
        module.blocks[0].mlp.fc2.weight.fill_(3e38)
        module.blocks[0].mlp.fc1.bias.fill_(3.0)
    graph = trace_unchecked(module, images)
    with pytest.raises(VitruviusError, match=r"Linear 'blocks\.0\.mlp\.fc2'.*NaN or Inf"):
        quantize(graph, images)


def trace_unchecked(module, images):
    """Traces small weights (tracing compares outputs), then puts the real ones into the graph."""
    safe, _ = tiny()
    graph = trace(safe, (images[:1],), name="tiny")
    state = module.state_dict()
    for key in graph.tensors:
        if key in state:
            graph.tensors[key] = state[key]
    return graph


def test_an_accumulator_that_could_overflow_is_refused_with_the_layer(digits_model):
    key = digits_model.operator("head").tensors["bias"]
    tensors = dict(digits_model.tensors)
    tensors[key] = torch.full_like(tensors[key], 2**31 - 1000)
    with pytest.raises(
        VitruviusError, match=r"head: an accumulator can reach \d+, limit 2147483647"
    ):
        IntegerModel("vit_digits", digits_model.operators, tensors)


def test_images_of_another_shape_or_not_finite_are_refused(digits_model):
    with pytest.raises(VitruviusError, match=r"expected \[n, 1, 8, 8\], got \[2, 3, 8, 8\]"):
        digits_model.run(torch.zeros(2, 3, 8, 8))
    with pytest.raises(VitruviusError, match="expected finite values"):
        digits_model.run(torch.full((1, 1, 8, 8), float("nan")))


def test_damaged_and_foreign_files_are_refused(digits_model, digits_workload, tmp_path):
    path = tmp_path / "m.safetensors"
    digits_model.save(path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(VitruviusError, match="not a complete safetensors file"):
        IntegerModel.load(cut)
    from safetensors.torch import save_file

    foreign = tmp_path / "weights.safetensors"
    save_file(digits_workload.module.state_dict(), foreign)
    with pytest.raises(VitruviusError, match="expected an integer model"):
        IntegerModel.load(foreign)
