"""Which models become integers, that the integers follow the float model, and what is refused."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.zoo.vit import Experts, VisionTransformer, VisionTransformerConfig

PLAIN = QuantizationOptions(equalise=False, bias_correction=False)
BASE = {
    "image_size": 16,
    "patch_size": 4,
    "channels": 3,
    "classes": 7,
    "dim": 32,
    "depth": 2,
    "heads": 4,
}
MOE = Experts(count=4, top_k=2, hidden_ratio=2.0)


def randomised(module, seed=0):
    """Weights large enough that every layer matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(0.0, 0.15, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
    return module.eval()


def built(**changes):
    module = randomised(VisionTransformer(VisionTransformerConfig(**{**BASE, **changes})))
    height, width = module.config.image_size
    images = torch.rand(8, 3, height, width, generator=torch.Generator().manual_seed(1))
    return module, images


def integer(module, images, options=PLAIN):
    graph = trace(module, (images[:1],), name="model")
    return quantize(graph, images, options=options)


def signal_to_noise(model, module, images):
    with torch.no_grad():
        exact = module(images).to(torch.float64)
    values = model.logits(images)
    assert values.shape == exact.shape
    return float(10 * torch.log10(exact.square().sum() / (values - exact).square().sum()))


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"norm": "rmsnorm", "image_size": (8, 24), "qkv_bias": False}, {"RmsNorm"}),
        ({"activation": "gelu_tanh", "heads": 1}, {"GeluTanh"}),
        ({"activation": "quick_gelu", "image_size": 4}, {"QuickGelu"}),
        ({"activation": "silu", "pool": "mean"}, {"Silu", "Mean"}),
        ({"activation": "relu", "layer_scale": 0.5}, {"Relu"}),
        ({"distilled": True, "registers": 3}, set()),
        ({"final_norm": False, "pool": "mean"}, {"Mean", "Requantize"}),
        ({"final_norm": False}, {"Requantize"}),
        ({"classes": 0}, set()),
        ({"classes": 0, "final_norm": False, "experts": MOE}, {"Gate", "Mixture"}),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_the_zoo_s_variants_become_integers_that_follow_the_float_model(changes, kinds):
    """A wrong order, scale or table would leave a few dB."""
    module, images = built(**changes)
    model = integer(module, images)
    assert kinds <= {operator.kind for operator in model.operators}
    assert signal_to_noise(model, module, images) > 22
    assert torch.equal(model.run(images), model.run(images, reference=True))


def test_two_heads_share_a_scale_and_the_result_counts_half():
    module, images = built(distilled=True)
    model = integer(module, images)
    total = model.operators[-1]
    heads = [model.operator(name) for name in total.inputs]
    assert total.kind == "Add"
    assert heads[0].scale == heads[1].scale == 2 * total.scale
    codes = {}
    model.run(images, observe=lambda operator, value: codes.update({operator.name: value}))
    assert torch.equal(codes[total.name], codes[heads[0].name] + codes[heads[1].name])
    assert {
        operator.attributes["token"] for operator in model.operators if operator.kind == "Select"
    } == {0, 1}


def test_routing_tables_can_be_observed():
    module, images = built(experts=MOE, classes=0, final_norm=False)
    model = integer(module, images)
    tables = model.routing(images)
    gate = next(operator for operator in model.operators if operator.kind == "Gate")
    assert set(tables) == {gate.name}
    routing = tables[gate.name]
    assert routing.experts.shape == routing.weights.shape == (8, 17, 2)
    codes = {}
    model.run(images, observe=lambda operator, value: codes.update({operator.name: value}))
    dense = torch.zeros_like(codes[gate.name]).scatter(-1, routing.experts, routing.weights)
    assert torch.equal(codes[gate.name], dense)
    assert routing.queue_lengths(4).sum(-1).tolist() == [34] * 8


def test_most_tokens_go_where_the_float_gate_sends_them():
    """Scores have 5 fraction bits: only experts that are close in float may change places."""
    module, images = built(experts=MOE, classes=0, final_norm=False)
    model = integer(module, images)
    seen = {}
    module.blocks[1].mlp.gate.register_forward_hook(lambda *call: seen.update(scores=call[2]))
    with torch.no_grad():
        module(images)
    chosen = seen["scores"].topk(2).indices.sort(-1).values
    got = next(iter(model.routing(images).values())).experts
    assert float((got == chosen).all(-1).double().mean()) > 0.85


class Attended(nn.Module):
    """A pre-norm block on patches with a mask or bias in its attention."""

    def __init__(self, bias):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, stride=4)
        self.norm = nn.LayerNorm(16)
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.register_buffer("bias", bias)

    def forward(self, images):
        x = self.patch(images).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x)).reshape(len(x), -1, 3, 2, 8).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        return x + self.proj(y.transpose(1, 2).reshape(len(x), -1, 16))


@pytest.mark.parametrize("heads", [1, 2])
def test_a_position_bias_and_a_mask_are_added_to_the_scores(heads):
    generator = torch.Generator().manual_seed(3)
    bias = 2 * torch.randn(1, heads, 16, 16, generator=generator)
    bias[..., 5] = float("-inf")
    module = randomised(Attended(bias), seed=4)
    images = torch.rand(8, 3, 16, 16, generator=generator)
    model = integer(module, images)
    attention = next(operator for operator in model.operators if operator.kind == "Attention")
    codes = model.tensors[attention.tensors["bias"]]
    assert codes.shape == (heads, 16, 16)
    assert bool((codes[..., 5] == -32768).all())
    assert signal_to_noise(model, module, images) > 25
    assert torch.equal(model.run(images), model.run(images, reference=True))
    changed = images.clone()
    changed[:, :, 4:8, 4:8] = 0.0  # the masked token's patch
    others = [token for token in range(16) if token != 5]
    assert torch.equal(model.run(changed)[:, others], model.run(images)[:, others])


class WideAndOdd(nn.Module):
    """Several layers without an integer form, one behind the other."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(1032)
        self.up, self.gate, self.down = nn.Linear(8, 1032), nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, images):
        x = self.patch(images).flatten(2).transpose(1, 2)
        a, b = self.gate(x).chunk(2, -1)
        x = x + functional.softmax(x, -1) + a * functional.silu(b)
        x = functional.mish(self.norm(self.up(x)))
        return self.down(x[..., :16])


def test_everything_that_rules_a_model_out_is_listed_with_its_place():
    """Also what lies behind an operator that is refused already."""
    module, images = WideAndOdd().eval(), torch.rand(4, 3, 16, 16)
    with pytest.raises(VitruviusError) as caught:
        integer(module, images)
    text = str(caught.value)
    for reason in (
        "only a patch embedding of the image",
        "softmax outside an attention",
        "product of two tensors, element by element",
        "normalises 1032 features, at most 1024",
        "Mish has no integer form",
    ):
        assert reason in text
    lines = text.splitlines()[1:]
    assert len(lines) == 5
    assert "model: 5 operator(s) without an integer form" in text
    assert all(re.search(r"\(module '.*', test_lowering\.py:\d+\): ", line) for line in lines)


@pytest.mark.parametrize("name", ["vit", "deit", "clip", "dinov2", "beit"])
def test_transformers_models_become_integers(name):
    transformers = pytest.importorskip("transformers")
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "image_size": 32,
        "patch_size": 8,
        "num_labels": 5,
    }
    t = transformers
    module, field = {
        "vit": lambda: (t.ViTForImageClassification(t.ViTConfig(**sizes)), "logits"),
        "deit": lambda: (t.DeiTForImageClassificationWithTeacher(t.DeiTConfig(**sizes)), "logits"),
        "clip": lambda: (t.CLIPVisionModel(t.CLIPVisionConfig(**sizes)), "pooler_output"),
        "dinov2": lambda: (
            t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**sizes)),
            "last_hidden_state",
        ),
        "beit": lambda: (
            t.BeitForImageClassification(t.BeitConfig(**sizes, use_relative_position_bias=True)),
            "logits",
        ),
    }[name]()

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, images):
            return getattr(self.inner(images), field)

    whole = randomised(Field())
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    model = integer(whole, images)
    assert signal_to_noise(model, whole, images) > 20
    assert torch.equal(model.run(images[:2]), model.run(images[:2], reference=True))
